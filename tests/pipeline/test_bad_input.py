"""Bad input: one line on stderr that names the file and the remedy, an exit code, and nothing left behind or lost."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys

import pytest
from commands import run_command
from conftest import make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.files.atomic import read_json

pytestmark = pytest.mark.full

REGRESSION = ("--task_name", "custom", "--kind", "regression")


def snapshot(folder):
    """Every file below a folder with its size and time of change."""
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture
def fails(capsys, tmp_path):
    """Run a command that must fail in one line on stderr, and leave no output folder; returns the line."""

    def run(*words, code, output=tmp_path / "out"):
        existed = output.exists()
        done = run_command(capsys, *words)
        assert done.code == code, done.err
        assert done.out == ""
        assert "Traceback" not in done.err
        errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, done.err
        assert done.err.splitlines()[-1] == errors[0], "the reason comes last"
        assert output.exists() is existed, f"{output} was left behind or removed"
        assert not list(tmp_path.glob(".*")), "a partial folder was left behind"
        return errors[0].removeprefix("error: ")

    return run


@pytest.fixture
def data(tiny_data, tmp_path):
    """A copy of the data for a test to damage."""
    return shutil.copytree(tiny_data, tmp_path / "data")


@pytest.fixture
def model(tiny_folder, tmp_path):
    """A copy of the model for a test to damage; it has no hashes, so that damage is met where it does harm."""
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    values = read_json(folder / "dynabert.json")
    del values["files"]
    (folder / "dynabert.json").write_text(json.dumps(values))
    return folder


def edit(path, change):
    path.write_bytes(change(path.read_bytes()))


def remove(name):
    return lambda folder: (folder / name).unlink()


def replace(name, old, new):
    def damage(folder):
        assert old in (folder / name).read_bytes()
        edit(folder / name, lambda content: content.replace(old, new))

    return damage


def append(name, line):
    return lambda folder: edit(folder / name, lambda content: content + line)


def overwrite(name, content):
    return lambda folder: (folder / name).write_bytes(content)


ONE_CLASS = b"sentence\tlabel\n" + b"play some jazz\tPlayMusic\n" * 20

DATA_FAULTS = {
    "missing": (remove("train.tsv"), (), ["data: none of train.tsv", "train_file"]),
    "no dev": (remove("dev.tsv"), (), ["data: none of dev.tsv", "dev_file"]),
    "empty": (overwrite("train.tsv", b""), (), ["train.tsv:1: the file is empty"]),
    "header only": (overwrite("dev.tsv", b"sentence\tlabel\n"), (), ["dev.tsv:1: the file has no rows"]),
    "column": (
        replace("train.tsv", b"sentence\tlabel", b"sentence\tlabels"),
        (),
        ["train.tsv:1: no column 'label'", "Did you mean 'labels'?", "label_column"],
    ),
    "few fields": (append("train.tsv", b"play some jazz\n"), (), ["train.tsv:142: 1 fields, but the header has 2"]),
    "not UTF-8": (append("dev.tsv", b"caf\xe9\tPlayMusic\n"), (), ["dev.tsv:44: byte 4 of the line is not UTF-8"]),
    "dev label": (
        append("dev.tsv", b"play some jazz\tPlayMusik\n"),
        (),
        ["dev.tsv:44: label 'PlayMusik'", "Did you mean 'PlayMusic'?"],
    ),
    "dev label of custom": (
        append("dev.tsv", b"x\tUnseen\n"),
        ("--task_name", "custom"),
        ["dev.tsv:44: label 'Unseen'", "add a training row that has it"],
    ),
    "one class": (
        overwrite("train.tsv", ONE_CLASS),
        ("--task_name", "custom"),
        ["train.tsv: every row has the label 'PlayMusic'", "at least two classes"],
    ),
    "no number": (lambda folder: None, REGRESSION, ["train.tsv:2: label '", "is not a finite number"]),
}


@pytest.mark.parametrize("verb", ["finetune", "run"])
@pytest.mark.parametrize("fault", DATA_FAULTS)
def test_bad_data(fails, data, tiny_folder, tmp_path, fault, verb):
    damage, flags, seen = DATA_FAULTS[fault]
    damage(data)
    words = [*flags, "--data_dir", data, "--model_name_or_path", tiny_folder]
    if verb == "run":
        keys = {"--task_name": "task.name", "--kind": "task.kind", "--data_dir": "task.data_dir"}
        pairs = zip(words[::2], words[1::2], strict=True)
        overrides = [f"{keys.get(flag, 'model_name_or_path')}={value}" for flag, value in pairs]
        words = ["default", *(word for override in overrides for word in ("-o", override))]
    message = fails(verb, "--output_dir", tmp_path / "out", *words, code=1)
    for part in seen:
        assert part in message


def test_a_run_that_bad_data_stopped_can_be_repeated_with_good_data(capsys, fails, data, tiny_folder, tmp_path):
    """The first try must not have bound the output folder to the wrong settings."""
    words = ["run", "default", "--output_dir", tmp_path / "out", "-o", f"model_name_or_path={tiny_folder}"]
    words += ["-o", "stages=[finetune]", "-o", "train.max_steps=1", "-o", "task.max_seq_length=8"]
    done = run_command(capsys, *words, "-o", f"task.data_dir={tmp_path / 'daat'}")
    assert (done.code, done.err.count("\n")) == (1, 1)
    done = run_command(capsys, *words, "-o", f"task.data_dir={data}")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (
            "finetune: {learning_rat: 1}",
            "my.yaml, line 1: unknown key 'finetune.learning_rat'. Did you mean 'learning_rate'?",
        ),
        (
            "train: {learning_rat: 1}",
            "my.yaml, line 1: unknown key 'train.learning_rat'. Did you mean 'learning_rate'?",
        ),
        ("finetun: {}", "my.yaml, line 1: unknown key 'finetun'. Did you mean 'finetune'?"),
        ("train: {max_steps: many}", "train.max_steps in FILE, line 1: 'many' is not allowed"),
        ("train: {learning_rate: fast}", "train.learning_rate in FILE, line 1: 'fast' is not allowed"),
        ("train: {learning_rate: -1}", "train.learning_rate in FILE, line 1 is at least 0, not -1"),
        (
            "train: {amp: fp8}",
            "train.amp in FILE, line 1: 'fp8' is not allowed: input should be 'off', 'bf16' or 'fp16'",
        ),
        ("task: snips", "task in FILE, line 1: 'snips' is not allowed"),
        ("train: 3", "train in FILE, line 1: a section holds keys and values, not 3"),
        ("stages: [finetune, rewier]", "stages in FILE, line 1: 'rewier' is not allowed"),
        ("stages: []", "stages in FILE, line 1: name at least one"),
        ("- finetune", "my.yaml: a config holds keys and values, not list"),
        ("task: {name: snips", "my.yaml: line 1: not YAML"),
        ("task: {name: snip}", "unknown task 'snip'; built in: 'snips'"),
        ("task: {metrics: [acuracy]}", "unknown metric 'acuracy'"),
        ("device: tpu", "device 'tpu' is not one of auto, cpu, gpu:N"),
        ("train: {1: 2}", "my.yaml: a key is a word, not 1"),
    ],
)
def test_bad_config(fails, tmp_path, content, seen):
    file = tmp_path / "my.yaml"
    file.write_text(content)
    message = fails("run", file, "--output_dir", tmp_path / "out", code=2)
    assert seen.replace("FILE", str(file)) in message


@pytest.mark.parametrize(
    ("override", "seen"),
    [
        ("train.seed", "-o train.seed: write it as section.key=value"),
        ("train.sead=3", "Did you mean 'seed'?"),
        ("model_name_or_path.x=3", "-o model_name_or_path.x: {'x': 3} is not allowed"),
        ("train.seed=[", "-o train.seed=[: line 1: not YAML"),
    ],
)
def test_bad_override(fails, tmp_path, override, seen):
    assert seen in fails("run", "default", "-o", override, "--output_dir", tmp_path / "out", code=2)


@pytest.mark.parametrize(
    ("mults", "seen"),
    [
        ("width_mult_list=[2.0]", "in (0, 1], not [2.0]"),
        ("width_mult_list=0", "in (0, 1], not 0"),
        ("depth_mult_list=[1.0, -0.5]", "in (0, 1], not [1.0, -0.5]"),
        ("width_mult_list=[]", "at least one multiplier is needed"),
        ("width_mult_list=[1.0, 0.1]", "width_mult 0.1 leaves no head of 4: use at least 0.125"),
        ("depth_mult_list=[0.1]", "depth_mult 0.1 leaves no layer of 4"),
        ("width_mult_list=half", "multipliers are numbers such as '1.0 0.75 0.5' or '3/4 2/3 1/2', not 'half'"),
    ],
)
def test_bad_multipliers_are_refused_before_the_first_stage_trains(
    fails, tiny_folder, tiny_data, tmp_path, mults, seen
):
    """Fine-tuning takes hours; that the stage after next cannot run is known before."""
    words = ("-o", f"model_name_or_path={tiny_folder}", "-o", f"task.data_dir={tiny_data}", "-o", f"space.{mults}")
    message = fails("run", "default", "--output_dir", tmp_path / "out", "-o", "train.max_steps=1", *words, code=2)
    assert seen in message


@pytest.mark.parametrize("mults", ["1.0 0.1", "1.5"])
def test_bad_multipliers_of_a_verb(fails, finetuned, tmp_path, mults):
    words = ("--output_dir", tmp_path / "out", "--width_mult_list", mults)
    assert re.search(r"leaves no head of 4|in \(0, 1\]", fails("train_width", finetuned, *words, code=2))


def cut(name):
    return lambda folder: edit(folder / name, lambda content: content[: len(content) // 2])


def flip(name):
    """Damage the header, where a safetensors file says what it holds."""
    return lambda folder: edit(folder / name, lambda content: content[:20] + bytes(60) + content[80:])


def set_key(name, **values):
    def damage(folder):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return damage


MODEL_FAULTS = {
    "no config": (remove("config.json"), "model/config.json: missing"),
    "no weights": (remove("model.safetensors"), "model holds no weights: looked for model.safetensors"),
    "cut weights": (cut("model.safetensors"), "model/model.safetensors"),
    "empty weights": (overwrite("model.safetensors", b""), "model/model.safetensors"),
    "damaged weights": (flip("model.safetensors"), "model/model.safetensors"),
    "cut config": (cut("config.json"), "model/config.json: not JSON: the file is damaged or cut off"),
    "config of zeros": (overwrite("config.json", bytes(99)), "model/config.json: not JSON"),
    "list config": (overwrite("config.json", b"[]"), "model/config.json: holds no JSON object"),
    "hidden_size is a word": (set_key("config.json", hidden_size="wide"), "model/config.json"),
    "other size": (set_key("config.json", intermediate_size=40), "model"),
    "unsupported": (
        set_key("config.json", architectures=["LlamaForCausalLM"], model_type="llama"),
        "model/config.json: names architecture 'LlamaForCausalLM', which is not supported; supported: BERT,",
    ),
    "unknown": (
        set_key("config.json", architectures=["FooForBar"], model_type="foo"),
        "model/config.json: names architecture 'FooForBar', which is not supported",
    ),
    "architectures is a word": (set_key("config.json", architectures="BertModel", model_type=""), "model"),
    "cut metadata": (cut("dynabert.json"), "model/dynabert.json: not JSON: the file is damaged or cut off"),
    "metadata of a wrong type": (set_key("dynabert.json", heads=[9]), "dynabert.json"),
    "cut tokenizer": (cut("tokenizer.json"), "model: tokenizer.json is truncated or corrupt"),
}


@pytest.mark.parametrize("fault", MODEL_FAULTS)
def test_bad_model(fails, model, tiny_data, tmp_path, fault):
    damage, seen = MODEL_FAULTS[fault]
    damage(model)
    before = snapshot(model)
    words = ("--model_name_or_path", model, "--data_dir", tiny_data, "--output_dir", tmp_path / "out")
    assert seen in fails("finetune", *words, code=1)
    assert snapshot(model) == before


def test_an_architecture_of_null_is_ignored(capsys, model, tiny_data, tmp_path):
    """As some converters write it; the model type says enough."""
    set_key("config.json", architectures=None, model_type="bert")(model)
    words = ("--model_name_or_path", model, "--data_dir", tiny_data, "--max_steps", "1", "--max_seq_length", "8")
    done = run_command(capsys, "finetune", *words, "--output_dir", tmp_path / "out")
    assert done.code == 0, done.err


@pytest.mark.parametrize("verb", ["rewire", "train_width", "train_depth", "train_final"])
def test_a_model_that_was_never_fine_tuned(fails, tiny_folder, tiny_data, tmp_path, verb):
    words = (tiny_folder, "--data_dir", tiny_data, "--output_dir", tmp_path / "out")
    message = fails(verb, *words, code=2)
    assert f"{tiny_folder} is not a model that 'dynabert finetune' has made" in message


def test_evaluating_a_model_that_was_never_fine_tuned(fails, tiny_folder, tiny_data):
    """Its two outputs mean nothing for the task's seven classes: a table of scores would mislead."""
    message = fails("evaluate", tiny_folder, "--data_dir", tiny_data, code=2)
    assert str(tiny_folder) in message


