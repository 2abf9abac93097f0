"""`dynabert compress sparse`: an ordinary folder whose zeros later training keeps."""

import gzip

import numpy as np
import pytest

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.supernet.sparsity import find_matrices, measure_sparsity

pytestmark = pytest.mark.reference

PARTS = ("attention", "ffn")


@pytest.fixture(scope="module")
def sparse(chain, task, make_once):
    """The supernet of the short run, made sparse while it learned."""
    config = db.CompressConfig(method="sparse", sparsity=0.5, finetune_steps=6, learning_rate=1e-3)
    return make_once("sparse", lambda folder: db.compress(chain / "depth", task, output_dir=folder, config=config))


def zeros_of(folder):
    matrices = find_matrices(db.load_model(folder), PARTS)
    return [matrix.numpy() == 0 for part in PARTS for matrix in matrices[part]]


def test_it_has_the_requested_sparsity_and_records_the_savings(chain, sparse, task):
    (record,) = read_metadata(sparse).compression
    assert (record["method"], record["sparsity"], record["criterion"]) == ("sparse", 0.5, "magnitude")
    assert record["before"]["zeros"] == {"attention": 0, "ffn": 0}
    assert record["after"]["zeros"] == measure_sparsity(db.load_model(sparse), PARTS)
    assert record["after"]["zeros"] == pytest.approx({"attention": 0.5, "ffn": 0.5}, abs=1e-3)
    for side, folder in (("before", chain / "depth"), ("after", sparse)):
        content = (folder / "model.safetensors").read_bytes()
        assert record[side]["gzip_bytes"] == pytest.approx(len(gzip.compress(content, 6)), rel=0.01)
    assert record["after"]["gzip_bytes"] < record["before"]["gzip_bytes"]
    assert record["after"]["bytes"] == record["before"]["bytes"]
    trained, before = (to_arrays(db.load_model(folder).model) for folder in (sparse, chain / "depth"))
    name = next(name for name in trained if name.endswith("layers.0.linear1.weight"))
    kept = trained[name] != 0
    assert (trained[name][kept] != before[name][kept]).all()


def test_the_command_prints_it(dynabert, finetuned, tmp_path):
    words = ("--sparsity", 0.3, "--criterion", "gradient", "--output_dir", tmp_path / "new")
    done = dynabert("compress", "sparse", finetuned, *words)
    assert done.code == 0, done.err
    assert "weights as gzip -6" in done.out
    assert "zeros in attention" in done.out
    assert "its own file is as large, and it is not faster" in done.out
    assert read_metadata(tmp_path / "new").sparse_parts == PARTS


def test_a_finetuning_keeps_its_zeros(sparse, task, tmp_path):
    config = db.FinetuneConfig(max_steps=3, learning_rate=1e-2, holdout_size=8)
    db.finetune(sparse, task, config=config, max_seq_length=16, output_dir=tmp_path / "new")
    for now, before in zip(zeros_of(tmp_path / "new"), zeros_of(sparse), strict=True):
        np.testing.assert_array_equal(now, before)


@pytest.mark.full
def test_it_keeps_its_sparsity_after_rewiring_and_training(dynabert, sparse, tmp_path):
    """Rewiring moves them with their rows and columns; the sub-networks' gradients leave them alone."""
    assert dynabert("rewire", sparse, "--output_dir", tmp_path / "rewired").code == 0
    words = ("--teacher_name_or_path", sparse, "--max_steps", 3, "--learning_rate", "1e-2")
    done = dynabert("train_width", tmp_path / "rewired", *words, "--output_dir", tmp_path / "width")
    assert done.code == 0, done.err
    for now, before in zip(zeros_of(tmp_path / "width"), zeros_of(tmp_path / "rewired"), strict=True):
        np.testing.assert_array_equal(now, before)


@pytest.mark.full
def test_a_part_of_it_keeps_its_zeros_when_pieces_go_and_it_is_exported(dynabert, sparse, tmp_path):
    assert dynabert("extract", sparse, "w0.50d0.50", "--output_dir", tmp_path / "part").code == 0
    words = ("--vocab_size", 2000, "--finetune_steps", 2, "--learning_rate", "1e-2", "--output_dir", tmp_path / "small")
    done = dynabert("compress", "vocabulary", tmp_path / "part", *words)
    assert done.code == 0, done.err
    assert "zeros in ffn" in done.out
    for now, before in zip(zeros_of(tmp_path / "small"), zeros_of(tmp_path / "part"), strict=True):
        np.testing.assert_array_equal(now, before)
    bundle = db.export(tmp_path / "small", tmp_path / "bundle")
    assert len(db.Predictor(bundle)(["play some jazz"])) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "sparse needs --sparsity"),
        (["--sparsity", 0], "--sparsity is more than 0"),
        (["--sparsity", 1], "--sparsity is less than 1"),
        (["--sparsity", 0.5, "--criterion", "random"], "'random' is not one of 'magnitude', 'gradient'"),
        (["--sparsity", 0.5, "--rank_share", 0.3], "--rank_share is for low_rank, not for sparse"),
        (["--sparsity", 0.5, "--part", "embedding", "--criterion", "gradient"], "words that the training texts lack"),
    ],
)
def test_invalid_requests_are_one_line_and_leave_no_files(dynabert, finetuned, tmp_path, words, message):
    done = dynabert("compress", "sparse", finetuned, *words, "--output_dir", tmp_path / "new")
    assert done.code == 2
    (line,) = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert message in line
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_already_as_sparse_is_refused(dynabert, sparse, tmp_path):
    done = dynabert("compress", "sparse", sparse, "--sparsity", 0.4, "--output_dir", tmp_path / "new")
    assert "0.5 of the weights of attention are zero already: pass a larger one" in done.err
    done = dynabert("compress", "low_rank", sparse, "--rank_share", 0.2, "--output_dir", tmp_path / "new")
    assert "first low_rank, then sparse" in done.err
    assert not (tmp_path / "new").exists()
