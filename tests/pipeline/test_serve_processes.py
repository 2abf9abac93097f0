"""`dynabert serve` while it starts, drains, reloads and loses a worker; full queues, clients that go away, and keys."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from bundles import make_bundle, make_model
from commands import run_command
from conftest import ROOT
from servers import Callers, Server
from test_bundle_bad_input import seal

import dynabert_paddle as db
from dynabert_paddle.bundle.infer import Bundle
from dynabert_paddle.serving.queue import BatchQueue

pytestmark = pytest.mark.full

BODY = {"texts": ["play some jazz"] * 4}


@pytest.fixture(scope="module")
def bundle(make_once):
    return make_bundle(make_once, "snips")


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "bundle")


def refused(*words):
    """The line with which a server ends that cannot start."""
    command = [sys.executable, "-m", "dynabert_paddle", "serve", *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "" and done.stderr.count("\n") == 1, done
    return done.returncode, done.stderr


def rename_labels(content):
    return {**content, "labels": [f"new {label}" for label in content["labels"]]}


def test_it_starts_in_seconds_and_is_not_ready_before_the_bundle_is_warm(copy):
    with Server(copy, waits=False) as server:
        server.wait_for(lambda: "LISTEN" in listeners(server))
        port = listeners(server)["LISTEN"]
        states = []
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            while not states or states[-1] != (200, 200):
                states.append((client.get("/v2/health/live").status_code, client.get("/v2/health/ready").status_code))
                if states[-1][1] == 503:
                    answer = client.post("/predict", json=BODY)
                    assert answer.status_code in (200, 503)
                    assert answer.status_code == 200 or answer.json()["code"] == "loading"
            assert client.post("/predict", json=BODY).status_code == 200
        assert states[0] == (200, 503) and all(live == 200 for live, _ in states)
        assert server.stop() == 0


def listeners(server):
    """The port that the server listens on, from the system."""
    inodes = set()
    for descriptor in os.listdir(f"/proc/{server.process.pid}/fd"):
        try:
            target = os.readlink(f"/proc/{server.process.pid}/fd/{descriptor}")
        except OSError:
            continue
        inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    for line in open(f"/proc/{server.process.pid}/net/tcp").read().splitlines()[1:]:  # noqa: SIM115
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            return {"LISTEN": int(fields[1].partition(":")[2], 16)}
    return {}


def test_what_cannot_be_served_is_told_in_one_line(bundle, copy, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, line = refused(bundle, "--port", port)
    assert (code, line) == (
        1,
        f"error: --host 127.0.0.1, --port {port}: Address already in use: end the program that listens there, "
        "or name another --port\n",
    )
    code, line = refused(tmp_path / "none", "--port", 0)
    assert (code, line) == (
        1,
        f"error: {tmp_path / 'none'}: no such folder: name one that 'dynabert export' created\n",
    )
    (copy / "labels.txt").unlink(missing_ok=True)
    (copy / "tokenizer.json").write_text("{}")
    code, line = refused(copy, "--port", 0)
    assert code == 1 and line.startswith(f"error: {copy / 'tokenizer.json'}: truncated or altered since the export")
    code, line = refused(bundle, bundle, "--port", 0)
    assert code == 2 and "two bundles are called" in line
    code, line = refused(bundle, "--host", "0.0.0.0", "--port", 0)
    assert code == 2 and line.startswith("error: --host 0.0.0.0 is open to other machines: pass --api_key_file")
    (tmp_path / "keys").write_text("\n")
    code, line = refused(bundle, "--api_key_file", tmp_path / "keys")
    assert (code, line) == (2, f"error: {tmp_path / 'keys'}: holds no API key: write one a line into it\n")
    code, line = refused(bundle, "--host", "192.0.2.1", "--api_key_file", __file__)
    assert code == 2 and "key 1 has a blank" in line
    code, line = refused(bundle, "--host", "no.such.host.invalid", "--port", 0)
    assert code == 2 and "is open to other machines" in line
    code, line = refused(bundle, "--drain_seconds", "nan")
    assert code == 2 and line.startswith("error: --drain_seconds must be a finite number, not nan")


def test_without_the_extra_a_line_says_how_to_install_it(bundle):
    code = (
        "import importlib.util, sys\nfind = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'prometheus_client' else find(name, *rest)\n"
        "from dynabert_paddle.cli.main import main\nsys.argv = ['dynabert', 'serve', sys.argv[1]]\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code, bundle], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: serve needs prometheus_client, not installed here: run pip install 'dynabert-paddle[serve]'\n"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_all_that_was_asked_be_answered(bundle, number):
    """Clients get answers, or are told that nobody listens any more."""
    with Server(bundle, "--workers", 2) as server:
        with Callers(server, 8, BODY) as callers:
            server.wait_for(lambda: len(callers.answers) > 200)
            began = time.monotonic()
            code = server.stop(number)
            seconds = time.monotonic() - began
        assert code == (0 if number == signal.SIGTERM else 130)
        assert seconds < 20
        assert {answer.status_code for answer in callers.answers} == {200}
        assert {type(error) for error in callers.failures} == {httpx.ConnectError}
        assert len(callers.answers) <= len([event for event in server.events("request") if event["status"] == 200])


def test_a_bundle_is_replaced_without_a_lost_request_and_an_invalid_one_is_refused(copy):
    with Server(copy) as server, Callers(server, 6, BODY) as callers:
        first = server.predict("play some jazz")["predictions"][0]["label"]
        seal(copy, rename_labels)
        server.send(signal.SIGHUP)
        server.wait_for(lambda: server.events("reloaded"))
        server.wait_for(lambda: server.predict("play some jazz")["predictions"][0]["label"] == f"new {first}")
        (copy / "vocab.txt").write_text("damaged")
        (copy / "tokenizer.json").write_text("damaged")
        server.send(signal.SIGHUP)
        server.wait_for(lambda: server.events("reload_refused"))
        assert "tokenizer.json: truncated or altered" in server.events("reload_refused")[0]["message"]
        assert server.predict("play some jazz")["predictions"][0]["label"] == f"new {first}"
        time.sleep(2.5)  # until the old worker has closed its connections
        assert not callers.failures
        assert {answer.status_code for answer in callers.answers} == {200}
        labels = [answer.json()["predictions"][0]["label"] for answer in callers.answers]
        assert set(labels) == {first, f"new {first}"}
        counted = server.client.get("/metrics").text
        assert server.stop() == 0
    assert "dynabert_texts_total" in counted
    texts = sum(float(line.split()[-1]) for line in counted.splitlines() if line.startswith("dynabert_texts_total"))
    assert texts >= 4 * len(labels), "the counters of workers that have ended are kept"


def test_a_worker_that_dies_is_replaced(bundle):
    with Server(bundle, "--workers", 2) as server:
        before = [event["worker"] for event in server.events("ready")]
        os.kill(before[0], signal.SIGKILL)
        server.wait_for(lambda: server.events("worker_started"))
        assert server.events("worker_ended")[0]["worker"] == before[0]
        assert all(server.predict("hi")["predictions"] for _ in range(20))
        assert server.stop() == 0


def test_workers_of_two_versions_of_a_bundle_do_not_answer_side_by_side(copy):
    with Server(copy, "--workers", 2) as server:
        first = server.predict("play some jazz")["predictions"][0]["label"]
        seal(copy, rename_labels)  # and nobody asks for a reload, but a worker dies
        os.kill(server.events("ready")[0]["worker"], signal.SIGKILL)
        server.wait_for(lambda: server.events("reloaded"))
        assert len(server.events("bundles_differ")) == 1
        time.sleep(2.5)  # until the old worker has closed its connections
        labels = {server.predict("play some jazz")["predictions"][0]["label"] for _ in range(20)}
        assert labels == {f"new {first}"}
        assert server.stop() == 0


def test_a_server_that_is_killed_leaves_no_process(bundle):
    with Server(bundle) as killed:
        worker = killed.events("ready")[0]["worker"]
        killed.process.kill()
        killed.wait_for(lambda: not os.path.exists(f"/proc/{worker}"))


def test_a_full_queue_refuses_at_once_and_the_rest_is_answered(bundle):
    body = {"texts": ["a long text " * 40] * 200}
    with Server(bundle, "--queue_size", 2) as server, Callers(server, 12, body) as callers:
        server.wait_for(lambda: len(callers.answers) > 150)
    codes = [answer.status_code for answer in callers.answers]
    assert set(codes) == {200, 503} and not callers.failures
    refusals = [answer for answer in callers.answers if answer.status_code == 503]
    assert {answer.json()["code"] for answer in refusals} == {"queue_full"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refusals)


def test_requests_that_those_before_them_would_make_late_are_refused(bundle):
    """How many of the others are in time depends on what else the machine does; `bench_serve.py` measures it."""
    with Server(bundle) as server:
        texts = ["a long text " * 40] * 50
        alone = max(server.predict(*texts)["latency_ms"] for _ in range(20))
        with Callers(server, 16, {"texts": texts, "deadline_ms": 3 * alone}) as callers:
            server.wait_for(lambda: len(callers.answers) > 400)
    answers = [answer.json() for answer in callers.answers]
    answered = [answer for answer in answers if "predictions" in answer]
    assert {answer["code"] for answer in answers if "code" in answer} == {"deadline"}
    assert answered and not callers.failures


def test_a_client_that_goes_away_leaves_the_queue(bundle):
    with Server(bundle) as server:
        host, port = server.url.removeprefix("http://").split(":")
        body = json.dumps({"texts": ["a long text " * 40] * 250}).encode()
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        with Callers(server, 4, {"texts": ["a long text " * 40] * 250}):
            for _ in range(30):
                with socket.create_connection((host, int(port)), timeout=30) as connection:
                    connection.sendall(head + body)
                    time.sleep(0.01)
        server.wait_for(lambda: [event for event in server.events("request") if event["status"] == 499])
        waiting = server.client.get("/health").json()["models"][bundle.name]["waiting"]
        assert waiting == 0
        assert server.stop() == 0


def test_slow_and_cut_requests_end_and_disturb_nobody(bundle):
    with Server(bundle, "--request_seconds", 1) as server:
        host, port = server.url.removeprefix("http://").split(":")

        def connect(content):
            connection = socket.create_connection((host, int(port)), timeout=30)
            connection.sendall(content)
            return connection

        heads = [b"", b"POST /pre", b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"]
        slow = [connect(heads[i % 3]) for i in range(50)]
        cut = [connect(heads[2]) for _ in range(20)]
        for connection in cut:
            connection.close()
        began = time.monotonic()
        with Callers(server, 2, BODY) as callers:
            for connection in slow:
                assert connection.makefile("rb").read() == b"", "closed without an answer"
                connection.close()
        assert time.monotonic() - began < 20
        assert {answer.status_code for answer in callers.answers} == {200} and not callers.failures
        assert server.stop() == 0
        assert "Traceback" not in server.errors


def test_keys_are_asked_for_everywhere_but_by_probes(bundle, tmp_path):
    (tmp_path / "keys").write_text("first-key\nsecond-key\n")
    with Server(bundle, "--host", "0.0.0.0", "--api_key_file", tmp_path / "keys") as server:
        client = httpx.Client(base_url=server.url.replace("0.0.0.0", "127.0.0.1"), timeout=60)
        for path in ("/health", "/v2/health/live", "/v2/health/ready", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200, path
        for path in (
            "/metrics",
            "/v2",
            f"/v2/models/{bundle.name}",
            "/other",
            "/health/../metrics",
            "/docs/../metrics",
        ):
            assert client.get(path).status_code == 401, path
        for key, status in (
            ("first-key", 200),
            ("second-key", 200),
            ("first-ke", 401),
            ("first-keyy", 401),
            ("é", 401),
        ):
            for headers in ({"Authorization": f"Bearer {key}".encode()}, {"X-API-Key": key.encode()}):
                assert client.post("/predict", json=BODY, headers=headers).status_code == status, key
        answer = client.post("/predict", json=BODY)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert server.stop() == 0
        assert "first-key" not in server.errors + json.dumps(server.log)


def test_bundles_of_every_kind_by_their_names(make_once, tmp_path):
    kinds = ("snips", "pairs", "values")
    folders = {kind: make_bundle(make_once, kind) for kind in kinds}
    with Server(*(f"{kind}={folder}" for kind, folder in folders.items()), "--log_texts") as server:
        answer = server.client.post("/predict", json={"texts": ["a"]})
        assert (answer.status_code, answer.json()["code"]) == (422, "missing_input")
        pairs = [["Do you know it?", "No."], ["晚了吗", "是"]]
        found = server.client.post("/predict", json={"model": "pairs", "pairs": pairs}).json()["predictions"]
        expected = db.Predictor(folders["pairs"])(*map(list, zip(*pairs, strict=True)))
        assert [one["label"] for one in found] == [one.label for one in expected]
        body = {"model": "pairs", "texts": ["a"]}
        assert server.client.post("/predict", json=body).json()["code"] == "wrong_kind"
        value = server.client.post("/predict", json={"model": "values", "texts": ["a"]}).json()["predictions"][0]
        assert value == {"score": pytest.approx(db.Predictor(folders["values"])("a")[0].score, abs=1e-5)}
        body = {"model": "values", "texts": ["a"], "top_k": 1}
        assert server.client.post("/predict", json=body).json()["code"] == "wrong_kind"
        inputs = [
            {"name": name, "shape": [2], "datatype": "BYTES", "data": [pair[i] for pair in pairs]}
            for i, name in enumerate(("text", "text_pair"))
        ]
        outputs = server.client.post("/v2/models/pairs/infer", json={"inputs": inputs}).json()["outputs"]
        assert outputs[0]["data"] == [one.label for one in expected]
        assert server.client.post("/v2/models/values/infer", json={"inputs": inputs[:1]}).status_code == 200
        assert server.stop() == 0
        assert any(event.get("texts") == pairs for event in server.log)


def test_answers_of_dynamic_int8_do_not_depend_on_other_requests(make_once, tmp_path):
    """Each call is a batch of its own: the same text has the same score to the last bit, whoever else calls."""
    model = make_model(make_once, "snips")
    bundle = Bundle(db.export(model, tmp_path / "bundle", format="onnx", precision="int8", tolerance=0.5))
    queue = BatchQueue(bundle)
    texts = ["play some jazz", "rain", "book a table for two in a restaurant nearby"] * 20
    windows = [row.windows for row in bundle.encode([(text,) for text in texts])]
    alone = [queue.put(rows, called=time.perf_counter()).result().logits[0].tolist() for rows in windows]
    together = [queue.put(rows, called=time.perf_counter()) for rows in windows]
    assert [call.result().logits[0].tolist() for call in together] == alone


def test_cancelled_calls_leave_the_queue(bundle):
    queue = BatchQueue(opened := Bundle(bundle))
    (row,) = opened.encode([("play some jazz",)])
    calls = [queue.put(row.windows * 64, called=time.perf_counter()) for _ in range(40)]
    cancelled = [call for call in calls[1::2] if call.cancel()]
    assert len(cancelled) > 5
    assert [len(call.result().logits) for call in calls[::2]] == [64] * 20
    assert queue.num_waiting == 0
    assert queue.seconds_until([], now=time.perf_counter() + 60) == 0


def test_the_page_of_the_api_renders_without_a_network(bundle, browser, tmp_path):
    """In a real browser that can reach this machine alone."""
    with Server(bundle) as server:
        command = [
            *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,1600", "--dump-dom"),
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]
        done = subprocess.run([*command, f"{server.url}/docs"], capture_output=True, text=True, timeout=120, check=True)
        assert "/v2/models/{name}/infer" in done.stdout.replace("\u200b", "").replace("<wbr>", "")
        assert "Predict for texts" in done.stdout


def test_it_is_not_imported_elsewhere():
    """The extra's packages are needed by no other verb."""
    code = (
        "import sys\nimport dynabert_paddle.cli.main, dynabert_paddle.serving.adaptive, dynabert_paddle.cli.serve\n"
        "print({'fastapi', 'uvicorn', 'prometheus_client', 'fastapi_offline'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "set()\n"


def test_usage(capsys):
    done = run_command(capsys, "serve")
    assert done.code == 2 and "BUNDLE" in done.err
