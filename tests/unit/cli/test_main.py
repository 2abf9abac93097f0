"""The command line without a model: help, usage errors, configs, and characters that a terminal would obey."""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time

import pytest
import yaml

import dynabert_paddle as db
from dynabert_paddle.cli import run
from dynabert_paddle.cli.output import open_output
from dynabert_paddle.cli.table import show_table
from dynabert_paddle.config import settings
from dynabert_paddle.config.loading import built_in_configs, find_config, load_config
from dynabert_paddle.errors import Interrupted

VERBS = {
    "quickstart": (),
    "run": ("task", "space", "finetune", "width", "depth", "final"),
    "data": ("task",),
    "finetune": ("task", "finetune"),
    "rewire": ("task", "rewire"),
    "train_width": ("task", "space", "width"),
    "train_depth": ("task", "space", "depth"),
    "train_general": ("task", "space", "general"),
    "train_final": ("task", "space", "final"),
    "evaluate": ("task",),
    "augment": ("task",),
    "baseline": ("task", "baseline"),
    "search": ("task",),
    "report": (),
    "compress": ("task",),
    "extract": (),
    "export": ("task",),
    "predict": (),
    "serve": (),
    "bench": (),
    "env": (),
    "configs": (),
}


def shell(*words, **options):
    return subprocess.run([*words], capture_output=True, text=True, check=False, **options)


def test_the_module_is_the_command():
    done = shell(sys.executable, "-m", "dynabert_paddle", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{db.__version__}\n", "")


def test_help_comes_without_paddle():
    code = (
        "import sys\nfrom dynabert_paddle.cli.main import main\nsys.argv = ['dynabert', '--help']\n"
        "try:\n    main()\nfinally:\n    loaded = [m for m in ('paddle', 'paddlenlp', 'numpy') if m in sys.modules]\n"
        "    print('loaded:', loaded)"
    )
    begin = time.perf_counter()
    done = shell(sys.executable, "-c", code)
    print(f"dynabert --help took {time.perf_counter() - begin:.2f} s")
    assert done.returncode == 0
    assert done.stdout.endswith("loaded: []\n")
    assert all(verb in done.stdout for verb in VERBS)


def test_every_verb_is_in_the_help(dynabert):
    done = dynabert("--help")
    assert done.code == 0
    assert re.findall(r"^│ (\w+) ", done.out[done.out.index("Commands") :], re.MULTILINE) == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_has_every_flag_with_its_default(dynabert, verb):
    done = dynabert(verb, "--help")
    assert (done.code, done.err) == (0, "")
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", done.out).split())
    for section in VERBS[verb]:
        for field in dataclasses.fields(settings.SECTIONS[section]):
            if field.name == "method":  # comes before the folder, without a flag
                assert "METHOD" in text
                continue
            flag = f"--{'task_name' if (section, field.name) == ('task', 'name') else field.name}"
            described = re.split(r" --(?!no_)", text[text.index(f"{flag} ") :])[0]
            assert " ".join(field.metadata["help"].split()[:3]).lower() in described.lower(), flag
            default = field.default
            if isinstance(default, tuple):
                default = " ".join(map(str, default))
            if default not in (None, "") and not isinstance(default, bool):
                shown = rf"((DIR|CONFIG)'s, else )?(.*\), )?{re.escape(str(default))}( \([a-z, ]+\).*)?"
                assert re.search(rf"\[default: \(?{shown}\)?\]", described), (
                    flag,
                    described,
                )
    if verb not in ("extract", "export", "bench", "report", "env", "configs", "data"):
        assert "--device" in text


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_of_a_verb_has_a_help_text(dynabert, verb):
    """Every line of the help that begins with a flag, or the one below it, says something besides type and default."""
    done = dynabert(verb, "--help")
    for line in done.out.splitlines():
        flag = re.match(r"│ [* ] *(--?\w+)", line)
        if flag:
            words = re.sub(r"\[.*?\]|--?[\w/]+|\b[A-Z][A-Z.=]+\b|'A B ...'", "", line.strip("│ *"))
            assert re.search("[a-z]{2}", words), line


def test_help_in_a_pipe_is_120_columns_wide():
    """A pipe or a file is 80 columns wide for Rich, which is too little for --per_device_train_batch_size."""
    done = shell(sys.executable, "-m", "dynabert_paddle", "finetune", "--help")
    assert "…" not in done.stdout
    assert "--per_device_train_batch_size" in done.stdout
    assert max(map(len, done.stdout.splitlines())) == 120


def test_without_a_verb_the_help_is_shown(dynabert):
    done = dynabert()
    assert done.code == 2
    assert "quickstart" in done.out + done.err


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        (["fintune"], "finetune"),
        (["finetune", "--output_dir", "x", "--learning_rat", "1"], "--learning_rate"),
        (["finetune"], "--output_dir"),
        (["run"], "CONFIG"),
        (["finetune", "--output_dir", "x", "--amp", "fp8"], "bf16"),
        (["finetune", "--output_dir", "x", "--max_steps", "many"], "'many' is not a valid integer"),
        (["run", "quickstrat"], "Did you mean 'quickstart'"),
        (["configs", "quickstrat"], "Did you mean 'quickstart'"),
    ],
)
def test_wrong_usage_exits_2_and_names_the_nearest_option(dynabert, tmp_path, monkeypatch, words, seen):
    monkeypatch.chdir(tmp_path)
    done = dynabert(*words)
    assert (done.code, done.out) == (2, "")
    assert seen in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback_and_nothing_else_does(dynabert):
    plain = dynabert("run", "missing.yaml")
    debug = dynabert("--debug", "run", "missing.yaml")
    assert plain.code == debug.code == 2
    assert "Traceback" not in plain.err
    assert "Traceback (most recent call last)" in debug.err
    assert debug.err.endswith(plain.err)
    assert plain.err.count("\n") == 1


