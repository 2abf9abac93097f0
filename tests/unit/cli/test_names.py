"""Messages name a setting as the command that runs takes it: by a flag, a key of -o, or a line of the config file."""

import ast
import re
from pathlib import Path

import click
import pytest
import typer

import dynabert_paddle as db
from dynabert_paddle.cli.main import app
from dynabert_paddle.cli.names import option_name
from dynabert_paddle.cli.script import run_command as run_script
from dynabert_paddle.config.names import settings_named_by
from dynabert_paddle.data.tasks import load_task
from dynabert_paddle.errors import UsageError
from dynabert_paddle.runtime.interpreter import run_apart

PACKAGE = Path(db.__file__).parent
VERBS = typer.main.get_command(app).commands
# What each verb needs to be parsed.
NEEDED = {
    "run": ["quickstart"], "baseline": ["pruned", "m"], "extract": ["m", "w0.50d1.00"], "export": ["m"],
    "predict": ["m", "-i", "x.tsv"], "augment": ["--masked_lm", "m", "--output_file", "x.tsv"], "configs": [],
    "env": [], "finetune": [], "compress": ["vocabulary", "m"], "quickstart": [],
}  # fmt: skip
FILES = ["--task_name", "custom", "--train_file", "t.tsv", "--dev_file", "t.tsv"]
# Settings whose name depends on a variable.
VARIABLE = [f"task.{name}" for name in ("train_file", "dev_file", "text_column", "text_pair_column", "label_column")]
VARIABLE += ["task.doc_stride", "search.batch_size", "search.num_threads", "width.augmented_file"]