@pytest.mark.parametrize("verb", ["rewire", "train_width", "evaluate"])
def test_a_missing_model_folder(fails, tmp_path, verb):
    words = () if verb == "evaluate" else ("--output_dir", tmp_path / "out")
    assert "no such model folder" in fails(verb, tmp_path / "missing", *words, code=1)


@pytest.mark.parametrize("words", [
    ("finetune", "--model_name_or_path", "DIR"), ("rewire", "DIR"), ("train_width", "DIR"), ("train_depth", "DIR"),
    ("train_final", "DIR"), ("evaluate", "DIR"), ("search", "DIR"), ("compress", "vocabulary", "DIR"),
    ("baseline", "finetuned", "DIR"), ("extract", "DIR", "w0.50d1.00"), ("export", "DIR"),
    ("augment", "--masked_lm", "DIR"),
], ids=lambda words: words[0])  # fmt: skip
def test_the_folder_of_a_run_in_place_of_a_model(fails, tiny_folder, tiny_data, tmp_path, words):
    run = tmp_path / "run"
    shutil.copytree(tiny_folder, run / "finetune")
    (run / ".dynabert").write_text("run\n")
    words = [str(run) if word == "DIR" else word for word in words]
    if words[0] == "augment":
        words += ["--output_file", tmp_path / "aug.tsv"]
    elif words[0] != "evaluate":
        words += ["--output_dir", tmp_path / "out"]
    words += [] if words[0] == "extract" else ["--data_dir", tiny_data]
    message = fails(*words, code=1)
    assert message == f"{run} is the folder of a run: name the folder of one of its models: {run / 'finetune'}"