def test_env_as_text_and_as_json(dynabert):
    described = json.loads(dynabert("env", "--json").out)
    assert described["versions"]["dynabert_paddle"] == db.__version__
    text = dynabert("env")
    assert (text.code, text.err) == (0, "")
    assert f"  paddlenlp: {described['versions']['paddlenlp']}" in text.out.splitlines()


def test_configs_are_listed_and_printed(dynabert):
    assert dynabert("configs").out.split() == built_in_configs() == sorted(built_in_configs())
    assert {"default", "quickstart"} <= set(built_in_configs())
    printed = yaml.safe_load(dynabert("configs", "quickstart").out)
    assert printed["finetune"]["max_steps"] == load_config(find_config("quickstart")).finetune.max_steps


@pytest.mark.parametrize("name", built_in_configs())
def test_every_built_in_config_is_valid_and_holds_differences_only(name):
    path = find_config(name)
    config, defaults = load_config(path), load_config()
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section, keys in values.items():
        if section == "train":
            continue
        if not isinstance(keys, dict):
            keys, here, there = {section: keys}, config, defaults
        else:
            here, there = getattr(config, section), getattr(defaults, section)
        for key in keys:
            if (section, key) not in {("task", "name"), ("model_name_or_path", "model_name_or_path")}:
                assert getattr(here, key) != getattr(there, key), f"{section}.{key} is the default"


def test_values_of_a_stage_override_those_of_train():
    config = load_config(None, ["train.max_steps=5", "width.max_steps=7", "train.lambda_hidden=0.5"])
    assert (config.finetune.max_steps, config.width.max_steps, config.depth.max_steps) == (5, 7, 5)
    assert (config.width.lambda_hidden, config.depth.lambda_hidden) == (0.5, 0.5)


def test_learning_rate_as_yaml_writes_it(tmp_path):
    """YAML 1.1 takes `2e-5` for a string."""
    file = tmp_path / "my.yaml"
    file.write_text("train:\n  learning_rate: 3e-5\n")
    assert load_config(file).depth.learning_rate == 3e-5
    assert load_config(None, ["train.learning_rate=1e-4"]).finetune.learning_rate == 1e-4


CONTROL_CHARACTERS = "\x1b[31mred\x07\n[bold]x[/nothing]\u202e"


def test_an_error_that_quotes_a_file_is_one_line_of_plain_characters(dynabert, tmp_path):
    """Colours, titles and cursor movements are characters of a text."""
    file = tmp_path / "my.yaml"
    file.write_text(json.dumps({"task": {"name": CONTROL_CHARACTERS}, "finetune": {CONTROL_CHARACTERS: 1}}))
    done = dynabert("run", file)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "\\x1b[31mred\\x07\\n[bold]x" in done.err
    assert not set("\x1b\x07\u202e") & set(done.err)


