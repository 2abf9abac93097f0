"""The command line on models: verbs, flags and their precedence, and what goes to stdout and to stderr."""

import json
import shutil
import subprocess
import sys

import pytest
import typer

import dynabert_paddle as db
from dynabert_paddle.cli import main
from dynabert_paddle.config.loading import load_config
from dynabert_paddle.files.metadata import read_metadata

QUICK = ("--max_steps", "2", "--max_seq_length", "16", "--per_device_train_batch_size", "8")


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


def test_priority_is_flag_o_file_default(dynabert, tiny_folder, tiny_data, tmp_path):
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


def test_max_seq_length_and_data_dir_of_a_stage_are_used_and_recorded(dynabert, finetuned, tiny_data, tmp_path):
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
    words = [sys.executable, "-m", "dynabert_paddle", "run", file, "--output_dir", output, "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert rows == json.loads((output / "grid.json").read_text())["rows"]
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("wrote ")] == [
        f"wrote {output / name}" for name in ("finetune", "rewire", "width", "depth", "grid.json", "run.yaml")
    ]
    assert lines[-1].startswith(f"next: dynabert evaluate {output / 'depth'} --subnet ")
    # Nothing of Paddle's or its libraries' own: neither warnings nor a progress bar.
    stages = (
        "finetune",
        "rewire",
        "width",
        "depth",
        "evaluating ",
        "wrote ",
        "next: ",
        f"{tiny_folder}: new weights",
        f"{tiny_folder} does not name",
        f"{tiny_data}/train.tsv: 20 of 140 rows",  # are longer than 16 tokens
        f"{tiny_data}/dev.tsv: 7 of 42 rows",
    )
    assert [line for line in lines if not line.startswith(stages)] == []
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr
    # The config beside the output is complete: it runs unchanged, and finds all stages finished.
    config = load_config(output / "run.yaml")
    assert config == load_config(file, (), {"output_dir": str(output)})
    again = db.run(config)
    assert again == rows
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my.yaml", "out"]


@pytest.mark.full
def test_evaluate_with_a_dev_file_needs_no_training_file(finetuned, tiny_data, tmp_path, dynabert):
    """As on another machine, where the model's data is not."""
    model = shutil.copytree(finetuned, tmp_path / "model")
    path = model / "dynabert.json"
    values = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("files", "checksum")}
    values["task"] |= {"train_file": str(tmp_path / "gone.tsv"), "dev_file": str(tmp_path / "gone_too.tsv")}
    path.write_text(json.dumps(values))
    words = ("evaluate", model, "--dev_file", tiny_data / "dev.tsv", "--json")
    done = dynabert(*words)
    assert done.code == 0, done.err
    assert done.out == dynabert("evaluate", finetuned, "--json").out
    assert "gone_too.tsv" in dynabert("evaluate", model).err


def test_a_stage_uses_the_defaults_that_its_help_shows(dynabert, chain, tmp_path):
    """The model in the folder was trained with 16 tokens."""
    done = dynabert("train_depth", chain / "width", "--output_dir", tmp_path / "out", "--max_steps", "1")
    assert done.code == 0, done.err
    made, given = read_metadata(tmp_path / "out"), ("max_steps",)
    command = typer.main.get_command(main.app).commands["train_depth"]
    shown = {option.name: option.show_default for option in command.params}
    for name, value in made.provenance["settings"].items():
        assert name in given or (shown[name] or "None") == str(value), name
    of_dir = read_metadata(chain / "width")
    assert shown["max_seq_length"] == "DIR's, else 128"
    assert made.task["max_seq_length"] == of_dir.task["max_seq_length"] == 16
    assert shown["width_mult_list"] == "DIR's, else 1.0 0.75 0.5 0.25"
    assert made.space["width_mults"] == of_dir.space["width_mults"]
    assert shown["depth_mult_list"].endswith(", else " + " ".join(map(str, made.space["depth_mults"])))
