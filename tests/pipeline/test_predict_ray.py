"""`scripts/predict_ray.py` and `BatchPredictor` on a real local Ray cluster of two workers, one of which is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bundles import make_sizes
from conftest import ROOT, SNIPS

import dynabert_paddle as db

pytestmark = pytest.mark.full

TEXTS = [line.split("\t")[0] for line in (SNIPS / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]]
SCRIPT = ROOT / "scripts/predict_ray.py"
# A cluster of its own, whatever the user has; no token is written to the user's folder.
ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": "", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def bundle(make_once):
    return make_sizes(make_once)


@pytest.fixture(scope="module")
def expected(bundle):
    return db.Predictor(bundle, num_threads=1)(TEXTS)


def start(*words):
    command = list(map(str, [sys.executable, SCRIPT, *words]))
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def run(*words):
    process = start(*words)
    out, err = process.communicate()
    return process.returncode, out, err


def read_processes():
    """The processes of this machine: parents and command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(folder.name)] = parent, (folder / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
    return found


def workers_of(process):
    """The processes of a script's workers: its descendants that Ray names after the class."""
    processes = read_processes()

    def descends(pid):
        while pid in processes and pid != process:
            pid = processes[pid][0]
        return pid == process

    return [pid for pid, (_, command) in processes.items() if command.startswith(b"ray::Worker") and descends(pid)]


def test_a_worker_that_is_killed_costs_no_row_and_doubles_none(bundle, expected, tmp_path):
    pytest.importorskip("ray")
    source, out = tmp_path / "in.parquet", tmp_path / "out"
    table = pa.table({"id": np.arange(len(TEXTS)) + 10, "sentence": TEXTS, "label": ["?"] * len(TEXTS)})
    pq.write_table(table, source, row_group_size=300)
    words = ("--rows_per_part", 8, "--num_workers", 2, "--columns")
    with start(source, out, bundle, *words) as process:
        while not (done := list(tmp_path.glob(".out.*.partial/part-*.parquet"))):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        workers = workers_of(process.pid)
        os.kill(workers[0], signal.SIGKILL)
        assert len(workers) == 2 and len(done) < len(TEXTS) // 8 / 2
        assert not out.exists()
        printed, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert printed.splitlines()[-1] == f"{len(TEXTS)} rows by 2 workers in {out}"
    files = sorted(out.iterdir())
    assert [path.name for path in files] == [f"part-{number:08}.parquet" for number in range(len(files))]
    found = pq.read_table(out)  # in the order of the names
    assert found.schema.names == ["row", "id", "sentence", "label", "predicted_label", "score"]
    assert found.column("row").to_pylist() == list(range(len(TEXTS)))
    assert found.select(table.schema.names).equals(table)
    assert found.column("predicted_label").to_pylist() == [one.label for one in expected]
    np.testing.assert_allclose(found.column("score"), [one.score for one in expected], atol=1e-5)
    assert list(tmp_path.glob(".*")) == []


def test_ray_data_and_a_folder_of_json_lines(bundle, expected, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "in").mkdir()
    for number in range(2):
        rows = [json.dumps({"n": i, "sentence": text}) for i, text in enumerate(TEXTS[20 * number :][:20])]
        (tmp_path / "in" / f"{number}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    code, _, err = run(
        tmp_path / "in", tmp_path / "out", bundle, "--columns", "--num_workers", 1, "--rows_per_part", 15
    )
    assert code == 0, err
    found = pq.read_table(tmp_path / "out")
    assert found.column("n").to_pylist() == [str(number) for number in [*range(20)] * 2]  # as dynabert predict has them
    assert found.column("label").to_pylist() == [one.label for one in expected[:40]]
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        batches = ray.data.from_arrow(pa.table({"text": TEXTS[:40], "id": range(40)}))
        predicted = batches.map_batches(db.BatchPredictor(bundle), batch_format="pyarrow", batch_size=16)
        rows = sorted(predicted.take_all(), key=lambda row: row["id"])
    finally:
        ray.shutdown()
    assert [row["label"] for row in rows] == [one.label for one in expected[:40]]


def test_bad_input_is_told_before_ray_starts(bundle, tmp_path):
    good, out = tmp_path / "good.parquet", tmp_path / "out"
    pq.write_table(pa.table({"sentence": ["hi"]}), good)
    tables = {
        "column": pa.table({"txt": ["hi"]}),
        "types": pa.table({"sentence": [1]}),
        "empty": pa.table({"sentence": pa.array([], pa.string())}),
    }
    for name, table in tables.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
    (tmp_path / "damaged.parquet").write_bytes(good.read_bytes()[:-9])
    (tmp_path / "empty.csv").write_text("sentence\n")
    (tmp_path / "there").mkdir()
    cases = [
        (("column.parquet", out), 1, "column.parquet: no column 'sentence'; the columns here are 'txt'."),
        (("types.parquet", out), 1, "types.parquet: column 'sentence' is int64, not texts"),
        (("empty.parquet", out), 1, "empty.parquet: no rows of data"),
        (("damaged.parquet", out), 1, "damaged.parquet: not a Parquet file, or a damaged one"),
        (("empty.csv", out), 1, "empty.csv:1: the file has no rows of data"),
        (("none.parquet", out), 1, "none.parquet: no such file or folder"),
        (("there", out), 1, "there: holds no files"),
        (("good.parquet", tmp_path / "there"), 2, "there exists: name another folder, or delete it"),
    ]
    code = "import sys, runpy\n" + "\n".join(
        f"sys.argv = ['', {str(tmp_path / source)!r}, {str(folder)!r}, {str(bundle)!r}]\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as end: print(end.code, file=sys.stderr)"
        for (source, folder), *_ in cases
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=ENVIRONMENT)
    lines = done.stderr.splitlines()
    assert len(lines) == 2 * len(cases), done.stderr
    for (_, code, message), error, found in zip(cases, lines[::2], lines[1::2], strict=True):
        assert message in error and error.startswith("error: ") and found == str(code)
    assert not out.exists()