def test_a_model_in_place_of_a_bundle(fails, tiny_folder):
    advice = f"{tiny_folder} is the folder of a model: export it first, with 'dynabert export {tiny_folder} "
    assert fails("predict", tiny_folder, "-i", tiny_folder / "config.json", code=1).startswith(advice)
    assert fails("bench", tiny_folder, code=1).startswith(advice)


def test_a_folder_in_place_of_a_config(fails, tmp_path):
    (tmp_path / "run").mkdir()
    assert "run is a folder: name a YAML file" in fails("run", tmp_path / "run", code=2)
    (tmp_path / "run" / "run.yaml").write_text("stages: [finetune]\n")
    message = fails("run", tmp_path / "run", code=2)
    assert message == f"{tmp_path / 'run'} is a folder: name its settings, {tmp_path / 'run' / 'run.yaml'}"


def test_stages_out_of_order_are_refused_before_anything_is_written(fails, tiny_folder, tmp_path):
    words = ("-o", f"model_name_or_path={tiny_folder}", "-o", "stages=[depth, finetune]")
    fails("run", "default", "--output_dir", tmp_path / "out", *words, code=2)


def test_other_labels_than_the_model_has(fails, finetuned, tmp_path):
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("train.tsv", "dev.tsv"):
        (folder / name).write_text("sentence\tlabel\n" + "good\tyes\nbad\tno\n" * 10)
    words = ("--task_name", "custom", "--data_dir", folder, "--output_dir", tmp_path / "out")
    message = fails("train_width", finetuned, *words, code=2)
    assert "has 7 outputs and task 'custom' needs 2" in message


