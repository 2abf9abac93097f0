"""`dynabert serve` in a process of its own, asked with httpx: answers, both protocols, and bad requests."""

import gzip
import json
import re
import socket

import numpy as np
import pytest
from bundles import SIZES, SNIPS_LABELS, make_sizes
from servers import Server

import dynabert_paddle as db

TEXTS = ["play some jazz", "what will the weather be like tomorrow", "", "rate this book five stars " * 8]


@pytest.fixture(scope="module")
def bundle(make_once):
    return make_sizes(make_once)


@pytest.fixture(scope="module")
def server(bundle):
    with Server(f"snips={bundle}", "--max_body_bytes", 20_000, "--max_texts", 16, "--max_characters", 2000) as server:
        yield server
        assert server.stop() == 0, server.errors
        assert server.process.poll() == 0 and server.errors.count("\n") == 1, server.errors


@pytest.fixture(scope="module")
def alone(bundle):
    return {name: db.Predictor(bundle, subnet=name, num_threads=1)(TEXTS) for name in SIZES}


@pytest.mark.parametrize("subnet", SIZES)
def test_answers_are_those_of_the_sub_network_alone(server, alone, subnet):
    answer = server.predict(*TEXTS, subnet=subnet, top_k=3)
    assert answer["model"] == "snips" and answer["subnet"] == subnet and answer["on_time"] is True
    assert answer["latency_ms"] > 0
    for found, expected in zip(answer["predictions"], alone[subnet], strict=True):
        assert found["label"] == expected.label
        assert found["score"] == pytest.approx(expected.score, abs=1e-5)
        scores = sorted(expected.scores.values(), reverse=True)[:3]
        assert [one["score"] for one in found["top"]] == pytest.approx(scores, abs=1e-5)
        assert found["top"][0]["label"] == found["label"]


def test_without_a_deadline_the_best_answers_and_a_hopeless_one_is_late(server, bundle):
    best = json.loads((bundle / "bundle.json").read_text())["members"][0]["subnet"]
    assert server.predict(TEXTS[0])["subnet"] == best
    late = server.predict(TEXTS[0], deadline_ms=1e-6)
    assert late["on_time"] is False and len(late["predictions"]) == 1


def test_one_text_alone_and_more_classes_than_there_are(server):
    answer = server.client.post("/predict", json={"texts": "play some jazz", "model": "snips", "top_k": 99}).json()
    assert sorted(one["label"] for one in answer["predictions"][0]["top"]) == sorted(SNIPS_LABELS)


