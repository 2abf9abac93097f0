"""Embedding ranks from the stages to bundles: trained, scored, extracted, trained on, exported, predicted with."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import FORMATS, make_batch

import dynabert_paddle as db
from dynabert_paddle.bundle.engines import open_engine
from dynabert_paddle.bundle.manifest import read_bundle
from dynabert_paddle.bundle.members import open_subnet
from dynabert_paddle.errors import UsageError
from dynabert_paddle.exporting.lite_converter import run_x86
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.searching.latency import latency_table
from dynabert_paddle.searching.latency_setting import LatencySetting
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.supernet import to_tensors

GRID = [
    f"w{width}d{depth}{rank}"
    for depth in ("1.00", "0.50")
    for width in ("1.00", "0.50")
    for rank in ("", "r0.50", "r0.25")
]
UNEVEN = "l0h3f40-l2h1f16-l3h4f48-e5"
QUICK_EXPORTS = [(FORMATS[0], UNEVEN), ("onnx", UNEVEN)]
SAME = {"rtol": 0, "atol": 1e-5}


def settings(tiny_folder, tiny_data, folder, *more):
    words = ["stages=[finetune, rewire, width, depth]", "task.max_seq_length=16", "train.max_steps=6"]
    words += ["train.learning_rate=2e-3", "train.per_device_train_batch_size=16", "train.eval_steps=3"]
    words += ["space.width_mult_list=1.0 0.5", "space.depth_mult_list=1.0 0.5", *more]
    flags = {"model_name_or_path": str(tiny_folder), "task.data_dir": str(tiny_data), "output_dir": str(folder)}
    return db.load_config(None, words, flags)


RANKS = "space.embedding_rank_mult_list=1.0 0.5 0.25"


@pytest.fixture(scope="module")
def run_folder(make_once, tiny_folder, tiny_data):
    return make_once("ranks", lambda folder: db.run(settings(tiny_folder, tiny_data, folder, RANKS)))


@pytest.fixture(scope="module")
def supernet(run_folder):
    return db.load_model(run_folder / "depth")


@pytest.fixture(scope="module")
def small_folder(supernet, tmp_path_factory):
    subnet = supernet.search_space().parse(UNEVEN)
    return db.extract(supernet, subnet).save_pretrained(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture(scope="module")
def batch():
    inputs = make_batch(seq_length=16)
    del inputs["labels"]
    return inputs


def logits(model, batch, subnet=None):
    return model(subnet, **to_tensors(batch)).logits.numpy()


def test_a_run_trains_and_scores_every_rank(run_folder, supernet, dynabert):
    rows = json.loads((run_folder / "grid.json").read_text())["rows"]
    assert [row["subnet"] for row in rows] == GRID
    space = supernet.search_space()
    for row in rows:
        small = db.extract(supernet, space.parse(row["subnet"]))
        assert row["params"] == sum(parameter.size for parameter in small.model.parameters())
    done = dynabert("evaluate", run_folder / "depth", "--grid", "--json")
    assert json.loads(done.out)["rows"] == rows
    metadata = read_metadata(run_folder / "depth")
    assert metadata.space["rank_mults"] == [1.0, 0.5, 0.25]
    assert set(metadata.metrics["holdout"]) == set(GRID)
    assert read_metadata(run_folder / "width").space["rank_mults"] == [1.0, 0.5, 0.25]
    assert "rank_mults" not in read_metadata(run_folder / "finetune").space
    before, after = (db.load_model(run_folder / stage).model.state_dict() for stage in ("rewire", "depth"))
    for name in ("weight", "up", "down"):
        name = f"bert.embeddings.word_embeddings.{name}"
        assert np.abs(before[name].numpy() - after[name].numpy()).max() > 1e-4, name


def test_rewiring_keeps_the_logits_with_ranks(run_folder, batch):
    finetuned, rewired = (db.load_model(run_folder / stage) for stage in ("finetune", "rewire"))
    expected = logits(finetuned, batch)
    np.testing.assert_allclose(logits(rewired, batch), expected, **SAME)
    without = replace(rewired.full, embedding_rank=31)
    assert np.abs(logits(rewired, batch, without) - expected).max() > 1e-5


def test_a_finished_run_is_skipped_and_one_of_other_ranks_is_refused(run_folder, tiny_folder, tiny_data, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    before = (folder / "depth" / "dynabert.json").stat().st_mtime_ns
    rows = db.run(settings(tiny_folder, tiny_data, folder, RANKS))
    assert [row["subnet"] for row in rows] == GRID
    assert (folder / "depth" / "dynabert.json").stat().st_mtime_ns == before
    (folder / "run.yaml").unlink()
    for ranks, seen in (((), r"\[1.0\]"), (("space.embedding_rank_mult_list=1.0 0.5",), r"\[1.0, 0.5\]")):
        with pytest.raises(UsageError, match=rf"rank_mults = \[1.0, 0.5, 0.25\], this run has {seen}"):
            db.run(settings(tiny_folder, tiny_data, folder, *ranks))


def test_a_run_that_was_finished_without_ranks_does_not_get_them_in_silence(chain, tmp_path):
    folder = shutil.copytree(chain, tmp_path / "run")
    config = db.load_config(folder / "run.yaml", [RANKS])
    with pytest.raises(UsageError, match=r"rewire was made with rank_mults = \[1.0\], this run has \[1.0, 0.5, 0.25\]"):
        db.run(config)


def test_single_stages_take_the_ranks_from_the_model_before(dynabert, run_folder, tiny_data, tmp_path):
    words = ("--output_dir", tmp_path / "rewire", "--embedding_rank_mult_list", "1.0, 0.25")
    done = dynabert("rewire", run_folder / "finetune", *words)
    assert done.code == 0, done.err
    done = dynabert("train_width", tmp_path / "rewire", "--output_dir", tmp_path / "width", "--max_steps", 1)
    assert done.code == 0, done.err
    metadata = read_metadata(tmp_path / "width")
    assert metadata.space["rank_mults"] == [1.0, 0.25]
    assert {"w0.25d1.00", "w0.25d1.00r0.25"} < set(metadata.metrics["holdout"])
    assert "of the stages before are not trained here" not in done.err


def test_a_stage_that_leaves_out_ranks_of_the_stages_before_says_so(dynabert, run_folder, tmp_path):
    words = ("--output_dir", tmp_path / "width", "--embedding_rank_mult_list", "1.0 0.5", "--max_steps", 1)
    done = dynabert("train_width", run_folder / "rewire", *words)
    assert done.code == 0, done.err
    assert "embedding ranks 0.25 of the stages before are not trained here" in done.err
    assert read_metadata(tmp_path / "width").space["rank_mults"] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", "finetune", "--subnet", "w0.50d0.50r0.25"), "this model's embedding is not elastic"),
        (("extract", "finetune", "l0h1f1-e8", "--output_dir", "OUT"), "this model's embedding is not elastic"),
        (
            ("train_width", "finetune", "--embedding_rank_mult_list", "1.0 0.5", "--output_dir", "OUT"),
            "this model's embedding is not elastic: leave the rank out, or make it elastic with 'dynabert rewire",
        ),
        (("evaluate", "depth", "--subnet", "l0h1f1-e33"), "wants rank 33 of the embedding, which has 32"),
        (("extract", "depth", "w0.50d0.50r0.01", "--output_dir", "OUT"), "leaves no component of 32"),
        (("extract", "depth", "l0h1f1-e0", "--output_dir", "OUT"), "an embedding's rank is at least 1"),
        (("export", "finetune", "--subnet", "w1.00d1.00r0.5", "--output_dir", "OUT"), "embedding is not elastic"),
        (("rewire", "finetune", "--embedding_rank_mult_list", "1.5", "--output_dir", "OUT"), r"all lie in (0, 1]"),
        (("rewire", "finetune", "--embedding_rank_mult_list", "0", "--output_dir", "OUT"), r"all lie in (0, 1]"),
        (("rewire", "finetune", "--embedding_rank_mult_list", "0.01", "--output_dir", "OUT"), "leaves no component"),
    ],
)
def test_impossible_ranks_are_refused_in_one_line(dynabert, run_folder, tmp_path, words, message):
    verb, model, *rest = words
    rest = [tmp_path / "out" if word == "OUT" else word for word in rest]
    done = dynabert(verb, run_folder / model, *rest)
    assert done.code == 2, done.err
    assert message in done.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_small_model_evaluates_trains_on_teaches_and_extracts_again(
    dynabert, run_folder, supernet, small_folder, batch, tmp_path
):
    small = db.load_model(small_folder)
    np.testing.assert_allclose(logits(small, batch), logits(supernet, batch, Subnet.parse(UNEVEN)), **SAME)
    done = dynabert("evaluate", small_folder, "--json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)["rows"]
    assert row["params"] == sum(parameter.size for parameter in small.model.parameters())
    grid = ("--width_mult_list", "1.0", "--depth_mult_list", "1.0")
    done = dynabert("train_final", small_folder, "--output_dir", tmp_path / "final", "--max_steps", 2, *grid)
    assert done.code == 0, done.err
    trained = db.load_model(tmp_path / "final")
    assert trained.max_rank == 5
    table = "bert.embeddings.word_embeddings.weight"
    assert np.abs(trained.model.state_dict()[table].numpy() - small.model.state_dict()[table].numpy()).max() > 0
    again = db.extract(small, Subnet((0,), (2,), (20,), 3))
    assert again.model.state_dict()[table].shape == [30522, 3]
    teacher = db.extract(supernet, replace(supernet.full, embedding_rank=16)).save_pretrained(tmp_path / "teacher")
    words = ("--teacher_name_or_path", teacher, "--output_dir", tmp_path / "taught", "--max_steps", 1, *grid[:2])
    done = dynabert("train_width", run_folder / "rewire", *words)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("format", "name"),
    [
        pytest.param(format, name, marks=[] if (format, name) in QUICK_EXPORTS else pytest.mark.full_on_reference)
        for format, name in [(FORMATS[0], "w0.50d0.50r0.25"), *((format, UNEVEN) for format in FORMATS)]
        if format != "lite"
    ],
)
def test_an_exported_rank_is_the_slice(run_folder, supernet, batch, tmp_path, format, name):
    bundle = db.export(run_folder / "depth", tmp_path / "bundle", format=format, subnet=name)
    expected = logits(supernet, batch, supernet.search_space().parse(name))
    assert read_bundle(bundle)["subnet"] == name
    np.testing.assert_allclose(open_engine(bundle, read_bundle(bundle))(batch), expected, **SAME)
    assert len(db.Predictor(bundle)(["play some jazz", "what is the weather"])) == 2


@pytest.mark.full
@pytest.mark.skipif("paddle" not in FORMATS, reason="this line of Paddle does not write the legacy format")
@pytest.mark.parametrize("name", ["w0.50d0.50r0.25", UNEVEN])
def test_a_rank_in_paddle_lite_is_the_slice(run_folder, supernet, batch, converter, tmp_path, name):
    bundle = db.export(run_folder / "depth", tmp_path / "bundle", format="lite", subnet=name)
    (found,) = run_x86(bundle / "model_x86.nb", [batch], python=converter)
    np.testing.assert_allclose(found, logits(supernet, batch, supernet.search_space().parse(name)), rtol=0, atol=1e-4)


@pytest.mark.full
@pytest.mark.parametrize("format", [format for format in ("paddle", "openvino", "onnx") if "paddle" in FORMATS])
def test_a_rank_in_int8_is_small_and_close(run_folder, supernet, batch, tmp_path, format):
    bundle = db.export(
        run_folder / "depth",
        tmp_path / "bundle",
        format=format,
        precision="int8",
        subnet="w1.00d1.00r0.50",
        tolerance=1,
    )
    expected = logits(supernet, batch, supernet.search_space().parse("w1.00d1.00r0.50"))
    difference = np.abs(open_engine(bundle, read_bundle(bundle))(batch) - expected).max()
    assert difference < 0.1 * np.abs(expected).max(), difference
    weights = sum(path.stat().st_size for path in bundle.glob("model.*") if path.suffix in (".pdiparams", ".onnx"))
    assert weights < 1.4 * 30522 * 16 + 400_000  # a byte for each element of the table, and a scale for each row


@pytest.mark.skipif(not {"paddle", "pir"} & set(FORMATS), reason="no format of several sub-networks")
def test_members_of_a_bundle_share_the_components(run_folder, supernet, batch, tmp_path):
    names = ["w1.00d1.00", "w1.00d1.00r0.50", "w0.50d0.50r0.25", UNEVEN]
    bundle = db.export(run_folder / "depth", tmp_path / "bundle", subnets=names)
    description = read_bundle(bundle)
    for name in names:
        expected = logits(supernet, batch, supernet.search_space().parse(name))
        np.testing.assert_allclose(open_subnet(bundle, description, name)(batch), expected, **SAME)
    space = supernet.search_space()
    # The whole table, that of the highest rank, and little else.
    size = (bundle / "model.npz").stat().st_size
    assert size < 4 * (space.num_params(space.full) + 30522 * 16 + 16 * 32) + 20_000
    answer = db.AdaptivePredictor(bundle, num_threads=1)(["play some jazz"], deadline_ms=60_000)
    assert len(answer) == 1


def test_a_search_varies_the_rank_and_the_report_shows_it(dynabert, run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    words = ("--num_evaluations", 50, "--max_params", 3e5, "--score_on", "dev")
    done = dynabert("search", folder / "depth", *words)
    assert done.code == 0, done.err
    result = json.loads((folder / "depth" / "search" / "search.json").read_text())
    space = db.load_model(folder / "depth").search_space()
    for row in (*result["pareto"], result["best"]):
        assert row["params"] == space.num_params(space.parse(row["subnet"]))
    assert space.parse(result["best"]["subnet"]).embedding_rank is not None  # the whole embedding has 976,704
    done = dynabert("report", folder)
    assert done.code == 0, done.err
    page = (folder / "report.html").read_text()
    assert all(name in page for name in ("w0.50d0.50r0.25", "E: rank of the embedding", "embedding: rank 8 of 32"))


@pytest.mark.full
@pytest.mark.alone
def test_latency_of_a_rank_is_measured_and_estimated(run_folder, supernet, tmp_path):
    table = latency_table(supernet, LatencySetting(seq_length=16), cache_dir=tmp_path)
    assert any(Subnet.parse(name).embedding_rank for name in table.checks_ms)
    assert table.rank_ms >= 0
    assert latency_table(supernet, LatencySetting(seq_length=16), cache_dir=tmp_path) == table
