"""The official files, if they are beside the checkout. Numbers of rows are from their README."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_catalog import row

from dynabert_paddle.data.catalog import find_declaration, find_submission
from dynabert_paddle.data.readers import Columns, read_examples
from dynabert_paddle.data.tasks import load_task

REAL = Path(__file__).parents[4] / "shared" / "data"

GLUE = {
    "cola": ("CoLA", 8551, 1043, "Our friends won't buy this analysis, let alone the next one we propose."),
    "sst-2": ("SST-2", 67349, 872, "hide new secretions from the parental units "),
    "mrpc": ("MRPC", 3668, 408, 'Amrozi accused his brother , whom he called " the witness " , of deliberately'),
    "sts-b": ("STS-B", 5749, 1500, "A plane is taking off."),
    "rte": ("RTE", 2490, 277, "No Weapons of Mass Destruction Found in Iraq Yet."),
    "wnli": ("WNLI", 635, 71, "I stuck a pin through a carrot. When I pulled the pin out, it had a hole."),
}
LAST = {
    "cola": ("John talked to Bill about himself.", None, "1"),
    "sst-2": ("looking aristocratic , luminous yet careworn", None, "1"),
    "mrpc": ("Ex-KGB agent Putin added that the Beatles", "In Soviet times the Beatles ' music \" was", "1"),
    "sts-b": ("New video shows US police officers beating", "New York police officer critically wounded", 0),
    "rte": ("Danny Kennedy, Greenpeace campaigns director", "Greenpeace director said that peace is", "not_entailment"),
    "wnli": ("George got free tickets to the play, but", "Eric was not particularly eager to see it.", "0"),
}


@pytest.fixture
def real():
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is absent")
    return REAL


@pytest.mark.parametrize("name", GLUE)
def test_all_rows_of_real_glue_are_read(real, name):
    folder, train, dev, first = GLUE[name]
    task = load_task(name, data_dir=real / "glue")
    assert task.train.source == real / "glue" / folder / "train.tsv"
    assert (len(task.train), len(task.dev)) == (train, dev)
    assert task.train.texts[0].startswith(first)
    text, pair, label = row(task, task.dev, -1)
    assert text.startswith(LAST[name][0])
    assert pair is None if LAST[name][1] is None else pair.startswith(LAST[name][1])
    assert label == LAST[name][2]
    if task.labels:
        assert set(np.unique(task.train.labels)) == set(np.unique(task.dev.labels)) == set(range(len(task.labels)))
    else:
        assert (task.train.labels.min(), task.train.labels.max()) == (0, 5)


def read_real(path, name):
    declared = find_declaration(name)
    columns = Columns(declared.text_column, declared.text_pair_column, declared.label_column or "label")
    return read_examples(path, columns, labels=declared.labels, layout=declared.layout)


def test_real_qnli_dev(real):
    """Without a training file; the sentences contain unpaired double quotes."""
    dev = read_real(real / "glue" / "QNLI" / "dev.tsv", "qnli")
    assert len(dev) == 5463
    assert dev.texts[0] == "What came into force after the new constitution was herald?"
    assert set(dev.labels) == {0, 1}


@pytest.mark.parametrize(
    ("name", "folder", "rows", "index"),
    [
        *(("cola", "CoLA", 1063, "1062"), ("sst-2", "SST-2", 1821, "1820"), ("mrpc", "MRPC", 1725, "1724")),
        *(("rte", "RTE", 3000, "2999"), ("wnli", "WNLI", 146, "145"), ("qnli", "QNLI", 5463, "5462")),
        ("mnli", "diagnostic", 1104, "1103"),
    ],
)
def test_real_test_files(real, name, folder, rows, index):
    task = find_submission(name)
    file = "diagnostic.tsv" if folder == "diagnostic" else "test.tsv"
    found = list(task.submission.read(real / "glue" / folder / file, task.text_column, task.text_pair_column))
    assert len(found) == rows
    assert (found[0].label, found[-1].label) == ("0", index)


def test_real_afqmc(real):
    task = load_task("afqmc", data_dir=real / "clue")
    assert (len(task.train), len(task.dev)) == (34334, 4316)
    assert row(task, task.train, 0) == ("蚂蚁借呗等额还款可以换成先息后本吗", "借呗有先息到期还本吗", "0")
    assert row(task, task.dev, -1) == ("我的淘宝绑不了花呗", "怎么花呗绑不了淘宝", "1")


def test_real_tnews(real, tmp_path):
    """The training texts come with descriptions of the labels, which labels.json translates."""
    folder = real / "clue" / "tnews"
    rows = [json.loads(line) for line in (folder / "labels.json").read_text(encoding="utf-8").splitlines()]
    codes = {entry["label_desc"]: entry["label"] for entry in rows}
    lines = (folder / "train_text_labeldesc.tsv").read_text(encoding="utf-8").splitlines()
    with open(tmp_path / "train.json", "w", encoding="utf-8") as file:
        for sentence, description in (line.rsplit("\t", 1) for line in lines):
            file.write(json.dumps({"sentence": sentence, "label": codes[description]}) + "\n")
    task = load_task("tnews", data_dir=folder, train_file=tmp_path / "train.json")
    assert task.labels == tuple(sorted(codes.values()))
    assert (len(task.train), len(task.dev)) == (53360, 10000)
    assert set(task.train.labels) == set(task.dev.labels) == set(range(15))
    assert row(task, task.dev, 0)[2] == "102"