@pytest.mark.parametrize("name", ["half", "w2.0d1.0", "w0.10d1.00", "l9h1f1", "l0h9f1"])
def test_unknown_sub_networks(fails, finetuned, name):
    fails("evaluate", finetuned, "--subnet", name, code=2)


@pytest.mark.parametrize("verb", ["finetune", "train_width"])
def test_a_length_beyond_the_models_positions(fails, tiny_folder, tiny_data, finetuned, tmp_path, verb):
    model = ("--model_name_or_path", tiny_folder) if verb == "finetune" else (finetuned,)
    words = (*model, "--data_dir", tiny_data, "--max_seq_length", "200", "--output_dir", tmp_path / "out")
    assert "max_seq_length is 200, more than the model's 128 positions" in fails(verb, *words, code=2)


@pytest.mark.parametrize("verb", ["finetune", "train_width", "evaluate", "run"])
def test_a_gpu_on_a_cpu_build(fails, tiny_folder, finetuned, tmp_path, verb):
    import paddle

    if paddle.is_compiled_with_cuda():
        pytest.skip("this Paddle may have a GPU")
    words = {
        "finetune": ("--model_name_or_path", tiny_folder, "--output_dir", tmp_path / "out"),
        "train_width": (finetuned, "--output_dir", tmp_path / "out"),
        "evaluate": (finetuned,),
        "run": ("default", "--output_dir", tmp_path / "out"),
    }[verb]
    message = fails(verb, *words, "--device", "gpu", code=2)
    assert message == "device 'gpu': the installed Paddle is a CPU build; use cpu"


