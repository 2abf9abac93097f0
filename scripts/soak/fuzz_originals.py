"""Makes small undamaged originals of everything that users load, for `fuzz.py`."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import pickle
import shutil
import signal
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from dynabert_paddle.runtime.environment import import_paddle

import_paddle()

import paddle  # noqa: E402 - Paddle's environment comes first
import safetensors.numpy  # noqa: E402
from paddle import nn  # noqa: E402
from paddlenlp import transformers  # noqa: E402

import dynabert_paddle as db  # noqa: E402
from dynabert_paddle.backbone.loading import to_arrays  # noqa: E402
from dynabert_paddle.errors import Interrupted  # noqa: E402
from dynabert_paddle.files.metadata import Metadata  # noqa: E402

_WORDS = ("play", "some", "jazz", "book", "a", "table", "in", "rome", "what", "is", "the", "weather", "now", "today")
_LABELS = ("PlayMusic", "BookTable")
_SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 2}
LENGTH = 16
PDPARAMS = "model_state.pdparams"


def make(folder: Path) -> None:
    """Write all originals except the bundles, each kind in a folder of its own."""
    rng = np.random.default_rng(0)
    rows = [(" ".join(rng.choice(_WORDS, 5)), _LABELS[i % 2]) for i in range(40)]
    _write_data(folder, rows)
    paddle.seed(0)
    backbone = _backbone(folder / "backbone")
    train = {"max_steps": 2, "per_device_train_batch_size": 8, "logging_steps": 1}
    config = {
        "model_name_or_path": str(backbone),
        "stages": ["finetune", "rewire", "width", "depth"],
        "task": {"name": "custom", "data_dir": str(folder / "tsv"), "max_seq_length": LENGTH},
        "space": {"width_mult_list": [1.0, 0.5], "depth_mult_list": [1.0, 0.5]},
        "train": train,
    }
    (folder / "config").mkdir()
    (folder / "config" / "my.yaml").write_text(json.dumps(config, indent=1), encoding="utf-8")  # JSON is YAML
    db.run(db.load_config(folder / "config" / "my.yaml", flags={"output_dir": str(folder / "run")}))
    shutil.copytree(folder / "run" / "depth", folder / "model")
    db.search(folder / "model", config=db.SearchConfig(num_evaluations=12, population_size=4, seq_length=LENGTH))
    shutil.copytree(folder / "model" / "search", folder / "run" / "depth" / "search")
    _stop_early(folder)
    _convert(folder)
    _make_other_kind(folder, "conll", "TokenClassification")
    _make_other_kind(folder, "squad", "QuestionAnswering")
    os.environ["DYNABERT_CACHE_DIR"] = str(folder / "cache")
    db.load_task("custom", data_dir=folder / "tsv").dev.tokenize(
        db.Tokenizer.from_pretrained(folder / "model"), max_seq_length=LENGTH
    )


def export(folder: Path, names: Iterable[str]) -> None:
    """Export the model to the named bundles."""
    options = {"paddle": {}, "several": {"subnets": "w1.00d1.00 w0.50d1.00"}, "onnx": {"format": "onnx"}}
    options |= {"words": {}, "questions": {}}
    models = {"words": "conll-model", "questions": "squad-model"}
    for name in options.keys() & set(names):
        db.export(folder / models.get(name, "model"), folder / name, max_seq_length=LENGTH, **options[name])


def _write_data(folder: Path, rows: list[tuple[str, str]]) -> None:
    for name in ("tsv", "csv", "jsonl", "conll", "squad"):
        (folder / name).mkdir(parents=True)
    for part, some in (("train", rows[:24]), ("dev", rows[24:])):
        lines = [("sentence", "label"), *some]
        (folder / "tsv" / f"{part}.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in lines), encoding="utf-8")
        with (folder / "csv" / f"{part}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows(lines)
        text = "".join(json.dumps({"sentence": a, "label": b}) + "\n" for a, b in some)
        (folder / "jsonl" / f"{part}.jsonl").write_text(text, encoding="utf-8")
        sentences = ("".join(f"{w} {'B-X' if w == 'rome' else 'O'}\n" for w in ["rome", *a.split()]) for a, _ in some)
        (folder / "conll" / f"{part}.conll").write_text("\n".join(sentences), encoding="utf-8")
        answers = [[{"text": a.split()[0], "answer_start": 0}] for a, _ in some]
        asked = [{"id": str(i), "question": "what", "answers": answer} for i, answer in enumerate(answers)]
        paragraphs = [{"context": a, "qas": [qa]} for (a, _), qa in zip(some, asked, strict=True)]
        text = json.dumps({"data": [{"title": "x", "paragraphs": paragraphs}]})
        (folder / "squad" / f"{part}.json").write_text(text, encoding="utf-8")


def _backbone(folder: Path) -> Path:
    """Write a small BERT whose tokenizer knows the few words of the data."""
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, *"abcdefghijklmnopqrstuvwxyz."]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(words)) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}\n')
    _save(_model("SequenceClassification"), folder)
    return folder


def _model(ending: str) -> nn.Layer:
    """Make a small model of PaddleNLP, such as BertForSequenceClassification."""
    config = transformers.BertConfig(
        vocab_size=64, max_position_embeddings=64, num_labels=2, initializer_range=0.2, use_cache=False, **_SIZES
    )
    return getattr(transformers, f"BertFor{ending}")(config)


def _save(model: nn.Layer, folder: Path) -> None:
    model.config.architectures = [type(model).__name__]
    model.config.to_json_file(str(folder / "config.json"))
    safetensors.numpy.save_file(to_arrays(model), folder / "model.safetensors", metadata={"format": "np"})


class _StopAtOnce(logging.Handler):
    """Stops a run with SIGTERM at its first log line of a step."""

    def emit(self, record: logging.LogRecord) -> None:
        if "1/2" in record.getMessage():
            signal.raise_signal(signal.SIGTERM)


def _stop_early(folder: Path) -> None:
    """Make a run that was stopped after the first of its two steps."""
    logger, handler = logging.getLogger("dynabert_paddle"), _StopAtOnce()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    config = db.FinetuneConfig(max_steps=2, per_device_train_batch_size=8, logging_steps=1, eval_steps=1)
    task = db.load_task("custom", data_dir=folder / "tsv")
    with suppress(Interrupted):
        db.finetune(
            folder / "backbone", task, output_dir=folder / "unfinished" / "out", config=config, max_seq_length=LENGTH
        )
    logger.removeHandler(handler)
    logger.setLevel(level)


def _convert(folder: Path) -> None:
    """Write model folders of other tools: without `dynabert.json`, one for each format of weights."""
    arrays = to_arrays(_model("SequenceClassification"))
    for name in ("safetensors", "pdparams", "torch"):
        shutil.copytree(folder / "backbone", folder / name)
    for name in ("pdparams", "torch"):
        (folder / name / "model.safetensors").unlink()
    paddle.save({name: paddle.to_tensor(array) for name, array in arrays.items()}, str(folder / "pdparams" / PDPARAMS))
    _write_torch(folder / "torch" / "pytorch_model.bin", arrays)


def _write_torch(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a file as `torch.save` does, without PyTorch."""
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    utils._rebuild_tensor_v2 = lambda *_: None
    utils._rebuild_tensor_v2.__module__, utils._rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"

    class Tensor:
        def __init__(self, key: str, array: np.ndarray) -> None:
            strides = tuple(stride // 4 for stride in array.strides)
            self.args = (Storage(key, array.size), 0, array.shape, strides, False, OrderedDict())

        def __reduce__(self) -> tuple:
            return utils._rebuild_tensor_v2, self.args

    class Storage(NamedTuple):
        key: str
        size: int

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> tuple | None:
            return ("storage", torch.FloatStorage, value.key, "cpu", value.size) if isinstance(value, Storage) else None

    data = io.BytesIO()
    sys.modules |= {"torch": torch, "torch._utils": utils}
    Pickler(data, protocol=2).dump({name: Tensor(str(i), array) for i, (name, array) in enumerate(arrays.items())})
    del sys.modules["torch"], sys.modules["torch._utils"]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data.getvalue())
        for i, array in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{i}", array.tobytes())


def _make_other_kind(folder: Path, data: str, ending: str) -> None:
    """Write an untrained model for tokens or questions whose metadata says that it is fine-tuned."""
    kind = {"conll": "token_classification", "squad": "question_answering"}[data]
    task = db.load_task("custom", kind=kind, data_dir=folder / data)
    metadata = Metadata(stage="finetune", task={**task.to_dict(), "max_seq_length": 32})
    tokenizer = db.Tokenizer.from_pretrained(folder / "backbone")
    db.Supernet(_model(ending), tokenizer, metadata).save_pretrained(folder / f"{data}-model")


if __name__ == "__main__":
    if not (Path(sys.argv[1]) / "cache").exists():  # it is made last
        make(Path(sys.argv[1]))
    export(Path(sys.argv[1]), [name for name in sys.argv[2:] if not (Path(sys.argv[1]) / name).exists()])
