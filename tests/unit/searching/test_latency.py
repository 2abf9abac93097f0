"""The table of latencies: measured, cached and rebuilt; and measured sub-networks."""

import json
import logging
from copy import deepcopy
from dataclasses import replace

import numpy as np
import paddle
import pytest

import dynabert_paddle as db
from dynabert_paddle.errors import UsageError
from dynabert_paddle.runtime.environment import describe_environment
from dynabert_paddle.searching import latency
from dynabert_paddle.searching.cost import CostModel
from dynabert_paddle.searching.latency import latency_table, measure_latency
from dynabert_paddle.searching.latency_setting import LatencySetting
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.low_rank_linear import shape_products

SETTING = LatencySetting(batch_size=1, seq_length=8)


@pytest.fixture(scope="module")
def supernet(tiny_folder):
    """One layer of the small model."""
    return db.extract(db.load_model(tiny_folder), Subnet.parse("l0h4f48"))


@pytest.fixture(scope="module")
def built(supernet, tmp_path_factory):
    """A table, and its cache folder; of times as they might be, because to measure 45 sub-networks takes a minute.

    `test_subnets_are_measured` measures two, and a test of the embedding ranks a whole table.
    """

    def measure(supernet, subnets, setting):
        noise = np.random.default_rng().uniform(1, 1.05, len(subnets))
        sizes = [sum(subnet.heads) / 4 + sum(subnet.neurons) / 48 for subnet in subnets.values()]
        return {name: float((1 + size) * factor) for name, size, factor in zip(subnets, sizes, noise, strict=True)}

    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "measure_latency", measure)
        return latency_table(supernet, SETTING, cache_dir=folder), folder


def cache_file(folder):
    (path,) = folder.iterdir()
    return path


def copy_of(built, tmp_path, change):
    """Copy the cached table to another cache, with its JSON changed."""
    _, folder = built
    path = tmp_path / cache_file(folder).name
    content = json.loads(cache_file(folder).read_text(encoding="utf-8"))
    change(content)
    content.pop("checksum", None)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_table_describes_its_measurement(built):
    table, folder = built
    described = describe_environment()
    assert table.machine == {"processor": described["processor"], "cores": described["cores"]}
    assert table.setting == SETTING
    assert len(table.checks_ms) > 5
    assert 0 <= table.mean_error < 1
    assert cache_file(folder).name.startswith("latency-")


def test_a_cached_table_is_reused(supernet, built):
    table, folder = built
    before = cache_file(folder).stat().st_mtime_ns
    assert latency_table(supernet, SETTING, cache_dir=folder) == table  # two tables never agree
    assert cache_file(folder).stat().st_mtime_ns == before


@pytest.fixture
def remeasured(built, monkeypatch):
    """Replace another measurement, which takes long, by the table that was measured."""
    monkeypatch.setattr(latency, "_build", lambda *_: built[0])
    return built[0]


def test_a_model_of_products_has_another_table(supernet):
    products = deepcopy(supernet)
    shape_products(products.encoder.layers, [{"linear1": 4}])
    shape = latency._shape_of(products)
    assert shape["layer_ranks"] == [[None] * 4 + [4, None]]
    assert shape == json.loads(json.dumps(shape))  # else a cached table never fits
    assert "layer_ranks" not in latency._shape_of(supernet)  # tables of earlier versions fit


def test_a_table_of_another_machine_is_rebuilt(supernet, built, remeasured, tmp_path, caplog):
    def move(content):
        content["machine"] = {"processor": "Another CPU", "cores": 96}

    path = copy_of(built, tmp_path, move)
    assert latency_table(supernet, SETTING, cache_dir=tmp_path) == remeasured
    assert f"{path} comes from another machine (processor Another CPU, cores 96), and is measured" in caplog.text
    assert path.read_bytes() == cache_file(built[1]).read_bytes()


@pytest.mark.parametrize(
    "change", [{"batch_size": 2}, {"seq_length": 9}, {"num_threads": 7}, {"precision": "bf16"}, {"format": "onnx"}]
)
def test_another_setting_has_another_table(supernet, remeasured, tmp_path, change):
    for setting in (SETTING, replace(SETTING, **change)):
        latency_table(supernet, setting, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_table_is_rebuilt_on_demand(supernet, built, remeasured, tmp_path):
    path = copy_of(built, tmp_path, lambda content: content.update(base_ms=1234.5))
    assert latency_table(supernet, SETTING, cache_dir=tmp_path, rebuild=True) == remeasured
    assert path.read_bytes() == cache_file(built[1]).read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.clear(),
        lambda content: content.update(format_version=99),
        lambda content: content.pop("ffn_ms"),
        lambda content: content.update(ffn_ms=[]),
        lambda content: content.update(base_ms=float("nan")),
        lambda content: content.update(checks_ms={"w9": 1.0}),
        lambda content: content["checks_ms"].update({"l0h4f48": 0.0}),
        lambda content: content["setting"].update(precision="int3"),
        lambda content: content["setting"].update(batch_size=2),
        lambda content: content["model"].update(hidden_size=64),
    ],
)
def test_a_damaged_table_is_rebuilt(supernet, built, remeasured, tmp_path, caplog, damage):
    path = copy_of(built, tmp_path, damage)
    assert latency_table(supernet, SETTING, cache_dir=tmp_path) == remeasured
    assert f"{path} is damaged, and is measured anew" in caplog.text
    assert path.read_bytes() == cache_file(built[1]).read_bytes()