@pytest.mark.parametrize("verb", ["rewire", "train_width"])
def test_a_finished_output_is_kept(fails, finetuned, tmp_path, verb):
    output = shutil.copytree(finetuned, tmp_path / "out")
    before = snapshot(output)
    message = fails(verb, finetuned, "--output_dir", output, code=2)
    assert message == f"{output} exists: pass --overwrite_output_dir to replace it, or name another --output_dir"
    assert snapshot(output) == before


@pytest.mark.parametrize("name", ["thesis.tex", "train.jsonl"])
@pytest.mark.parametrize("verb", ["rewire", "train_width", "run"])
def test_a_folder_of_the_users_is_never_removed(fails, finetuned, tiny_folder, tmp_path, verb, name):
    output = tmp_path / "out"
    output.mkdir()
    (output / name).write_text('{"sentence": "mine", "label": "PlayMusic"}\n')
    before = snapshot(output)
    words = ["--output_dir", output, "--overwrite_output_dir"]
    if verb == "run":
        words = ["default", *words, "-o", f"model_name_or_path={tiny_folder}", "-o", "stages=[finetune]"]
        words += ["-o", "train.max_steps=1"]
    elif verb == "train_width":
        words = [finetuned, *words, "--max_steps", "1"]
    else:
        words = [finetuned, *words]
    message = fails(verb, *words, code=2)
    assert "was not created by dynabert, and is not removed" in message
    assert snapshot(output) == before


def make_folder(folder, maker):
    """A folder as a verb makes it."""
    folder.mkdir()
    (folder / ".dynabert").write_text(f"{maker}\n")
    return folder


