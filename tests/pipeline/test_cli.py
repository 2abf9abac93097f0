"""The command line as a user meets it: verbs, flags, precedence, help, and what goes where."""

import dataclasses
import json
import logging
import re
import subprocess
import sys
import time

import pytest
import yaml

import dynabert_paddle as db
from dynabert_paddle.cli import main as command
from dynabert_paddle.cli.output import show_table
from dynabert_paddle.config import settings
from dynabert_paddle.config.loading import built_in_configs, find_config, load_config
from dynabert_paddle.files.metadata import read_metadata

VERBS = {
    "quickstart": (),
    "run": (),
    "finetune": ("task", "finetune"),
    "rewire": ("task", "rewire"),
    "train_width": ("task", "space", "width"),
    "train_depth": ("task", "space", "depth"),
    "train_final": ("task", "space", "final"),
    "evaluate": ("task",),
    "augment": ("task",),
    "baseline": ("task", "baseline"),
    "search": ("task",),
    "report": (),
    "extract": (),
    "export": ("task",),
    "predict": (),
    "bench": (),
    "env": (),
    "configs": (),
}
QUICK = ("--max_steps", "2", "--max_seq_length", "16", "--per_device_train_batch_size", "8")


@dataclasses.dataclass
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


def run_command(capsys, *words):
    """Run the `dynabert` command in this process, through the entry point that the shell calls."""
    logger = logging.getLogger("dynabert_paddle")
    before = logger.handlers[:], logger.level, logger.propagate
    patch = pytest.MonkeyPatch()
    patch.setattr(sys, "argv", ["dynabert", *map(str, words)])
    patch.setenv("COLUMNS", "200")
    capsys.readouterr()
    try:
        with pytest.raises(SystemExit) as caught:
            command.main()
    finally:
        patch.undo()
        logger.handlers[:], logger.level, logger.propagate = before
    out, err = capsys.readouterr()
    return Done(caught.value.code or 0, out, err)


@pytest.fixture
def dynabert(capsys):
    return lambda *words: run_command(capsys, *words)


@pytest.fixture(scope="module")
def finetuned(tiny_folder, tiny_data, tmp_path_factory):
    """A fine-tuned model of the built-in task on little data."""
    folder = tmp_path_factory.mktemp("cli") / "finetuned"
    task = db.load_task("snips", data_dir=tiny_data)
    config = db.FinetuneConfig(max_steps=2, per_device_train_batch_size=8)
    db.finetune(tiny_folder, task, output_dir=folder, config=config, max_seq_length=16)
    return folder


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
            assert " ".join(field.metadata["help"].split()[:3]) in described, flag
            default = field.default
            if isinstance(default, tuple):
                default = " ".join(map(str, default))
            if default is not None and not isinstance(default, bool):
                assert re.search(rf"\[default: \(?{re.escape(str(default))}\)?\]", described), (flag, described)
    if verb not in ("extract", "export", "bench", "report", "env", "configs"):
        assert "--device" in text


@pytest.mark.parametrize("verb", VERBS)
def test_no_flag_of_a_verb_is_without_words(dynabert, verb):
    """Every line of the help that begins with a flag, or the one below it, says something besides type and default."""
    done = dynabert(verb, "--help")
    for line in done.out.splitlines():
        flag = re.match(r"│ [* ] *(--?\w+)", line)
        if flag:
            words = re.sub(r"\[.*?\]|--?[\w/]+|\b[A-Z][A-Z.=]+\b|'A B ...'", "", line.strip("│ *"))
            assert re.search("[a-z]{2}", words), line


def test_help_in_a_pipe_cuts_no_flag_short():
    """A pipe or a file is 80 columns wide for Rich, which is too little for --per_device_train_batch_size."""
    done = shell(sys.executable, "-m", "dynabert_paddle", "finetune", "--help")
    assert "…" not in done.stdout
    assert "--per_device_train_batch_size" in done.stdout


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
def test_wrong_usage_exits_2_and_names_what_is_near(dynabert, tmp_path, monkeypatch, words, seen):
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


