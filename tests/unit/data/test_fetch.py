"""Official files from PaddleNLP's cache, and a fast error if they are missing and there is no network."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.reference

REAL = Path(__file__).parents[4] / "shared" / "data"
SAMPLES = Path(__file__).parents[2] / "samples"

# PaddleNLP finds its cache when it is imported, so each test has a process of its own.
LOAD = """
import json, logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="LOG %(name)s %(message)s")
logging.getLogger("dynabert_paddle").setLevel(logging.INFO)
from dynabert_paddle.data import fetch
from dynabert_paddle.data.tasks import load_task
from dynabert_paddle.errors import DataError
import paddlenlp, time
fetch._TIMEOUT = 1
for name in sys.argv[1:]:
    start = time.monotonic()
    try:
        task = load_task(name)
        said = {"train": len(task.train), "dev": len(task.dev), "task": task.to_dict()}
    except DataError as error:
        said = {"error": str(error)}
    print(json.dumps(said | {"seconds": time.monotonic() - start}))
"""


@pytest.fixture
def listening():
    """A proxy that accepts connections and never answers, as behind a firewall."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def load(home, *names, port):
    proxy = f"http://127.0.0.1:{port}"
    network = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"), proxy)
    environment = {**os.environ, "PPNLP_HOME": str(home), "NO_PROXY": "", "no_proxy": "", **network}
    words = [sys.executable, "-c", LOAD, *names]
    done = subprocess.run(words, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    log = [line for line in done.stderr.splitlines() if line.startswith("LOG dynabert_paddle")]
    return [json.loads(line) for line in done.stdout.splitlines()], log


def test_official_files_come_from_paddlenlps_cache(tmp_path, listening):
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is absent")
    glue = tmp_path / "datasets" / "Glue"
    glue.mkdir(parents=True)
    for name in ("RTE", "MRPC"):
        (glue / name).symlink_to(REAL / "glue" / name)
    (tmp_path / "datasets" / "Clue").mkdir()
    (tmp_path / "datasets" / "Clue" / "afqmc_public").symlink_to(REAL / "clue" / "afqmc_public")
    found, log = load(tmp_path, "RTE", "mrpc", "afqmc", port=listening)
    assert [(row["train"], row["dev"]) for row in found] == [(2490, 277), (3668, 408), (34334, 4316)]
    assert log == []
    # The description has no paths, so it works on any machine.
    assert not {"train_file", "dev_file"} & set(found[0]["task"])


def test_without_a_network_the_error_names_the_remedy(tmp_path):
    """Nothing listens at port 9. The samples are not the official files, and PaddleNLP would replace them."""
    other = tmp_path / "datasets" / "Glue" / "RTE"
    other.parent.mkdir(parents=True)
    other.symlink_to(SAMPLES / "glue" / "RTE")
    tasks = {
        "rte": ("https://bj.bcebos.com/dataset/glue/RTE.zip", "https://gluebenchmark.com/tasks"),
        "mrpc": ("https://bj.bcebos.com/dataset/glue/mrpc/msr_paraphrase_train.txt", "https://gluebenchmark.com/tasks"),
        "mnli-mm": ("https://bj.bcebos.com/dataset/glue/MNLI.zip", "https://gluebenchmark.com/tasks"),
        "ocnli": ("https://bj.bcebos.com/paddlenlp/datasets/ocnli_public.zip", "https://github.com/CLUEbenchmark/CLUE"),
        "chnsenticorp": ("https://bj.bcebos.com/paddlenlp/datasets/ChnSentiCorp.zip",) * 2,
        "lcqmc": ("https://bj.bcebos.com/paddlenlp/datasets/lcqmc.zip",) * 2,
    }
    found, log = load(tmp_path, *tasks, port=9)
    for (url, page), said in zip(tasks.values(), found, strict=True):
        assert said["error"].startswith(f"{url}: cannot be downloaded (")
        assert said["error"].endswith(
            f"); get the data from {page} on a machine with a network, and name its folder with data_dir."
        )
        assert "\n" not in said["error"]
        assert said["seconds"] < 3
    assert [line.split()[2:4] for line in log] == [["downloading", url] for url, _ in tasks.values()]


def test_a_network_that_never_answers_times_out(tmp_path, listening):
    start = time.monotonic()
    found, _ = load(tmp_path, "tnews", port=listening)
    assert "cannot be downloaded (" in found[0]["error"]
    assert 0.5 < found[0]["seconds"] < 5
    assert time.monotonic() - start < 60
    assert not [path for path in (tmp_path / "datasets").rglob("*") if path.is_file()]