def test_overwriting_loses_nothing_to_a_mistyped_input(fails, finetuned, tmp_path):
    """The old result goes once the new one can begin."""
    output = make_folder(tmp_path / "out", "run")
    shutil.copytree(finetuned, output / "finetune")
    before = snapshot(output)
    words = ("--output_dir", output, "--overwrite_output_dir")
    fails("run", "default", *words, "-o", "task.data_dir=daat", code=1)
    assert snapshot(output) == before
    fails("finetune", "--data_dir", "daat", "--output_dir", output / "finetune", "--overwrite_output_dir", code=1)
    assert snapshot(output) == before


def test_overwriting_the_model_that_a_stage_starts_from_is_refused(fails, finetuned, tmp_path):
    source = shutil.copytree(finetuned, make_folder(tmp_path / "out", "run") / "model")
    before = snapshot(source)
    for output in (source, source.parent):
        fails("train_width", source, "--output_dir", output, "--overwrite_output_dir", "--max_steps", "1", code=2)
        assert snapshot(source) == before


@pytest.mark.parametrize("verb", ["rewire", "train_width"])
def test_the_folder_of_a_whole_run_is_no_unfinished_stage(fails, finetuned, tmp_path, verb):
    """A stage's files among a run's folders would mix, and be removed together."""
    output = make_folder(tmp_path / "out", "run")
    (output / "run.yaml").write_text("{}\n")
    source = shutil.copytree(finetuned, output / "finetune")
    before = snapshot(output)
    flags = ("--max_steps", "1") if verb == "train_width" else ()
    assert "exists" in fails(verb, source, "--output_dir", output, *flags, code=2)
    assert snapshot(output) == before


@pytest.mark.parametrize("overwrite", [[], ["--overwrite_output_dir"]])
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run.yaml", "# my notes\nstages: [finetune]\n", "run.yaml is a config of your own"),
        ("run.yaml", "not: [yaml", "run.yaml is a config of your own"),
        ("grid.json", '{"rows": 3, "columns": 4}', "grid.json is a file of your own"),
        ("depth/thesis.tex", "mine", "depth exists"),
        ("finetune/notes/a.txt", "mine", "finetune exists"),
        ("width", "mine", "width is a file"),
    ],
)
def test_a_run_replaces_no_file_of_the_users_and_says_so_at_once(
    fails, tiny_folder, tiny_data, tmp_path, name, content, said, overwrite
):
    """A folder in the way of the last stage was found hours later, and a hand-written run.yaml was replaced."""
    output = tmp_path / "out"
    (output / name).parent.mkdir(parents=True)
    (output / name).write_text(content)
    before = snapshot(output)
    words = ["-o", f"model_name_or_path={tiny_folder}", "-o", f"task.data_dir={tiny_data}", "-o", "train.max_steps=1"]
    message = fails("run", "quickstart", *words, "--output_dir", output, *overwrite, code=2)
    assert message.startswith(str(output))
    assert message.endswith("name another --output_dir")
    assert said in message or (overwrite and "was not created by dynabert, and is not removed" in message)
    assert snapshot(output) == before


def test_a_config_in_its_own_output_folder_is_refused_and_stays(fails, tiny_folder, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "run.yaml").write_text(f"output_dir: {output}\nmodel_name_or_path: {tiny_folder}\nstages: [finetune]\n")
    before = snapshot(output)
    assert f"name another output_dir in {output}/run.yaml, line 1" in fails("run", output / "run.yaml", code=2)
    assert snapshot(output) == before


def test_a_failed_rewire_leaves_no_folder(fails, finetuned, tmp_path):
    """Weights that have diverged are found out only when the importance is computed."""
    broken = db.Supernet.from_pretrained(finetuned)
    broken.model.classifier.weight.set_value(broken.model.classifier.weight * float("nan"))
    source = broken.save_pretrained(tmp_path / "broken")
    message = fails("rewire", source, "--output_dir", tmp_path / "out", code=1)
    assert "not finite" in message


