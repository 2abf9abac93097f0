"""Small random models and their bundles, as if trained for a kind of task; each is made once for all tests."""

from conftest import make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone

SNIPS_LABELS = [
    *("AddToPlaylist", "BookRestaurant", "GetWeather", "PlayMusic"),
    *("RateBook", "SearchCreativeWork", "SearchScreeningEvent"),
]
TASKS = {
    "plain": {},
    "snips": {"name": "snips", "kind": "classification", "labels": SNIPS_LABELS, "max_seq_length": 24},
    "pairs": {
        "name": "custom",
        "kind": "classification",
        "labels": ["是", "否", "也许"],
        "text_pair_column": "answer",
        "max_seq_length": 32,
    },
    "values": {"name": "custom", "kind": "regression", "max_seq_length": 32},
    "tabs": {
        "name": "custom",
        "kind": "classification",
        "labels": ["a\ttab", 'a\nbreak, "quoted"'],
        "text_column": "body",
    },
}
# Tasks of GLUE as their models' metadata have them.
GLUE = {
    "cola": {"labels": ["0", "1"]},
    "rte": {"labels": ["entailment", "not_entailment"], "text_pair_column": "sentence2"},
    "mnli": {"labels": ["entailment", "neutral", "contradiction"], "text_pair_column": "sentence2"},
    "sts-b": {"kind": "regression", "text_pair_column": "sentence2"},
}
TASKS |= {name: {"name": name, "kind": "classification", "max_seq_length": 64} | task for name, task in GLUE.items()}
OUTPUTS = {
    "plain": 2,
    "snips": 7,
    "pairs": 3,
    "values": 1,
    "tabs": 2,
    "cola": 2,
    "rte": 2,
    "mnli": 3,
    "sts-b": 1,
}
SIZES = ["w1.00d1.00", "w0.50d0.50"]
# Python, but a package that a bundle's user does not have cannot be imported, wherever it is installed.
WITHOUT_PACKAGE = """
import runpy, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("dynabert_paddle", "paddlenlp", "safetensors", "pydantic", "typer"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def make_model(make_once, kind):
    """A small random model, as if trained for a kind of task."""

    def make(folder):
        tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
        model = make_bert(num_labels=OUTPUTS[kind], num_layers=2, initializer_range=0.4, seed=1)  # tells texts apart
        supernet = db.Supernet(model, tokenizer)
        if TASKS[kind]:
            supernet.metadata = supernet.metadata.replace(stage="finetune", task=TASKS[kind])
        supernet.save_pretrained(folder)

    return make_once(f"random-{kind}", make)


def make_bundle(make_once, kind, format="paddle"):
    """The bundle of such a model: an export takes seconds."""
    model = make_model(make_once, kind)
    return make_once(f"random-{kind}-{format}", lambda folder: db.export(model, folder, format=format))


def make_sizes(make_once):
    """The bundle of a random model of snips with the sub-networks `SIZES`."""

    def make(folder):
        db.export(make_model(make_once, "snips"), folder, subnets=SIZES, tolerance=1e-4)

    return make_once("random-snips-sizes", make)
