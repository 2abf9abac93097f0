"""The scripts that reproduce: what they say they will do, what they refuse, and everything once on a few rows."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from dynabert_paddle.files.atomic import read_json, write_json

GLUE = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst-2", "sts-b", "wnli")
CLUE = ("afqmc", "chnsenticorp", "cluewsc2020", "cmnli", "csl", "iflytek", "lcqmc", "ocnli", "tnews")


def script(folder, name, *words):
    command = ["bash", ROOT / "scripts" / name, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


@pytest.mark.parametrize(
    "name, task", [*(("run_glue.sh", task) for task in GLUE), *(("run_clue.sh", task) for task in CLUE)]
)
def test_a_dry_run_shows_the_whole_chain_and_does_nothing(tmp_path, name, task):
    (tmp_path / "data").mkdir()
    done = script(tmp_path, name, task.upper(), "data", "--dry_run", "-o", "train.seed=3")
    assert done.returncode == 0, done.stderr
    benchmark = name[4:8]
    folder = f"out/{benchmark}/{task}"
    run = f"dynabert run {benchmark}/{task} --output_dir {folder} -o task.data_dir=data -o train.seed=3"
    expected = ["setup_env.sh", run, f"dynabert export {folder}/depth --subnet w0.50d0.50", f"report_line.py {folder}"]
    if task == "mnli":
        expected.insert(2, f"dynabert evaluate {folder}/depth --grid --task_name mnli-mm --data_dir data")
    lines = done.stdout.splitlines()
    assert len(lines) == len(expected)
    for line, part in zip(lines, expected, strict=True):
        assert part in line
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_augmentation_comes_first_and_is_trained_on(tmp_path):
    words = ("--masked_lm", "bert-base-uncased", "--word_vectors", "glove.txt", "--dry_run")
    done = script(tmp_path, "run_glue.sh", "rte", *words)
    augment, run = (next(line for line in done.stdout.splitlines() if verb in line) for verb in (" augment ", " run "))
    assert "--config glue/rte --masked_lm bert-base-uncased --word_vectors glove.txt" in augment
    (file,) = re.findall(r"--output_file (\S+)", augment)
    assert f"-o width.augmented_file={file} -o depth.augmented_file={file}" in run
    assert done.stdout.index(augment) < done.stdout.index(run)


def test_qqp_has_two_backbones(tmp_path):
    tiny, base = (script(tmp_path, "run_qqp.sh", name, "--dry_run").stdout for name in ("tinybert", "bert-base"))
    assert "dynabert run qqp_tinybert " in tiny
    assert "dynabert export out/qqp_tinybert/width --subnet w0.50d1.00 " in tiny
    assert "dynabert run glue/qqp " in base
    assert "dynabert export out/glue/qqp/depth --subnet w0.50d0.50 " in base


def test_punctuation_is_restored_in_a_folder_or_in_snips(tmp_path):
    (tmp_path / "data").mkdir()
    done = script(tmp_path, "run_punctuation.sh", "data", "--dry_run")
    assert "dynabert run punctuation --output_dir out/punctuation -o task.data_dir=data " in done.stdout, done.stderr
    done = script(tmp_path, "run_punctuation.sh", "snips", "--dry_run", "-o", "train.seed=3")
    run = next(line for line in done.stdout.splitlines() if "dynabert run" in line)
    assert "punctuation --output_dir out/punctuation/snips/run -o task.data_dir=out/punctuation/snips " in run
    assert run.rstrip().endswith("-o train.seed=3")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_comparison_trains_every_method_beside_every_seeds_run(tmp_path):
    words = ("glue/rte", "--subnet", "w1.00d0.75", "--seeds", "3 5", "-o", "task.data_dir=data", "--dry_run")
    done = script(tmp_path, "compare_fixed.sh", *words)
    assert done.returncode == 0, done.stderr
    lines = iter(done.stdout.splitlines())
    assert "setup_env.sh" in next(lines)
    for seed in (3, 5):
        run, last = f"out/compare/glue/rte/seed-{seed}", f"-o task.data_dir=data -o train.seed={seed} "
        assert next(lines) == f"+ dynabert run glue/rte --output_dir {run} {last}"
        for method in ("distilbert", "tinybert", "pruned", "finetuned"):
            source = "rewire" if method == "pruned" else "finetune"
            command = f"+ dynabert baseline {method} {run}/{source} --subnet w1.00d0.75 --num_examples EXAMPLES "
            folder = f"{run}/baselines/{method}-w1.00d0.75"
            assert next(lines) == f"{command}--output_dir {folder} --config glue/rte {last}"
    assert next(lines).endswith(f"table out/compare/glue/rte w1.00d0.75 out/compare/glue/rte/seed-3 {run} ")
    assert next(lines, None) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words, message",
    [
        (("run_glue.sh", "sst"), "'sst' is not a task of GLUE: cola mnli mrpc qnli qqp rte sst-2 sts-b wnli"),
        (("run_glue.sh",), "'' is not a task of GLUE"),
        (("run_clue.sh", "rte"), "'rte' is not a task of CLUE: afqmc "),
        (("run_punctuation.sh",), "name a folder with train.txt and dev.txt, or snips"),
        (("run_punctuation.sh", "nowhere"), "nowhere: no such folder; give the folder with the files of the task"),
        (("run_qqp.sh", "roberta"), "'roberta' is not a backbone for QQP: tinybert bert-base"),
        (("run_glue.sh", "rte", "nowhere"), "nowhere: no such folder; give the folder with the files of the task"),
        (("run_glue.sh", "rte", "--smok"), "unknown argument '--smok'"),
        (("run_glue.sh", "rte", "--subnet"), "--subnet needs a value"),
        (("run_glue.sh", "rte", "--word_vectors", "x"), "--word_vectors needs --masked_lm"),
        (("compare_fixed.sh", "--seeds", "one"), "--seeds are numbers such as \"1 2 3\", not 'one'"),
        (("compare_fixed.sh", "glue/rte", "--subnets"), "unknown argument '--subnets'"),
        (("compare_fixed.sh", "--subnet"), "--subnet needs a value"),
        (("distributed.sh", "run", "quickstart"), "give either --gpus or --processes"),
        (("distributed.sh", "--gpus", "0", "--processes", "2", "run"), "give either --gpus or --processes"),
        (("distributed.sh", "--gpus", "0;1", "run"), "--gpus are numbers such as 0,1, not '0;1'"),
        (("distributed.sh", "--processes", "2"), "usage: distributed.sh"),
        (("distributed.sh", "--processes", "2", "--machines", "2", "run"), "--rank is the number of this machine"),
        (("distributed.sh", "--processes", "2", "--machines", "2", "--rank", "0", "run"), "--master is the address"),
        (("export_lite.sh",), "give the model folder"),
        (("export_lite.sh", "nowhere"), "nowhere: no such model folder"),
        (("export_lite.sh", "--precison", "int8"), "unknown argument '--precison'"),
        (("phone.sh", "model"), "usage: phone.sh MODEL_DIR OUTPUT_DIR"),
        (("phone.sh", "nowhere", "out"), "nowhere: no model folder; 'dynabert finetune' makes one"),
        (("phone.sh", "nowhere", "out", "--vocab"), "unknown argument '--vocab'"),
        (("bench/smallest.sh", "--tasks", "rte"), "--tasks are snips and sst-2, not 'rte'"),
        (("bench/smallest.sh", "--seeds", "a"), "--seeds are numbers such as \"1 2 3\", not 'a'"),
        (("bench/run_arm.sh",), "give a model folder"),
        (("bench/run_arm.sh", "nowhere"), "nowhere: no model folder"),
    ],
)
def test_invalid_options_are_refused_at_once(tmp_path, words, message):
    done = script(tmp_path, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_an_unknown_line_of_paddle_is_refused(tmp_path):
    done = script(tmp_path, "setup_env.sh", "dev", "--paddle", "2.5")
    assert (done.returncode, done.stderr) == (1, "error: --paddle '2.5': there are 2.6, 3.1 and 3.3\n")


@pytest.mark.full
@pytest.mark.parametrize(
    "words, folder, stage, num_subnets",
    [
        (("run_glue.sh", "sts-b"), "glue/sts-b", "depth", 12),
        (("run_glue.sh", "mnli"), "glue/mnli", "depth", 12),
        (("run_clue.sh", "cluewsc2020"), "clue/cluewsc2020", "depth", 12),
        (("run_qqp.sh", "tinybert"), "qqp_tinybert", "width", 4),
        (("run_qqp.sh", "bert-base"), "glue/qqp", "depth", 12),
    ],
)
def test_smoke(tmp_path, words, folder, stage, num_subnets):
    done = script(tmp_path, *words, "--smoke")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out" / "smoke" / folder
    grid = json.loads((out / "grid.json").read_text())
    assert len(grid["rows"]) == num_subnets
    assert (out / stage / "dynabert.json").exists()
    bundle = json.loads((out / "bundle" / "bundle.json").read_text())
    assert bundle["verification"]["max_abs_diff"] <= 1e-5
    report = done.stdout.splitlines()[-1]
    task = folder.rpartition("/")[2].partition("_")[0]
    assert re.fullmatch(rf"{task} dev \w+: full -?\d\.\d{{4}}, best .*; bundle out/smoke/{folder}/bundle", report)


def test_processes_are_started_on_one_machine_or_on_several(tmp_path):
    cpu = script(tmp_path, "distributed.sh", "--processes", "2", "--dry_run", "run", "quickstart", "--json")
    assert "paddle.distributed.launch --nproc_per_node 2 --log_dir log" in cpu.stdout
    assert cpu.stdout.strip().endswith("dynabert run quickstart --json")
    words = ("--gpus", "0,1", "--machines", "2", "--rank", "1", "--master", "10.0.0.1:6170", "--dry_run", "search", "x")
    several = script(tmp_path, "distributed.sh", *words)
    assert "--nnodes 2 --rank 1 --master 10.0.0.1:6170 --gpus" in several.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.full
def test_smoke_of_a_comparison(tmp_path):
    words = ("compare_fixed.sh", "--smoke", "--seeds", "1")
    done = script(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    again = script(tmp_path, *words, "--dry_run")
    assert "dynabert run" in again.stdout
    assert "dynabert baseline" not in again.stdout, "what is finished is not trained again"

    out = tmp_path / "out" / "compare" / "smoke" / "quickstart"
    cells = ("w0.50d1.00", "w1.00d0.50")  # whose MACs are equal
    methods = ("distilbert", "finetuned", "pruned", "tinybert")
    expected = [*(("dynabert", cell) for cell in cells), *((method, "w1.00d0.50") for method in methods)]
    rows = json.loads((out / "comparison.json").read_text())["rows"]
    assert [(row["method"], row["subnet"]) for row in rows] == expected
    assert len({row["macs"] for row in rows}) == 1
    limit = rows[0]["examples_seen"]
    for row in rows[2:]:  # at most two batches of 4 less, for an epoch's last one is smaller
        assert limit - 2 * 4 < row["examples_seen"] <= limit, row

    # A second seed, whose accuracies are 0.1 lower.
    shutil.copytree(out / "seed-1", out / "seed-2")
    grid = read_json(out / "seed-1/grid.json")
    lower = {**grid, "rows": [{**row, "accuracy": row["accuracy"] - 0.1} for row in grid["rows"]]}
    write_json(out / "seed-2/grid.json", lower)
    for path in out.glob("seed-2/baselines/*/baseline.json"):
        found = read_json(path)
        write_json(path, {**found, "metrics": {"accuracy": found["metrics"]["accuracy"] - 0.1}})
    table = [
        sys.executable,
        ROOT / "scripts/lib/compare_fixed.py",
        "table",
        out,
        "w1.00d0.50",
        out / "seed-1",
        out / "seed-2",
    ]
    subprocess.run(table, check=True, capture_output=True)
    for before, row in zip(rows, json.loads((out / "comparison.json").read_text())["rows"], strict=True):
        (first,) = before["values"]
        assert (before["mean"], before["std"]) == (first, None)
        assert row["values"] == pytest.approx([first, first - 0.1])
        assert row["mean"] == pytest.approx(first - 0.05)
        assert row["std"] == pytest.approx(0.1 / 2**0.5)
    lines = (out / "comparison.csv").read_text().splitlines()
    assert lines[0] == "method,subnet,macs,params,mean,std,examples_seen,seconds"
    assert [tuple(line.split(",")[:2]) for line in lines[1:]] == expected


@pytest.mark.full
def test_smoke_for_phones(tmp_path, converter):
    done = script(tmp_path, "export_lite.sh", "--smoke", "--precision", "int16")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"LABEL_[01]\t0\.\d{4}", done.stdout.splitlines()[-1])
    assert (tmp_path / "out/smoke/lite/tiny-w0.50d0.50-lite/model_arm.nb").exists()