def test_below_a_file_nothing_is_written(fails, finetuned, tiny_folder, tiny_data, tmp_path):
    (tmp_path / "file").write_text("mine")
    output = tmp_path / "file" / "out"
    words = ("--model_name_or_path", tiny_folder, "--data_dir", tiny_data, "--output_dir", output)
    assert f"{output}: cannot be written: Not a directory" in fails("finetune", *words, code=1)
    assert f"{output}: cannot be written" in fails("rewire", finetuned, "--output_dir", output, code=1)
    assert f"{output}: cannot be written" in fails("run", "default", "--output_dir", output, code=1)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("save_steps", [0, 1])
def test_a_nan_loss_names_the_step_and_the_remedy_on_the_command_line(
    capsys, tiny_folder, tiny_data, tmp_path, save_steps
):
    words = ["finetune", "--model_name_or_path", tiny_folder, "--data_dir", tiny_data, "--max_seq_length", "8"]
    words += ["--output_dir", tmp_path / "out", "--max_steps", "6", "--save_steps", save_steps]
    done = run_command(capsys, *words, "--learning_rate", "1e38")
    assert done.code == 1, done.err
    last = done.err.splitlines()[-1]
    assert re.search(r"error: finetune: the (loss|gradient).* (is|are) (nan|inf|not finite).* step [1-6]\b", last)
    assert "lower the learning rate (1e+38)" in last
    assert "Traceback" not in done.err
    assert not (tmp_path / "out" / "dynabert.json").exists()
    assert "remove this stage's folder, and start again" in last
    shutil.rmtree(tmp_path / "out")
    assert run_command(capsys, *words, "--learning_rate", "1e-5").code == 0


def run_limited(words, *, size):
    """The command in a process whose files cannot grow beyond `size` bytes."""
    return subprocess.run(
        [sys.executable, "-m", "dynabert_paddle", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )


def test_no_room_for_weights_leaves_nothing_half_written(tiny_folder, tiny_data, tmp_path):
    """Logs find room, weights do not."""
    words = ["finetune", "--model_name_or_path", tiny_folder, "--data_dir", tiny_data, "--max_seq_length", "8"]
    words += ["--output_dir", tmp_path / "out", "--max_steps", "2"]
    done = run_limited(words, size=2**20)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(
        rf"error: {tmp_path}/out/checkpoint-2: cannot be written: .*: make room or name another folder, then run again",
        done.stderr.splitlines()[-1],
    )
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert not list(tmp_path.rglob("*.partial"))
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_disk_that_is_full_of_logs(tiny_folder, tiny_data, tmp_path):
    """The first thing that finds no room is a line of the log."""
    unshare = shutil.which("unshare")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = f"mount -t tmpfs -o size=24k tmpfs {folder}"
    if os.geteuid() or unshare is None or subprocess.run([unshare, "-m", "sh", "-c", mount], check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    words = ["finetune", "--model_name_or_path", tiny_folder, "--data_dir", tiny_data, "--max_seq_length", "8"]
    words += ["--output_dir", folder / "out", "--max_steps", "400", "--logging_steps", "1"]
    words += ["--per_device_train_batch_size", "2"]
    command = [sys.executable, "-m", "dynabert_paddle", *map(str, words)]
    done = subprocess.run(
        [unshare, "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {folder / 'out'}"), last
    assert "No space left on device" in last
    assert "make room" in last


def test_a_regression_model_for_classes(fails, tmp_path):
    """One output cannot tell classes apart."""
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    supernet = db.Supernet(make_bert(num_labels=1), tokenizer)
    supernet.metadata = supernet.metadata.replace(stage="finetune", task={"name": "snips"})
    source = supernet.save_pretrained(tmp_path / "values")
    message = fails("train_width", source, "--output_dir", tmp_path / "out", code=2)
    assert "has 1 outputs and task 'snips' needs 7" in message


@pytest.mark.parametrize("verb", ["rewire", "train_width"])
def test_an_output_without_a_name_is_not_the_working_folder(capsys, finetuned, tmp_path, monkeypatch, verb):
    """As a shell passes it where a variable is not set: --output_dir "$OUT"."""
    monkeypatch.chdir(tmp_path)
    done = run_command(capsys, verb, finetuned, "--output_dir", "")
    assert (done.code, done.out) == (2, "")
    assert not list(tmp_path.iterdir())
