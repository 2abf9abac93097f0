"""DynaBERT on PaddlePaddle: one fine-tuned BERT becomes a supernet whose sub-networks all work.

Importing the package imports no Paddle; the names below are loaded when they are first used.
"""

from importlib import import_module
from typing import Any

from dynabert_paddle.runtime.environment import import_paddle, set_cpu_environment

__version__ = "0.1.0"

# Public name -> the module that has it.
_PUBLIC = {
    "Subnet": "subnet",
    "SearchSpace": "search_space",
    "Config": "config.settings",
    "FinetuneConfig": "config.settings",
    "RewireConfig": "config.settings",
    "WidthConfig": "config.settings",
    "DepthConfig": "config.settings",
    "FinalConfig": "config.settings",
    "AugmentConfig": "config.command_settings",
    "BaselineConfig": "config.settings",
    "SearchConfig": "config.command_settings",
    "CompressConfig": "config.command_settings",
    "load_config": "config.loading",
    "DynabertError": "errors",
    "Task": "data.tasks",
    "load_task": "data.tasks",
    "Tokenizer": "text.tokenizer",
    "Supernet": "supernet.supernet",
    "SupernetOutput": "supernet.supernet",
    "extract": "supernet.extract",
    "augment": "training.augment",
    "finetune": "training.stages",
    "rewire": "training.stages",
    "train_width": "training.stages",
    "train_depth": "training.stages",
    "train_final": "training.stages",
    "baseline": "training.baseline",
    "evaluate_grid": "training.evaluate",
    "run": "training.run",
    "search": "searching.run",
    "SearchResult": "files.search_result",
    "load_model": "supernet.supernet",
    "compress": "compressing.compress",
    "export": "exporting.run",
    "Prediction": "text.decode",
    "LabelSet": "text.decode",
    "WordLabels": "text.decode",
    "Entity": "text.decode",
    "Answer": "text.decode",
    "Predictor": "serving.predictor",
    "BatchPredictor": "serving.batch_predictor",
    "report": "reporting.run",
    "AdaptivePredictor": "serving.adaptive",
    "TimedPredictions": "serving.adaptive",
}
_WITHOUT_PADDLE = {
    *(
        "subnet",
        "search_space",
        "config.settings",
        "config.command_settings",
        "config.loading",
        "errors",
        "data.tasks",
        "text.tokenizer",
    ),
    *("exporting.run", "text.decode", "serving.predictor", "serving.adaptive"),
    "serving.batch_predictor",
}

__all__ = ["__version__", *_PUBLIC]

set_cpu_environment()


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'dynabert_paddle' has no attribute {name!r}")
    if _PUBLIC[name] not in _WITHOUT_PADDLE:
        import_paddle()
    return getattr(import_module(f"dynabert_paddle.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
