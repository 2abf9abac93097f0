"""From annotation files of other tools to predictions: a model is trained on one, and its bundle reads all of them."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run_command
from conftest import make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone

pytestmark = [pytest.mark.full, pytest.mark.reference]

CITIES = ["Paris", "London", "Madrid", "Tokyo"]
PEOPLE = ["Maria", "John", "Peter", "Anna"]
OTHERS = ["the", "a", "house", "river", "went", "to", "with", "stone"]
NAMES = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
FORMS = ("doccano.jsonl.gz", "studio.json", "tags.jsonl", "tags.parquet", "words.conll", "x02.txt.gz")


def make_sentences(count, *, seed):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        words, labels = [], []
        for kind in rng.choice(["O", "O", "LOC", "PER"], rng.integers(3, 8)):
            words.append(str(rng.choice({"O": OTHERS, "LOC": CITIES, "PER": PEOPLE}[kind])))
            labels.append("O" if kind == "O" else f"B-{kind}")
        yield words, labels


def spans_of(words, labels):
    start = 0
    for word, label in zip(words, labels, strict=True):
        if label != "O":
            yield start, start + len(word), label[2:]
        start += len(word) + 1


def write(path, sentences):
    """Write sentences as the tool does that the file is named after."""
    sentences = list(sentences)
    name = path.name.removesuffix(".gz")
    if "doccano" in name:
        records = [
            {"id": 1, "text": " ".join(words), "label": list(map(list, spans_of(words, labels)))}
            for words, labels in sentences
        ]
        text = "".join(json.dumps(record) + "\n" for record in records)
    elif "studio" in name:
        tasks = []
        for words, labels in sentences:
            results = [
                {
                    "from_name": "ner",
                    "to_name": "text",
                    "type": "labels",
                    "value": {"start": a, "end": b, "labels": [k]},
                }
                for a, b, k in spans_of(words, labels)
            ]
            tasks.append({"data": {"text": " ".join(words)}, "annotations": [{"result": results}]})
        text = json.dumps(tasks)
    elif name.endswith("tags.jsonl"):
        rows = [{"tokens": words, "ner_tags": list(map(NAMES.index, labels))} for words, labels in sentences]
        text = "".join(json.dumps(row) + "\n" for row in rows)
    elif name.endswith(".parquet"):
        tags = [list(map(NAMES.index, labels)) for _, labels in sentences]
        features = {"ner_tags": {"feature": {"names": NAMES, "_type": "ClassLabel"}, "_type": "Sequence"}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = pa.table({"tokens": [words for words, _ in sentences], "ner_tags": tags})
        pq.write_table(table.replace_schema_metadata(metadata), path)
        return path
    elif "x02" in name:
        text = "".join("\t".join(map("\x02".join, sentence)) + "\n" for sentence in sentences)
    else:
        lines = ("".join(f"{word}\t{label}\n" for word, label in zip(*pair, strict=True)) for pair in sentences)
        text = "\n".join(lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of the files, and a model that was trained on doccano's."""
    folder = tmp_path_factory.mktemp("annotations")
    for form in FORMS:
        for name, count, seed in (("train", 300, 0), ("dev", 40, 1)):
            write(folder / f"{name}-{form}", make_sentences(count, seed=seed))
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    start = db.Supernet(make_bert(num_labels=2, num_layers=1, hidden_size=64), tokenizer)
    return folder, start.save_pretrained(folder / "start")


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_read_alike(trained, form):
    folder, _ = trained
    files = {f"{name}_file": folder / f"{name}-{form}" for name in ("train", "dev")}
    names = NAMES if form == "tags.jsonl" else None  # of the integers
    task = db.load_task("custom", kind="token_classification", labels=names, **files)
    for name, count, seed in (("train", 300, 0), ("dev", 40, 1)):
        examples = getattr(task, name)
        assert list(zip(examples.words, examples.labels, strict=True)) == list(make_sentences(count, seed=seed))
    assert task.train.settings.label_scheme in ("IOB2", "IO")


def test_a_model_is_trained_on_one_form_and_predicts_all(capsys, trained):
    folder, start = trained
    words = ["--task_name", "custom", "--kind", "token_classification", "--max_seq_length", 32, "--device", "cpu"]
    words += ["--train_file", folder / "train-doccano.jsonl.gz", "--dev_file", folder / "dev-doccano.jsonl.gz"]
    steps = ["--max_steps", 60, "--learning_rate", 3e-3, "--eval_steps", 1000]
    done = run_command(
        capsys, "finetune", *words, *steps, "--model_name_or_path", start, "--output_dir", folder / "out"
    )
    assert done.code == 0, done.err
    done = run_command(capsys, "export", folder / "out", "--output_dir", folder / "bundle")
    assert done.code == 0, done.err
    found = {}
    for form in FORMS:
        done = run_command(
            capsys, "predict", folder / "bundle", "-i", folder / f"dev-{form}", "--output_format", "jsonl"
        )
        assert done.code == 0, (form, done.err)
        found[form] = [json.loads(line)["labels"] for line in done.out.splitlines()]
        assert found[form] == found[FORMS[0]], form
    expected = [labels for _, labels in make_sentences(40, seed=1)]
    right = [a == b for row, own in zip(found[FORMS[0]], expected, strict=True) for a, b in zip(row, own, strict=True)]
    assert np.mean(right) > 0.95