@pytest.mark.parametrize("spelling", ["snake", "hyphens"])
def test_snake_case_and_hyphens_are_one(dynabert, finetuned, tmp_path, spelling):
    words = [
        *("train_width", finetuned, "--output_dir", tmp_path / "w", "--width_mult_list", "1.0,0.5"),
        *("--include_padding", "--subnets_per_step", "all", "--max_steps", "1"),
    ]
    if spelling == "hyphens":
        words = [
            str(word).replace("_", "-") if index == 0 or "--" in str(word) else word for index, word in enumerate(words)
        ]
    done = dynabert(*words)
    assert done.code == 0, done.err
    used = read_metadata(tmp_path / "w").provenance["settings"]
    assert (used["include_padding"], used["subnets_per_step"], used["max_steps"]) == (True, "all", 1)
    assert read_metadata(tmp_path / "w").space["width_mults"] == [1.0, 0.5]


def test_flag_goes_before_o_before_file_before_default(dynabert, tiny_folder, tiny_data, tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(
        f"""
        model_name_or_path: {tiny_folder}
        task: {{data_dir: {tiny_data}, max_seq_length: 16}}
        train: {{seed: 1, weight_decay: 0.01}}
        finetune: {{max_steps: 2, learning_rate: 2e-5, warmup_ratio: 0.25, seed: 2}}
        """
    )
    done = dynabert(
        *("finetune", "--config", file, "--output_dir", tmp_path / "o", "--learning_rate", "4e-5"),
        *("-o", "finetune.learning_rate=3e-5", "-o", "finetune.warmup_ratio=0.5", "-o", "train.seed=3"),
        *("-o", "train.adam_epsilon=1e-7"),
    )
    assert done.code == 0, done.err
    used = read_metadata(tmp_path / "o").provenance["settings"]
    assert used["learning_rate"] == 4e-5  # the flag's, not -o's
    assert used["warmup_ratio"] == 0.5  # -o's, not the file's
    assert used["weight_decay"] == 0.01  # the file's, for every stage
    assert used["adam_epsilon"] == 1e-7  # -o's, for every stage
    assert used["seed"] == 3  # -o's for every stage, not the file's for this one
    assert used["max_grad_norm"] == 1.0  # the default


def test_a_stage_that_sets_a_value_is_the_one_that_has_it():
    config = load_config(None, ["train.max_steps=5", "width.max_steps=7", "train.lambda_hidden=0.5"])
    assert (config.finetune.max_steps, config.width.max_steps, config.depth.max_steps) == (5, 7, 5)
    assert (config.width.lambda_hidden, config.depth.lambda_hidden) == (0.5, 0.5)


def test_learning_rate_as_yaml_writes_it(tmp_path):
    """YAML 1.1 takes `2e-5` for a string."""
    file = tmp_path / "my.yaml"
    file.write_text("train:\n  learning_rate: 3e-5\n")
    assert load_config(file).depth.learning_rate == 3e-5
    assert load_config(None, ["train.learning_rate=1e-4"]).finetune.learning_rate == 1e-4


def test_verbs_go_from_folder_to_folder(dynabert, tiny_folder, tiny_data, tmp_path):
    """As a user types them; each verb ends by naming what it wrote, and the next command, on stderr."""
    folders = {name: tmp_path / name for name in ("teacher", "rewired", "width", "depth", "final")}
    task = ("--data_dir", tiny_data)
    chain = [
        (("finetune", "--model_name_or_path", tiny_folder, *task, *QUICK), "teacher", "rewire"),
        (("rewire", folders["teacher"]), "rewired", "train_width"),
        (("train_width", folders["rewired"], *QUICK, "--width_mult_list", "1.0 0.5"), "width", "train_depth"),
        (("train_depth", folders["width"], *QUICK), "depth", "evaluate"),
        (("train_final", folders["depth"], *QUICK), "final", "evaluate"),
    ]
    for words, output, following in chain:
        done = dynabert(*words, "--output_dir", folders[output])
        assert (done.code, done.out) == (0, ""), done.err
        last = done.err.splitlines()[-2:]
        assert last[0] == f"wrote {folders[output]}"
        assert last[1].startswith(f"next: dynabert {following} {folders[output]}")
        assert {"config.json", "model.safetensors", "tokenizer.json", "dynabert.json"} <= {
            path.name for path in folders[output].iterdir()
        }
    # The task and the grid are those that the model was trained for.
    grid = dynabert("evaluate", folders["final"], "--grid", "--json")
    rows = json.loads(grid.out)["rows"]
    assert [row["subnet"] for row in rows] == [f"w{w}d{d}" for d in ("1.00", "0.75", "0.50") for w in ("1.00", "0.50")]
    one = json.loads(dynabert("evaluate", folders["final"], "--subnet", "w0.50d0.75", "--json").out)["rows"]
    assert one == [row for row in rows if row["subnet"] == "w0.50d0.75"]
    full = json.loads(dynabert("evaluate", folders["final"], "--json").out)["rows"]
    assert full == rows[:1]
    table = dynabert("evaluate", folders["final"], "--grid")
    for row in rows:
        line = next(line for line in table.out.splitlines() if row["subnet"] in line)
        assert f"{row['accuracy']:.4f}" in line
        assert f"{row['params'] / 1e6:.2f} M" in line
    assert read_metadata(folders["final"]).provenance["parent"]["parent"]["parent"]["parent"]["parent"] == str(
        tiny_folder
    )


def test_another_length_or_other_data_is_used_and_kept(dynabert, finetuned, tiny_data, tmp_path):
    """A flag that a verb offers has an effect, and an evaluation later reads what the stage has read."""
    other = tmp_path / "other"
    other.mkdir()
    for name in ("train.tsv", "dev.tsv"):
        lines = (tiny_data / name).read_text().splitlines(keepends=True)
        (other / name).write_text("".join(lines[:31]))
    words = ("--max_steps", "1", "--width_mult_list", "1.0", "--max_seq_length", "8", "--data_dir", other)
    done = dynabert("train_width", finetuned, "--output_dir", tmp_path / "w", *words)
    assert done.code == 0, done.err
    assert "27 training examples" in done.err
    task = read_metadata(tmp_path / "w").task
    assert task["train_file"] == str(other / "train.tsv")
    assert task["max_seq_length"] == 8


def test_a_teacher_may_be_named(dynabert, finetuned, tmp_path):
    words = ("--teacher_name_or_path", finetuned, "--max_steps", "1", "--width_mult_list", "1.0")
    assert dynabert("train_width", finetuned, "--output_dir", tmp_path / "w", *words).code == 0


def test_evaluate_takes_one_sub_network_or_all(dynabert, finetuned):
    done = dynabert("evaluate", finetuned, "--subnet", "w1.00d1.00", "--grid")
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1


def test_run_writes_the_result_to_stdout_and_the_rest_to_stderr(tiny_folder, tiny_data, tmp_path):
    """In a process of its own, because libraries print to the descriptors as well."""
    file = tmp_path / "my.yaml"
    file.write_text(
        f"""
        model_name_or_path: {tiny_folder}
        task: {{data_dir: {tiny_data}, max_seq_length: 16}}
        train: {{max_steps: 2, learning_rate: 2e-5}}
        space: {{width_mult_list: [1.0, 0.5], depth_mult_list: '1.0 0.5'}}
        """
    )
    output = tmp_path / "out"
    done = shell(sys.executable, "-m", "dynabert_paddle", "run", file, "--output_dir", output, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert rows == json.loads((output / "grid.json").read_text())["rows"]
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("wrote ")] == [
        f"wrote {output / name}" for name in ("finetune", "rewire", "width", "depth", "grid.json", "run.yaml")
    ]
    assert lines[-1].startswith(f"next: dynabert evaluate {output / 'depth'} --subnet ")
    # Nothing of Paddle's or its libraries' own: neither warnings nor a progress bar.
    stages = ("finetune", "rewire", "width", "depth", "evaluating ", "wrote ", "next: ", f"{tiny_folder}: new weights")
    assert [line for line in lines if not line.startswith(stages)] == []
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr
    # The config beside the output is whole: it runs as it is, and finds all stages finished.
    config = load_config(output / "run.yaml")
    assert config == load_config(file, (), {"output_dir": str(output)})
    again = db.run(config)
    assert again == rows
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my.yaml", "out"]


EVIL = "\x1b[31mred\x07\n[bold]x[/nothing]\u202e"


def test_an_error_that_quotes_a_file_is_one_line_of_plain_characters(dynabert, tmp_path):
    """Colours, titles and cursor movements are characters of a text."""
    file = tmp_path / "my.yaml"
    file.write_text(json.dumps({"task": {"name": EVIL}, "finetune": {EVIL: 1}}))
    done = dynabert("run", file)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "\\x1b[31mred\\x07\\n[bold]x" in done.err
    assert not set("\x1b\x07\u202e") & set(done.err)


def test_names_in_a_table_are_no_markup(capsys):
    show_table(["name", EVIL], [["x", EVIL]], title="")
    out = capsys.readouterr().out
    assert "\\x1b[31mred\\x07\\n[bold]x[/nothing]\\u202e" in out
    assert not set("\x1b\x07\u202e") & set(out)