def test_names_in_a_table_are_no_markup(capsys):
    show_table(["name", CONTROL_CHARACTERS], [["x", CONTROL_CHARACTERS]], title="")
    out = capsys.readouterr().out
    assert "\\x1b[31mred\\x07\\n[bold]x[/nothing]\\u202e" in out
    assert not set("\x1b\x07\u202e") & set(out)


@pytest.mark.parametrize(
    ("words", "code", "seen"),
    [
        ((), 2, "give a text, or a file with -i ('-i -' reads a pipe), and not both"),
        (("a text", "-i", "texts.txt"), 2, "and not both"),
        (("texts.txt",), 2, "texts.txt is a file: give it with -i"),
        (("a text", "--input_format", "tsv"), 2, "--input_format is that of a file or a pipe"),
        (("-i", "texts.txt", "--input_format", "tvs"), 2, "'tvs' is not one of 'tsv', "),
        (("-i", "texts.txt", "-i", "text.txt"), 1, "text.txt: no such file. Did you mean 'texts.txt'?"),
        (("a text", "--submission"), 2, "--submission reads one file"),
        (("a text", "--output_format", "cvs"), 2, "'cvs' is not one of 'tsv', 'csv', 'jsonl'"),
        (("a text", "--output_format", "csv", "--json"), 2, "--json and --output_format csv exclude each other"),
        (("a text", "--quoting", "none"), 2, "'none' is not one of 'minimal', 'all'"),
    ],
)
def test_wrong_use_of_predict_is_told_before_the_bundle_is_loaded(dynabert, tmp_path, monkeypatch, words, code, seen):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("a\n")
    done = dynabert("predict", "no_bundle", *words)
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done.err
    assert seen in done.err


def test_a_text_that_is_named_like_a_file_is_warned_of(dynabert, tmp_path):
    done = dynabert("predict", tmp_path, "text.tsv", "play a.txt")
    assert done.err.startswith("text.tsv: no such file, so it is a text to predict for; a file comes with -i\nerror: ")


