"""The built-in tasks: each reads the official layout, with its columns, labels and metrics."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from dynabert_paddle.config.settings import TaskConfig
from dynabert_paddle.data.catalog import CATALOG, find_declaration, find_submission
from dynabert_paddle.data.declaration import Declaration
from dynabert_paddle.data.layout import Layout
from dynabert_paddle.data.readers import Columns
from dynabert_paddle.data.tasks import load_task
from dynabert_paddle.errors import DataError, UsageError

SAMPLES = Path(__file__).parents[2] / "samples"

CODES = ("100", "101", "102", "103", "104", "106", "107", "108", "109", "110", "112", "113", "114", "115", "116")
BINARY, ENTAILMENT = ("0", "1"), ("entailment", "not_entailment")
INFERENCE = ("entailment", "neutral", "contradiction")
SENTENCE = "李四昨天在西安买了一个手机"
ABSTRACT = "为研究广州的雨伞市场，建立了统计模型，分析了价格与需求的关系。结果表明，模型与阿明等人的调查一致。"  # noqa: RUF001

# Task -> its folder among the samples, its labels, its metrics, how many classes the samples have, and the last row of
# their dev file: texts and label.
TASKS = {
    "cola": ("glue/CoLA", BINARY, "matthews", 2, ("Ana the picture in drew library the.", None, "0")),
    "sst-2": ("glue/SST-2", BINARY, "accuracy", 2, ("the music is clumsy and soon forgotten ", None, "0")),
    "mrpc": (
        *("glue/MRPC", BINARY, "accuracy f1", 2),
        (
            "Dora said the boat was in the station on Monday .",
            '" Nobody sold a boat , " the owner of the station told Dora .',
            "0",
        ),
    ),
    "sts-b": (
        *("glue/STS-B", (), "pearson spearman", None),
        ("Fatima painted a fence in the kitchen.", "A fence is expensive.", 1.25),
    ),
    "qqp": (
        *("glue/QQP", BINARY, "accuracy f1", 2),
        ("How do I get a picture from the library?", "Who drew the first picture in history?", "0"),
    ),
    "mnli": (
        *("glue/MNLI", INFERENCE, "accuracy", 3),
        ("Fatima painted a fence in the kitchen this morning.", "Fatima painted it for a friend.", "neutral"),
    ),
    "mnli-mm": (
        *("glue/MNLI", INFERENCE, "accuracy", 3),
        ("Fatima painted a fence in the kitchen on stage.", "Fatima painted it for a friend.", "neutral"),
    ),
    "qnli": (
        *("glue/QNLI", ENTAILMENT, "accuracy", 2),
        ("Who drew the picture?", "The library opens at nine, and closes at six.", "not_entailment"),
    ),
    "rte": (
        *("glue/RTE", ENTAILMENT, "accuracy", 2),
        ("Ana, who lives near the library, drew a picture last year.", "Ana works in the library.", "not_entailment"),
    ),
    "wnli": (
        *("glue/WNLI", BINARY, "accuracy", 2),
        (
            "Fatima gave the fence to Boris because she had asked for it in the kitchen.",
            "Fatima had asked for it in the kitchen.",
            "0",
        ),
    ),
    "tnews": ("clue/tnews", CODES, "accuracy", 4, ("广州公司发布新款雨伞芯片", None, "109")),
    "afqmc": ("clue/afqmc", BINARY, "accuracy", 2, ("在广州买雨伞可以分期吗", "雨伞坏了在广州怎么退货", "0")),
    "iflytek": (
        *("clue/iflytek", tuple(str(code) for code in range(119)), "accuracy", 3),
        ("在广州购物首选本应用，雨伞每天特价，一小时送到家，支持七天退货，阿明推荐下载。", None, "70"),  # noqa: RUF001
    ),
    "ocnli": (
        *("clue/ocnli", INFERENCE, "accuracy", 3),
        ("阿明昨天在广州买了一个雨伞", "阿明很喜欢广州的天气", "neutral"),
    ),
    "cmnli": ("clue/cmnli", INFERENCE, "accuracy", 3, (SENTENCE, "李四昨天去过西安", "entailment")),
    "csl": ("clue/csl", BINARY, "accuracy", 2, (ABSTRACT, "雨伞市场、深海鱼类、古代诗歌", "0")),
    "cluewsc2020": (
        *("clue/cluewsc2020", ("false", "true"), "accuracy", 2),
        ("[阿明]在广州看见了小王，于是把雨伞还给了_他_。", "他指的是阿明", "false"),  # noqa: RUF001
    ),
    "chnsenticorp": (
        *("clue/chnsenticorp", BINARY, "accuracy", 2),
        ("广州这家酒店太吵，房间又旧又脏，阿明的雨伞也丢了，不会再来。", None, "0"),  # noqa: RUF001
    ),
    "lcqmc": ("clue/lcqmc", BINARY, "accuracy", 2, ("广州哪里有卖雨伞的？", "雨伞是谁发明的？", "0")),  # noqa: RUF001
}


def row(task, examples, index):
    label = examples.labels[index]
    pair = None if examples.pairs is None else examples.pairs[index]
    return examples.texts[index], pair, task.labels[label] if task.labels else pytest.approx(label)


def refusal(error, name, **options) -> str:
    with pytest.raises(error) as caught:
        load_task(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_task_has_samples():
    assert {name for name in CATALOG if name not in ("snips", "custom", "ax")} == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_all_samples_are_read(name):
    folder, labels, metrics, num_classes, last = TASKS[name]
    task = load_task(name, data_dir=SAMPLES / folder)
    assert (task.name, task.labels, task.metrics) == (name, labels, tuple(metrics.split()))
    assert (len(task.train), len(task.dev)) == (24, 8)  # as their README states
    assert row(task, task.dev, -1) == last
    if num_classes:
        assert len(np.unique(task.train.labels)) == len(np.unique(task.dev.labels)) == num_classes
    else:
        assert (task.kind, task.train.labels.min(), task.train.labels.max()) == ("regression", 0, 5)


@pytest.mark.parametrize("name", TASKS)
def test_the_parent_folder_is_accepted_and_the_description_loads_the_task(name):
    task = load_task(name, data_dir=(SAMPLES / TASKS[name][0]).parent)
    description = json.loads(json.dumps(task.to_dict()))
    assert Path(description["dev_file"]).parent == SAMPLES / TASKS[name][0]
    assert set(description) <= {field.name for field in dataclasses.fields(TaskConfig)}
    again = load_task(**description)
    assert again.to_dict() == description
    for ours, theirs in ((task.train, again.train), (task.dev, again.dev)):
        assert (ours.texts, ours.pairs, ours.labels.tolist()) == (theirs.texts, theirs.pairs, theirs.labels.tolist())


@pytest.mark.parametrize("name", ["afqmc", "tnews", "ocnli", "iflytek", "cmnli", "csl", "cluewsc2020"])
def test_a_folder_of_clue_may_have_its_official_name(tmp_path, name):
    shutil.copytree(SAMPLES / "clue" / name, tmp_path / f"{name}_public")
    assert len(load_task(name, data_dir=tmp_path).dev) == 8


@pytest.mark.parametrize(
    ("written", "name"),
    [
        *((written, "sst-2") for written in ("SST-2", "sst2", "SST_2", "Sst-2")),
        *(("MNLI_MM", "mnli-mm"), ("mnlimm", "mnli-mm"), ("STSB", "sts-b"), ("CoLA", "cola"), ("Snips", "snips")),
        *(("ChnSentiCorp", "chnsenticorp"), ("Custom", "custom"), ("CLUEWSC_2020", "cluewsc2020")),
    ],
)  # fmt: skip
def test_case_and_dashes_are_ignored(written, name):
    assert find_declaration(written).name == name


@pytest.mark.parametrize(
    ("written", "name"), [("SST-3", "sst-2"), ("MNLI-MN", "mnli-mm"), ("afqm", "afqmc"), ("COLLA", "cola")]
)
def test_an_unknown_name_suggests_the_nearest(written, name):
    with pytest.raises(
        UsageError, match=f"unknown task '{written}'; built in: 'snips', 'cola', .* Did you mean '{name}'"
    ):
        find_declaration(written)


def test_names_of_tasks_differ_by_more_than_case_and_dashes():
    plain = [name.replace("-", "") for name in CATALOG]
    assert len(set(plain)) == len(plain)


def test_ax_cannot_be_trained_and_names_mnli():
    message = refusal(UsageError, "AX", data_dir=SAMPLES / "glue")
    assert message == (
        "task 'ax' has a test file only: fine-tune on 'mnli', and give the file to 'dynabert predict --submission'."
    )


@pytest.mark.parametrize("name", ["snips", "custom", "tnews", "ax", "nobody's"])
def test_tasks_without_a_submission(name):
    with pytest.raises(
        UsageError, match=f"task {name!r} has no submission file; these have one: cola, sst-2, mrpc, .*wnli;"
    ):
        find_submission(name)


def test_a_folder_in_another_layout_is_refused(tmp_path):
    (tmp_path / "train.csv").touch()
    (tmp_path / "valid.csv").touch()
    message = refusal(DataError, "ocnli", data_dir=tmp_path)
    assert message == (
        f"{tmp_path}: task 'ocnli' is in train.50k.json and dev.json; the folder contains train.csv, valid.csv. "
        "Give the file with train_file."
    )
    shutil.copy(SAMPLES / "clue" / "ocnli" / "train.50k.json", tmp_path)
    assert refusal(DataError, "ocnli", data_dir=tmp_path).endswith("Give the file with dev_file.")


# Task, file, what stands there, what comes in its place, and what the message says.
MALFORMED = [
    (
        "rte",
        "train.tsv",
        "\tentailment\n",
        "\tyes\n",
        "label 'yes' is not one of the task's labels, 'entailment', 'not_ent",
    ),
    ("cola", "dev.tsv", "\t0\t", "\t2\t", "label '2' is not one of the task's labels, '0', '1'."),
    (
        "ocnli",
        "dev.json",
        '"label": "neutral"',
        '"label": "?"',
        "label '?' is not one of the task's labels, 'entailment', ",
    ),
    ("rte", "dev.tsv", "\tnot_entailment\n", "\t-\n", "label '-' is not one of the task's labels"),
    ("sts-b", "train.tsv", "\t5.000\n", "\thigh\n", "label 'high' is not a finite number"),
    ("mrpc", "train.tsv", "#1 String", "String", "no column '#1 String'; the columns here are 'Quality'"),
    ("mnli", "train.tsv", "\tgold_label", "\tlabel2", "no column 'gold_label'"),
    ("rte", "train.tsv", "\tentailment\n", "\n", "3 fields, but the header has 4"),
    ("qqp", "dev.tsv", "\t0\n", "\t0\tx\n", "7 fields, but the header has 6"),
    ("cola", "train.tsv", "\t1\t\t", "\t1\t", "3 fields, but the header has 4"),
    ("lcqmc", "dev.tsv", "\t1\n", "\n", "2 fields, but the header has 3"),
    ("csl", "dev.json", '"keyword"', '"keywords"', "no key 'keyword'"),
    ("csl", "dev.json", '"雨伞市场"', "3", "'keyword' must be a list of strings, not ["),
    (
        "cluewsc2020",
        "train.json",
        '"span2_index": 19',
        '"span2_index": 18',
        "'span2_text' is '他', but at 18 the text has '了'",
    ),
    ("cluewsc2020", "train.json", '"span1_index": 0', '"span1_index": "0"', "a value is of the wrong type"),
    ("cluewsc2020", "train.json", '"target"', '"targets"', "no key 'target'"),
]


@pytest.mark.parametrize(("name", "file", "old", "new", "seen"), MALFORMED)
def test_malformed_rows_are_named_with_their_line(tmp_path, name, file, old, new, seen):
    folder = shutil.copytree(SAMPLES / TASKS[name][0], tmp_path / "task")
    text = (folder / file).read_text(encoding="utf-8")
    (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    line = text[: text.index(old)].count("\n") + 1
    message = refusal(DataError, name, data_dir=folder)
    assert message.startswith(f"{folder / file}:{line}: ")
    assert seen in message


@pytest.mark.parametrize(
    ("name", "file", "logged"),
    [
        ("qqp", "train.tsv", "left out 2 of its rows, with fewer fields than the header's 6; the first is line 14"),
        ("ocnli", "train.50k.json", "left out 1 of its rows, with the label '-'; the first is line 4"),
        ("cmnli", "dev.json", "left out 1 of its rows, with the label '-'; the first is line 4"),
    ],
)
def test_skipped_rows_are_counted_in_one_log_line(caplog, name, file, logged):
    caplog.set_level(logging.INFO)
    task = load_task(name, data_dir=SAMPLES / TASKS[name][0])
    path = SAMPLES / TASKS[name][0] / file
    found = [message for message in caplog.messages if message.startswith(f"{path}: ")]
    assert found == [f"{path}: {logged}"]
    lines = path.read_text(encoding="utf-8").splitlines()
    examples = task.train if "train" in file else task.dev
    header = file.endswith("tsv")
    assert len(examples) == len(lines) - header - int(logged.split()[2])


def test_no_other_rows_are_skipped(caplog):
    caplog.set_level(logging.INFO)
    for name in set(TASKS) - {"qqp", "ocnli", "cmnli"}:
        load_task(name, data_dir=SAMPLES / TASKS[name][0])
    assert caplog.messages == []


def test_a_new_task_needs_only_a_declaration(tmp_path, monkeypatch):
    mine = Declaration(
        "wine",
        labels=("red", "white"),
        metrics=("macro_f1",),
        text_column="note",
        label_column="colour",
        layout=Layout(header=("colour", "note"), skipped_label="?"),
        folders=("Wine",),
        train_name="wine-train.tsv",
        dev_name="wine-dev.tsv",
    )
    monkeypatch.setitem(CATALOG, mine.name, mine)
    (tmp_path / "Wine").mkdir()
    for name in ("train", "dev"):
        (tmp_path / "Wine" / f"wine-{name}.tsv").write_text(f"white\tfresh {name}\n?\tcorked\nred\tdeep\n")
    task = load_task("WINE", data_dir=tmp_path)
    assert (task.labels, task.metrics, task.columns) == (
        ("red", "white"),
        ("macro_f1",),
        Columns("note", None, "colour"),
    )
    assert (task.dev.texts, task.dev.labels.tolist()) == (["fresh dev", "deep"], [1, 0])
    assert load_task(**task.to_dict()).train.texts == task.train.texts
