"""Declarations of the built-in tasks: snips, GLUE, CLUE, ChnSentiCorp and LCQMC."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from dynabert_paddle.config.names import setting
from dynabert_paddle.config.settings import plain_name
from dynabert_paddle.data.declaration import Declaration
from dynabert_paddle.data.fetch import Loader
from dynabert_paddle.data.layout import BARE_QUOTES, Layout, join_keywords, mark_spans
from dynabert_paddle.data.submission import SubmissionForm
from dynabert_paddle.errors import UsageError, did_you_mean

_CUSTOM = Declaration("custom")
_SNIPS = Declaration(
    "snips",
    labels=(
        "AddToPlaylist",
        "BookRestaurant",
        "GetWeather",
        "PlayMusic",
        "RateBook",
        "SearchCreativeWork",
        "SearchScreeningEvent",
    ),
    metrics=("accuracy", "macro_f1"),
    text_column="sentence",
    layout=BARE_QUOTES,
    data_dir=Path(__file__).parent / "snips",
)

_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
_INFERENCE = ("entailment", "neutral", "contradiction")

_glue_loader = partial(Loader, "Glue", page="https://gluebenchmark.com/tasks")
_glue = partial(
    Declaration,
    metrics=("accuracy",),
    layout=BARE_QUOTES,
    train_name="train.tsv",
    dev_name="dev.tsv",
    submission=SubmissionForm(),
)
_glue_pair = partial(_glue, text_column="sentence1", text_pair_column="sentence2")

_MNLI = _glue_pair(
    "mnli",
    labels=_INFERENCE,
    label_column="gold_label",
    folders=("MNLI",),
    dev_name="dev_matched.tsv",
    loader=_glue_loader("mnli"),
)
_GLUE = (
    _glue(
        "cola",
        labels=_BINARY,
        metrics=("matthews",),
        text_column="sentence",
        layout=Layout(header=("source", "label", "star", "sentence"), bare_quotes=True),
        folders=("CoLA",),
        loader=_glue_loader("cola"),
    ),
    _glue("sst-2", labels=_BINARY, text_column="sentence", folders=("SST-2",), loader=_glue_loader("sst-2")),
    _glue(
        "mrpc",
        labels=_BINARY,
        metrics=("accuracy", "f1"),
        text_column="#1 String",
        text_pair_column="#2 String",
        label_column="Quality",
        folders=("MRPC",),
        loader=_glue_loader("mrpc"),
    ),
    _glue_pair(
        "sts-b",
        kind="regression",
        metrics=("pearson", "spearman"),
        label_column="score",
        folders=("STS-B",),
        loader=_glue_loader("sts-b"),
        submission=SubmissionForm(score_range=(0, 5)),
    ),
    _glue(
        "qqp",
        labels=_BINARY,
        metrics=("accuracy", "f1"),
        text_column="question1",
        text_pair_column="question2",
        label_column="is_duplicate",
        # In a few rows of the official file a question contains a line break.
        layout=Layout(skip_short_rows=True, bare_quotes=True),
        folders=("QQP",),
        loader=_glue_loader("qqp"),
        submission=SubmissionForm(index_column="id"),
    ),
    _MNLI,
    replace(_MNLI, name="mnli-mm", dev_name="dev_mismatched.tsv"),
    _glue(
        "qnli",
        labels=_ENTAILMENT,
        text_column="question",
        text_pair_column="sentence",
        folders=("QNLI",),
        loader=_glue_loader("qnli"),
    ),
    _glue_pair("rte", labels=_ENTAILMENT, folders=("RTE",), loader=_glue_loader("rte")),
    _glue_pair("wnli", labels=_BINARY, folders=("WNLI",), loader=_glue_loader("wnli")),
    Declaration("ax", scored_as="mnli"),
)

_clue_loader = partial(Loader, "Clue", page="https://github.com/CLUEbenchmark/CLUE")
_clue = partial(Declaration, metrics=("accuracy",), train_name="train.json", dev_name="dev.json")
_clue_pair = partial(_clue, text_column="sentence1", text_pair_column="sentence2")

_CLUE = (
    _clue(
        "tnews",
        labels=tuple(str(code) for code in range(100, 117) if code not in (105, 111)),
        text_column="sentence",
        folders=("tnews_public", "tnews"),
        loader=_clue_loader("tnews"),
    ),
    _clue_pair("afqmc", labels=_BINARY, folders=("afqmc_public", "afqmc"), loader=_clue_loader("afqmc")),
    _clue(
        "iflytek",
        labels=tuple(map(str, range(119))),
        text_column="sentence",
        folders=("iflytek_public", "iflytek"),
        loader=_clue_loader("iflytek"),
    ),
    _clue_pair(
        "ocnli",
        labels=_INFERENCE,
        layout=Layout(skipped_label="-"),  # the annotators did not agree
        folders=("ocnli_public", "ocnli"),
        train_name="train.50k.json",
        loader=_clue_loader("ocnli"),
    ),
    _clue_pair(
        "cmnli",
        labels=_INFERENCE,
        layout=Layout(skipped_label="-"),
        folders=("cmnli_public", "cmnli"),
        loader=_clue_loader("cmnli"),
    ),
    _clue(
        "csl",
        labels=_BINARY,
        text_column="abst",
        text_pair_column="keyword",
        layout=Layout(derive=join_keywords),
        folders=("csl_public", "csl"),
        loader=_clue_loader("csl"),
    ),
    _clue(
        "cluewsc2020",
        labels=("false", "true"),
        text_column="marked_text",
        text_pair_column="claim",
        layout=Layout(derive=mark_spans),
        folders=("cluewsc2020_public", "cluewsc2020"),
        loader=_clue_loader("cluewsc2020"),
    ),
    Declaration(
        "chnsenticorp",
        labels=_BINARY,
        metrics=("accuracy",),
        text_column="text_a",
        layout=BARE_QUOTES,
        folders=("ChnSentiCorp", "chnsenticorp"),
        train_name="train.tsv",
        dev_name="dev.tsv",
        loader=Loader("ChnSentiCorp", None, page="https://bj.bcebos.com/paddlenlp/datasets/ChnSentiCorp.zip"),
    ),
    Declaration(
        "lcqmc",
        labels=_BINARY,
        metrics=("accuracy",),
        text_column="text1",
        text_pair_column="text2",
        layout=Layout(header=("text1", "text2", "label"), bare_quotes=True),
        folders=("lcqmc",),
        train_name="train.tsv",
        dev_name="dev.tsv",
        loader=Loader("LCQMC", None, page="https://bj.bcebos.com/paddlenlp/datasets/lcqmc.zip"),
    ),
)

CATALOG = {task.name: task for task in (_SNIPS, *_GLUE, *_CLUE, _CUSTOM)}


def find_declaration(name: str) -> Declaration:
    """Find a task's declaration.

    Args:
        name: the task's name; case, `-` and `_` are ignored.

    Returns:
        The declaration.

    Raises:
        UsageError: an unknown name.
    """
    found = next((task for task in CATALOG.values() if plain_name(task.name) == plain_name(name)), None)
    if found is None:
        built_in = ", ".join(repr(task) for task in CATALOG if task != "custom")
        raise UsageError(
            f"unknown task {name!r}; built in: {built_in}; 'custom' reads your own files."
            f"{did_you_mean(name.lower(), CATALOG)} Choose one with {setting('task.name')}."
        )
    return found


def find_submission(name: str) -> Declaration:
    """Find the declaration of a task with a submission file.

    Args:
        name: the task's name.

    Returns:
        The declaration; its `submission` is not None.

    Raises:
        UsageError: the task has no submission file.
    """
    found = CATALOG.get(name)
    if found is None or found.submission is None:
        names = ", ".join(task.name for task in CATALOG.values() if task.submission)
        raise UsageError(
            f"task {name!r} has no submission file; these have one: {names}; leave out {setting('submission')}."
        )
    return found