def test_the_request_id_is_the_clients_or_a_new_one(server):
    answer = server.client.post("/predict", json={"texts": ["hi"]}, headers={"X-Request-ID": "a-1"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "a-1"
    ids = {server.client.get("/health", headers={"X-Request-ID": bad}).headers["x-request-id"] for bad in ("", "a b")}
    assert len(ids) == 2 and all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


def tensor(*texts, name="text", **changes):
    return {"name": name, "shape": [len(texts)], "datatype": "BYTES", "data": list(texts), **changes}


def test_the_open_inference_protocol(server, alone):
    client = server.client
    assert client.get("/v2").json()["name"] == "dynabert_paddle"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/snips/ready").json() == {"name": "snips", "ready": True}
    model = client.get("/v2/models/snips").json()
    assert model["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [output["name"] for output in model["outputs"]] == ["label", "score"]
    body = {"id": "7", "inputs": [tensor(*TEXTS)], "parameters": {"subnet": SIZES[1]}}
    answer = client.post("/v2/models/snips/infer", json=body).json()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "snips", model["versions"][0])
    assert answer["parameters"]["subnet"] == SIZES[1]
    label, score = answer["outputs"]
    assert (label["name"], label["datatype"], label["shape"]) == ("label", "BYTES", [len(TEXTS)])
    assert label["data"] == [one.label for one in alone[SIZES[1]]]
    np.testing.assert_allclose(score["data"], [one.score for one in alone[SIZES[1]]], atol=1e-5)
    column = tensor(*TEXTS, shape=[len(TEXTS), 1], data=[[text] for text in TEXTS])
    body = {"inputs": [column], "outputs": [{"name": "score"}], "parameters": {"top_k": 2}}
    (only,) = client.post("/v2/models/snips/infer", json=body).json()["outputs"]
    assert (only["name"], only["shape"], len(only["data"])) == ("score", [len(TEXTS), 2], 2 * len(TEXTS))


BAD = {
    "no JSON": (b"{", 400, "invalid_json"),
    "nothing": (b"", 400, "invalid_json"),
    "not UTF-8": (b'{"texts": ["\xff"]}', 400, "invalid_json"),
    "UTF-16": ('{"texts": ["a"]}'.encode("utf-16"), 400, "invalid_json"),
    "a lone surrogate": (b'{"texts": ["\\ud800"]}', 400, "invalid_json"),
    "deep nesting": (b'{"texts": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400, "invalid_json"),
    "a key twice": (b'{"texts": ["a"], "texts": ["b"]}', 400, "invalid_json"),
    "a list": (b'["a"]', 422, "invalid_value"),
    "no texts": (b"{}", 422, "missing_input"),
    "an empty list": (b'{"texts": []}', 422, "no_texts"),
    "a number": (b'{"texts": [1]}', 422, "invalid_value"),
    "null": (b'{"texts": [null]}', 422, "invalid_value"),
    "too many": (json.dumps({"texts": ["a"] * 17}).encode(), 422, "too_many_texts"),
    "too long": (json.dumps({"texts": ["a" * 2001]}).encode(), 422, "text_too_long"),
    "too large": (json.dumps({"texts": ["a" * 30_000]}).encode(), 413, "body_too_large"),
    "pairs": (b'{"pairs": [["a", "b"]]}', 422, "wrong_kind"),
    "tokens": (b'{"tokens": [["a"]]}', 422, "wrong_kind"),
    "a question": (b'{"question": "a", "context": "b"}', 422, "wrong_kind"),
    "a context": (b'{"context": "b"}', 422, "missing_input"),
    "both": (b'{"texts": ["a"], "tokens": [["a"]]}', 422, "missing_input"),
    "thousands of digits": (b'{"texts": ["a"], "deadline_ms": %s}' % (b"9" * 5000), 400, "invalid_json"),
    "a misspelt field": (b'{"text": ["a"]}', 422, "unknown_field"),
    "another bundle": (b'{"texts": ["a"], "model": "snip"}', 404, "unknown_model"),
    "another sub-network": (b'{"texts": ["a"], "subnet": "w0.5d0.5"}', 404, "unknown_subnet"),
    **{
        f"deadline {value}": (f'{{"texts": ["a"], "deadline_ms": {value}}}'.encode(), status, code)
        for value, status, code in (
            *((value, 422, "invalid_value") for value in ("0", "-1", "-0.0", '"15"', "true", "1e999", "[]")),
            *((value, 422, "invalid_value") for value in ("NaN", "Infinity", "-Infinity")),
        )
    },
    **{
        f"top_k {value}": (f'{{"texts": ["a"], "top_k": {value}}}'.encode(), 422, "invalid_value")
        for value in ("0", "-1", "1.5", "true", '"3"', "NaN")
    },
}


@pytest.mark.parametrize("body", BAD)
def test_a_bad_body_is_refused_in_one_form(server, bundle, body):
    content, status, code = BAD[body]
    answer = server.client.post("/predict", content=content)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert set(answer.json()) == {"error", "code", "request_id"}
    assert (
        "\n" not in answer.json()["error"] and str(bundle.parent) not in answer.text and "Traceback" not in answer.text
    )
    assert server.predict(TEXTS[0])["predictions"]


INFER_BAD = {
    "no inputs": ({}, 422),
    "an empty list": ({"inputs": []}, 422),
    "no texts": ({"inputs": [tensor()]}, 422),
    "another input": ({"inputs": [tensor("a", name="texts")]}, 422),
    "one too many": ({"inputs": [tensor("a"), tensor("b", name="text_pair")]}, 422),
    "the same twice": ({"inputs": [tensor("a"), tensor("b")]}, 422),
    "numbers": ({"inputs": [tensor(1)]}, 422),
    "another type": ({"inputs": [tensor("a", datatype="FP32")]}, 422),
    "another shape": ({"inputs": [tensor("a", shape=[2])]}, 422),
    "a negative shape": ({"inputs": [tensor("a", shape=[-1])]}, 422),
    "three dimensions": ({"inputs": [tensor("a", shape=[1, 1, 1])]}, 422),
    "rows in one": ({"inputs": [tensor("a", shape=[3, 1], data=[["a", "b"], ["c"]])]}, 422),
    "a huge shape": ({"inputs": [tensor("a", shape=[2**62, 2**62])]}, 422),
    "another output": ({"inputs": [tensor("a")], "outputs": [{"name": "logits"}]}, 422),
    "an unknown parameter": ({"inputs": [tensor("a")], "parameters": {"deadline": 1}}, 422),
    "another sub-network": ({"inputs": [tensor("a")], "parameters": {"subnet": "x"}}, 404),
}


@pytest.mark.parametrize("body", INFER_BAD)
def test_a_bad_inference_request_is_refused(server, body):
    content, status = INFER_BAD[body]
    answer = server.client.post("/v2/models/snips/infer", json=content)
    assert answer.status_code == status, answer.text
    assert isinstance(answer.json()["error"], str)


def test_other_paths_methods_and_protocols_are_refused_in_the_same_form(server):
    client = server.client
    for method, path, status in (
        ("GET", "/", 404),
        ("GET", "/etc/passwd", 404),
        ("GET", "/static-offline-docs/../../settings.py", 404),
        ("GET", "/predict", 405),
        ("POST", "/health", 405),
        ("GET", "/v2/models/other", 404),
        ("POST", "/v2/models/other/infer", 404),
    ):
        body = {"inputs": [tensor("a")]} if path.startswith("/v2") and method == "POST" else None
        answer = client.request(method, path, json=body)
        assert answer.status_code == status and set(answer.json()) == {"error", "code", "request_id"}, path
    binary = client.post("/v2/models/snips/infer", content=b"x", headers={"Inference-Header-Content-Length": "1"})
    assert binary.status_code == 415
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 ") and b'"code": "invalid_http"' in answer


def test_bodies_in_parts_are_read_compressed_ones_are_refused_and_probes_may_ask_for_the_head(server):
    client = server.client
    parts = client.post("/predict", content=iter([b'{"texts": ["pl', b'ay some jazz"]}']))
    assert parts.json()["predictions"] == server.predict("play some jazz")["predictions"]
    body = gzip.compress(b'{"texts": ["play some jazz"]}')
    answer = client.post("/predict", content=body, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (415, "compressed_body")
    plain = client.post("/predict", content=b'{"texts": "hi"}', headers={"Content-Encoding": "identity"})
    assert plain.status_code == 200
    for path in ("/health", "/v2/health/live", "/v2/health/ready"):
        head, whole = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == whole.headers["content-length"]
    assert client.head("/predict").status_code == 405
    options = client.options("/predict")
    assert (options.status_code, options.headers["allow"]) == (405, "POST")


def test_the_metrics_and_the_log_tell_what_happened(server):
    before = server.client.get("/metrics").text
    server.predict("a secret text", "another", subnet=SIZES[1], deadline_ms=1e-6)
    after = server.client.get("/metrics").text

    def value(text, name):
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    for name, added in (
        (f'dynabert_texts_total{{model="snips",subnet="{SIZES[1]}"}}', 2),
        ('dynabert_late_answers_total{model="snips"}', 1),
        ('dynabert_latency_seconds_count{model="snips"}', 1),
        ('dynabert_requests_total{path="/predict",status="200"}', 1),
    ):
        assert value(after, name) - value(before, name) == added, name
    assert value(after, 'dynabert_waiting_requests{model="snips"}') == 0
    event = [event for event in server.events("request") if event.get("subnet") == SIZES[1]][-1]
    assert (event["status"], event["rows"], event["model"], event["on_time"]) == (200, 2, "snips", False)
    assert "secret" not in json.dumps(server.log)


def test_the_page_of_the_api_and_its_scripts_come_from_the_server(server):
    page = server.client.get("/docs").text
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sources and all(source.startswith("/") for source in sources)
    assert all(server.client.get(source).status_code == 200 for source in sources)
    schema = server.client.get("/openapi.json").json()
    assert {"/predict", "/health", "/metrics", "/v2/models/{name}/infer"} <= set(schema["paths"])
    body = schema["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"texts", "pairs", "question", "context", "tokens", "deadline_ms", "subnet", "top_k"} < set(
        body["properties"]
    )
    assert "$defs" not in json.dumps(schema)