def test_extract_does_not_replace_the_home_folder(dynabert, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").touch()
    monkeypatch.setenv("HOME", str(home))
    for more, words in (((), "exists"), (("--overwrite_output_dir",), "was not created by dynabert")):
        done = dynabert("extract", tmp_path / "model", "w0.50d0.50", "--output_dir=~", *more)
        assert (done.code, done.out) == (2, "")
        assert f"error: {home} {words}" in done.err


@pytest.mark.parametrize("through", ["data", "far/../data"])
@pytest.mark.parametrize("fails", [True, False])
def test_an_output_behind_a_link_is_replaced_only_when_complete(tmp_path, through, fails):
    """It was emptied before the first prediction."""
    (tmp_path / "data").mkdir()
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "data" / "labels.tsv", tmp_path / "link.tsv"
    target.write_text("before")
    (tmp_path / "between.tsv").symlink_to(f"{through}/labels.tsv")
    link.symlink_to("between.tsv")
    with contextlib.suppress(ZeroDivisionError), open_output(str(link)) as file:
        file.write("after")
        assert target.read_text() == "before"
        if fails:
            raise ZeroDivisionError
    assert target.read_text() == ("before" if fails else "after")
    assert link.is_symlink() and (tmp_path / "between.tsv").is_symlink()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["between.tsv", "data", "far", "labels.tsv", "link.tsv"]


def test_a_link_to_nothing_makes_its_target(tmp_path):
    (tmp_path / "link.tsv").symlink_to("new.tsv")
    with open_output(str(tmp_path / "link.tsv")) as file:
        file.write("after")
    assert (tmp_path / "new.tsv").read_text() == "after"
    (tmp_path / "other.tsv").symlink_to("gone/new.tsv")
    with pytest.raises(db.DynabertError, match="there is no folder .*gone: make it, or name another output_file"):
        open_output(str(tmp_path / "other.tsv")).__enter__()
    (tmp_path / "loop.tsv").symlink_to("loop.tsv")
    with pytest.raises(db.DynabertError, match="loop.tsv: cannot be written"):
        open_output(str(tmp_path / "loop.tsv")).__enter__()


@pytest.mark.parametrize("stream", ["/dev/stdout", "/proc/self/fd/1", "link"])
def test_a_stream_that_is_redirected_to_a_file_is_written_there(tmp_path, stream):
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = "import sys; from dynabert_paddle.cli.output import open_output\n"
    code += "print('first', flush=True)\nwith open_output(sys.argv[1]) as file: file.write('second')"
    with (tmp_path / "out.txt").open("ab") as out:
        subprocess.run([sys.executable, "-c", code, stream], cwd=tmp_path, stdout=out, check=True)
        inode = os.fstat(out.fileno()).st_ino
    assert (tmp_path / "out.txt").stat().st_ino == inode
    assert "second" in (tmp_path / "out.txt").read_text()


@pytest.mark.parametrize(
    "words", [("bench", "b", "--output_file", "x.json"), ("predict", "b", "-i", "t.txt", "-o", "x.json")]
)
@pytest.mark.parametrize("linked", [True, False])
def test_an_existing_output_is_refused_before_anything_is_read(dynabert, tmp_path, monkeypatch, words, linked):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.txt").write_text("a\n")
    (tmp_path / "figures.json" if linked else tmp_path / "x.json").write_text("before")
    if linked:
        (tmp_path / "x.json").symlink_to("figures.json")
    done = dynabert(*words)
    message = "x.json exists: pass --overwrite_output_file to replace it, or name another --output_file"
    assert (done.code, done.out, done.err) == (2, "", f"error: {message}\n")
    assert (
        "b: no such folder: name one that 'dynabert export' created" in dynabert(*words, "--overwrite_output_file").err
    )
    assert (tmp_path / "x.json").read_text() == "before"


@pytest.mark.parametrize("is_stream", [True, False])
def test_of_the_devices_only_streams_are_written_without_a_flag(dynabert, tmp_path, is_stream):
    """/dev/shm has files, too."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        output = f"/dev/fd/{file.fileno()}" if is_stream else file.name
        (tmp_path / "texts.txt").write_text("one\n")
        done = dynabert("predict", tmp_path, "-i", tmp_path / "texts.txt", "-o", output)
    assert ("pass --overwrite_output_file to replace it" in done.err) == (not is_stream), done.err


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        ([], ""),
        (["--overwrite_output_dir"], ", but leave out --overwrite_output_dir, which would begin anew"),
        (["--overwrite-output-dir"], ", but leave out --overwrite_output_dir, which would begin anew"),
    ],
)
def test_the_command_to_resume_leaves_out_overwrite(dynabert, monkeypatch, flags, hint):
    message = "width: stopped after step 3 of 9; the same command goes on from there"

    def stop(*_):
        raise Interrupted(message, exit_code=143)

    monkeypatch.setattr(run, "_run", stop)
    done = dynabert("run", "default", *flags)
    assert (done.code, done.out, done.err) == (143, "", f"{message}{hint}\n")


@pytest.mark.parametrize("flags", [[], ["--overwrite_output_dir"]])
@pytest.mark.parametrize(
    ("words", "saved"),
    [
        (["finetune"], "checkpoint-3/state.json"),
        (["rewire", "DIR"], None),
        (["train_depth", "DIR"], "checkpoint-3/state.json"),
        (["compress", "vocabulary", "DIR", "--vocab_size", "9"], "checkpoint-3/state.json"),
        (["baseline", "distilbert", "DIR"], "checkpoint-3/state.json"),
        (["search", "DIR"], "study.db"),
        (["run", "default"], "depth/checkpoint-3/state.json"),
        (["run", "default"], "finetune/dynabert.json"),
        (["quickstart"], "finetune/dynabert.json"),
    ],
)
def test_a_command_that_is_stopped_early_says_whether_it_resumes(dynabert, monkeypatch, tmp_path, words, saved, flags):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("dynabert_paddle.runtime.environment.import_paddle", stop)
    model, out = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    (model / "config.json").write_text("{}")
    words = [str(model) if word == "DIR" else word for word in words]
    done = dynabert(*words, "--output_dir", out, *flags)
    last = done.err.splitlines()[-1]
    assert done.code == 130
    assert last.endswith("stopped; the same command begins anew, since nothing was saved yet")
    if saved:
        (out / saved).parent.mkdir(parents=True)
        (out / saved).touch()
        last = dynabert(*words, "--output_dir", out, *flags).err.splitlines()[-1]
        assert "stopped; the same command goes on from " in last
        assert last.endswith(", but leave out --overwrite_output_dir, which would begin anew") == bool(flags)


def test_a_text_that_begins_with_a_hyphen(dynabert):
    done = dynabert("predict", "bundle", "-5 degrees outside")
    assert done.code == 2
    assert "a text that begins with - stands behind --: dynabert predict BUNDLE -- TEXT" in done.err