def named_settings():
    """The keys of all settings that messages of the package name."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            is_name = isinstance(node, ast.Call) and ast.unparse(node.func) in ("setting", "names.setting")
            if is_name and isinstance(node.args[0], ast.Constant):
                yield node.args[0].value


def parse(verb, *words):
    """The context of a command as its function sees it."""
    command = VERBS[verb]
    words = [*NEEDED.get(verb, ["m"]), *words]
    needs_folder = any(parameter.name == "output_dir" and parameter.required for parameter in command.params)
    return command.make_context(verb, [*words, *(["--output_dir", "o"] if needs_folder else [])])


@pytest.mark.parametrize("verb", VERBS)
def test_no_message_names_a_flag_that_the_verb_lacks(verb):
    keys = {*named_settings(), *VARIABLE}
    assert len(keys) > 30
    with parse(verb) as context:
        options = {option for parameter in context.command.params for option in parameter.opts}
        for key in keys:
            word = option_name(key).partition(" ")[0]
            assert not word.startswith("-") or word in options, (key, word)


@pytest.mark.parametrize(
    ("verb", "words", "key", "name"),
    [
        ("finetune", [], "task.name", "--task_name"),
        ("finetune", [], "task.label_column", "--label_column"),
        ("finetune", [], "train.select_on", "--select_on"),
        ("finetune", [], "rewire.accumulation", "-o rewire.accumulation"),
        ("finetune", [], "override", "-o"),
        ("run", [], "task.label_column", "--label_column"),
        ("run", ["-o", "task.label_column=x"], "task.label_column", "-o task.label_column"),
        ("run", [], "train.max_steps", "--max_steps"),
        ("run", [], "output_dir", "--output_dir"),
        ("run", ["-o", "output_dir=x"], "output_dir", "-o output_dir"),
        ("run", ["-o", "output_dir=x", "--output_dir", "y"], "output_dir", "--output_dir"),
        ("quickstart", ["-o", "task.kind=regression"], "task.kind", "-o task.kind"),
        ("train_width", ["--config", "my.yaml"], "task.label_column", "task.label_column in my.yaml, line 2"),
        ("train_width", ["--config", "my.yaml", "--label_column", "x"], "task.label_column", "--label_column"),
        ("train_width", ["--config", "quickstart"], "train.max_steps", "--max_steps"),
        ("evaluate", [], "task.dev_file", "--dev_file"),
        ("export", [], "overwrite_output_dir", "--overwrite_output_dir"),
        ("export", [], "train.select_on", "select_on"),
        ("search", [], "search.score_on", "--score_on"),
        ("augment", [], "overwrite_output_file", "--overwrite_output_file"),
        ("predict", [], "task.text_pair_column", "--text_pair_column"),
        ("predict", [], "output_file", "--output_file"),
    ],
)
def test_the_name_of_a_setting(tmp_path, monkeypatch, verb, words, key, name):
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("task:\n  label_column: zzzz\n")
    with parse(verb, *words), settings_named_by(option_name):
        assert option_name(key) == name


def test_a_thread_without_a_command_names_the_argument():
    assert click.get_current_context(silent=True) is None
    assert option_name("task.label_column") == "label_column"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (
            [
                "finetune",
                *["--task_name", "custom", "--train_file", "t.tsv", "--dev_file", "t.tsv", "--output_dir", "o"],
            ],
            None,
        ),
        (["finetune", "--config", "c.yaml", "--output_dir", "o"], "task.label_column in c.yaml, line 5"),
        (["run", "c.yaml"], "task.label_column in c.yaml, line 5"),
        (["run", "c.yaml", "-o", "task.label_column=zzzz"], "-o task.label_column"),
        (["run", "d.yaml"], "--label_column"),
        (["quickstart", "-o", "task={name: custom, train_file: t.tsv, dev_file: t.tsv}"], "-o task.label_column"),
        (["augment", *["--config", "c.yaml", "--masked_lm", "m", "--output_file", "a.tsv"]], "never read"),
    ],
)
def test_one_fault_in_the_form_of_each_command(tmp_path, monkeypatch, dynabert, words, name):
    monkeypatch.chdir(tmp_path)
    Path("t.tsv").write_text("text\tlabels\na\tx\nb\ty\n")
    config = "task:\n  name: custom\n  train_file: t.tsv\n  dev_file: t.tsv\n"
    Path("c.yaml").write_text(config + "  label_column: zzzz\n")
    Path("d.yaml").write_text(config)
    done = dynabert(*words)
    if name == "never read":  # augment reads no labels
        assert "label_column" not in done.err
        return
    assert (done.code, done.out) == (1, "")
    column = "zzzz" if "c.yaml" in words else "label"
    hint = " Did you mean 'labels'?" if column == "label" else ""
    assert done.err == (
        f"error: t.tsv:1: no column '{column}'; the columns here are 'text', 'labels'.{hint} Choose one with "
        f"{name or '--label_column'}.\n"
    )


def test_python_and_a_script_have_forms_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("t.tsv").write_text("text\tlabels\na\tx\nb\ty\n")
    files = {"train_file": "t.tsv", "dev_file": "t.tsv"}
    with pytest.raises(db.DynabertError, match=r" Choose one with label_column\.$"):
        load_task("custom", **files)

    def script(label_column: str = typer.Option("label", "--label_column")) -> None:
        load_task("custom", **files, label_column=label_column)

    monkeypatch.setattr("sys.argv", ["script.py"])
    with pytest.raises(SystemExit) as caught:
        run_script(script)
    assert caught.value.code == 1
    assert capsys.readouterr().err.endswith(" Choose one with --label_column.\n")


def test_save_pretrained_names_its_own_argument(tmp_path, bert):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file is a file: name another folder$"):
        db.Supernet(bert).save_pretrained(tmp_path / "file")
    with parse("extract"), settings_named_by(option_name), pytest.raises(UsageError, match=r" --output_dir$"):
        db.Supernet(bert).save_pretrained(tmp_path / "file")


def load_job(files):
    """A job that fails: it runs in a process of its own."""
    load_task("custom", **files)


def test_an_error_of_a_job_has_the_form_of_its_caller(tmp_path, monkeypatch):
    file = tmp_path / "t.tsv"
    file.write_text("text\tlabels\na\tx\nb\ty\n")
    job = {"train_file": str(file), "dev_file": str(file)}
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    with pytest.raises(db.DynabertError, match=r" Choose one with label_column\.$"):
        run_apart(load_job, job, legacy=True, name="the job")
    with parse("export"), settings_named_by(option_name), pytest.raises(db.DynabertError) as caught:
        run_apart(load_job, job, legacy=True, name="the job")
    assert str(caught.value).endswith(" Choose one with --label_column.")


@pytest.mark.parametrize("number", ["0", "-1"])
def test_a_number_out_of_range_has_one_wording(dynabert, tmp_path, number):
    """From every module: of the config, of the search, of the export."""
    words = f"is at least 1, not {number}"
    for command, flag in (
        (["finetune", "--output_dir", tmp_path / "o"], "--max_steps"),
        (["search", "m"], "--seq_length"),
        (["export", "m", "--output_dir", tmp_path / "o"], "--num_calibration_examples"),
    ):
        done = dynabert(*command, flag, number)
        assert (done.code, done.err) == (2, f"error: {flag} {words}\n")
    with pytest.raises(UsageError, match=f"^num_calibration_examples {words}$"):
        db.export("m", tmp_path / "o", num_calibration_examples=int(number))
    assert not re.search(r"(must|should) be (at least|greater)", done.err)