def test_a_truncated_table_is_rebuilt(supernet, built, remeasured, tmp_path):
    path = copy_of(built, tmp_path, dict)
    path.write_bytes(path.read_bytes()[:100])
    assert latency_table(supernet, SETTING, cache_dir=tmp_path) == remeasured
    assert path.read_bytes() == cache_file(built[1]).read_bytes()


def test_a_cache_that_cannot_be_written_is_only_a_warning(supernet, remeasured, tmp_path, caplog):
    (tmp_path / "file").touch()
    assert latency_table(supernet, SETTING, cache_dir=tmp_path / "file") == remeasured
    assert "is not cached" in caplog.text


def test_estimates_are_additive_and_monotonic(built):
    table, _ = built
    last, other, both, three = map(Subnet.parse, ("l2h3f48", "l1h3f48", "l0h1f32-l2h3f48", "l0h1f32-l1h3f48-l2h3f48"))
    assert table.estimate(last) == table.estimate(other)
    added = table.estimate(both) - table.estimate(last)
    assert table.estimate(three) - table.estimate(Subnet.parse("l1h3f48-l2h3f48")) == pytest.approx(added)
    for sizes in ([(h, 32) for h in range(1, 5)], [(2, f) for f in range(1, 49)]):
        for subnets in (
            [Subnet((0,), (heads,), (neurons,)) for heads, neurons in sizes],
            [Subnet((0, 1), (heads, 1), (neurons, 1)) for heads, neurons in sizes],
        ):
            estimates = [table.estimate(subnet) for subnet in subnets]
            assert estimates == sorted(estimates)
    # Knots: 2 ms for no heads, 6 ms for four; 0 ms for no neurons, 8 ms for 32.
    knots = {"attention_ms": ((0, 2), (4, 6)), "ffn_ms": ((0, 0), (32, 8))}
    handmade = replace(table, base_ms=1.0, last_head_ms=0.5, last_neuron_ms=0.25, **knots)
    assert handmade.estimate(Subnet((0, 1, 3), (1, 2, 3), (8, 32, 4))) == pytest.approx(1 + (3 + 2) + (4 + 8) + 1.5 + 1)


def test_costs_include_the_estimate(supernet, built):
    table, _ = built
    costs = CostModel(supernet.search_space(), table).costs(supernet.full)
    assert costs["latency_ms"] == table.estimate(supernet.full)


def test_subnets_are_measured(supernet, caplog, monkeypatch):
    monkeypatch.setattr(latency, "_SECONDS_BETWEEN_LINES", 0)
    subnets = {"full": supernet.full, "small": Subnet.parse("l0h1f16")}
    setting = LatencySetting(batch_size=2, seq_length=8, num_threads=1, precision="bf16")
    with caplog.at_level(logging.INFO, "dynabert_paddle"):
        measured = measure_latency(supernet, subnets, setting)
    shown = [record.message for record in caplog.records if record.message.startswith("latency ")]
    assert len(shown) >= 2 and shown[-1] == "latency 4/4"  # both exported and timed, by the other process
    assert list(measured) == ["full", "small"]
    assert all(0 < ms < 1000 for ms in measured.values())


def test_the_format_that_will_be_exported_is_measured(supernet):
    setting = LatencySetting(batch_size=1, seq_length=8, format="onnx", precision="int8", num_threads=1)
    assert str(setting) == "1x8 tokens, onnx int8, cpu, 1 threads"
    assert set(measure_latency(supernet, {"full": supernet.full}, setting)) == {"full"}


def test_files_name_a_format_only_where_one_was_given(built):
    _, folder = built
    assert "format" not in json.loads(cache_file(folder).read_text(encoding="utf-8"))["setting"]
    assert "format" not in SETTING.to_dict() and replace(SETTING, format="onnx").to_dict()["format"] == "onnx"


def test_impossible_measurements_are_refused(supernet):
    with pytest.raises(UsageError, match="seq_length is 129, more than the model's 128 positions"):
        measure_latency(supernet, {"full": supernet.full}, LatencySetting(seq_length=129))
    if not paddle.is_compiled_with_cuda():
        with pytest.raises(UsageError, match="'gpu:0': the installed Paddle is a CPU build"):
            latency_table(supernet, LatencySetting(device="gpu:0"))
    with pytest.raises(UsageError, match="keeps layer 5"):
        measure_latency(supernet, {"deep": Subnet((5,), (1,), (1,))}, SETTING)
    assert measure_latency(supernet, {}, SETTING) == {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size is at least 1"),
        ({"num_threads": 0}, "num_threads is at least 1"),
        ({"device": "tpu"}, "not one of cpu, gpu, gpu:N"),
        ({"precision": "int8", "format": "pir"}, "format pir is measured in fp32 or bf16, not 'int8'"),
        ({"precision": "bf16", "format": "onnx"}, "format onnx is measured in fp32 or int8, not 'bf16'"),
        ({"format": "lite"}, "in the formats paddle, pir, openvino, onnx, not 'lite'"),
        ({"format": "openvino", "device": "gpu:0"}, "openvino is supported only on CPUs"),
        ({"precision": "bf61"}, "Did you mean 'bf16'"),
        ({"precision": "bf16", "device": "gpu:0"}, "only on CPUs"),
    ],
)
def test_invalid_settings_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        LatencySetting(**fields)


def test_the_default_of_threads_is_all_cores():
    assert LatencySetting().num_threads == describe_environment()["cores"]
    assert str(LatencySetting(num_threads=3)) == "1x64 tokens, fp32, cpu, 3 threads"
