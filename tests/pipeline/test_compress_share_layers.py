"""`dynabert compress share_layers`: layers that share their weights are stored once, in the folder and in bundles."""

import json

import pytest
from conftest import FORMATS, make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.compressing.share_layers import compress_share_layers
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.supernet.shared_layers import find_groups

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def shared(chain, task, make_once):
    """The supernet of the short run, whose four layers share the weights of two."""
    config = db.CompressConfig(method="share_layers", groups=2, finetune_steps=4, learning_rate=1e-3)
    return make_once("shared", lambda folder: db.compress(chain / "depth", task, output_dir=folder, config=config))


def groups_of(folder):
    return find_groups(db.load_model(folder).encoder.layers)


def test_the_record_counts_stored_parameters(chain, shared):
    (record,) = read_metadata(shared).compression
    assert (record["method"], record["groups"], record["start"]) == ("share_layers", 2, "first")
    model = db.load_model(shared)
    assert groups_of(shared) == (0, 0, 1, 1)
    assert record["after"]["params"] == sum(int(parameter.size) for parameter in model.parameters())
    layer = sum(int(parameter.size) for parameter in model.encoder.layers[0].parameters())
    assert record["before"]["params"] - record["after"]["params"] == 2 * layer
    assert abs((shared / "dynabert.safetensors").stat().st_size - record["after"]["bytes"]) < 20_000
    assert not (shared / "model.safetensors").exists()
    before, after = to_arrays(db.load_model(chain / "depth").model), to_arrays(model.model)
    assert set(after) < set(before)
    assert any((before[name] != array).any() for name, array in after.items() if ".encoder." in name)


@pytest.mark.full
def test_it_evaluates_extracts_and_searches(dynabert, shared, tmp_path):
    rows = json.loads(dynabert("evaluate", shared, "--grid", "--json").out)["rows"]
    assert len(rows) == 12
    space = db.load_model(shared).search_space()
    for row in rows:
        assert row["params"] == space.num_params(space.parse(row["subnet"]))
    assert dynabert("extract", shared, "w0.50d0.75", "--output_dir", tmp_path / "part").code == 0
    assert groups_of(tmp_path / "part") == (0, 0, 1)
    words = ("--max_params", "0.99e6", "--num_evaluations", 20, "--population_size", 4, "--score_on", "dev")
    done = dynabert("search", shared, *words, "--output_dir", tmp_path / "search")
    assert done.code == 0, done.err


@pytest.mark.full
def test_it_still_shares_after_rewiring_and_training(dynabert, shared, task, tmp_path):
    assert dynabert("rewire", shared, "--output_dir", tmp_path / "rewired").code == 0
    words = ("--teacher_name_or_path", shared, "--max_steps", 2, "--output_dir", tmp_path / "width")
    done = dynabert("train_width", tmp_path / "rewired", *words)
    assert done.code == 0, done.err
    assert groups_of(tmp_path / "width") == (0, 0, 1, 1)
    config = db.FinetuneConfig(max_steps=2, holdout_size=8)
    db.finetune(shared, task, config=config, max_seq_length=16, output_dir=tmp_path / "again")
    assert groups_of(tmp_path / "again") == (0, 0, 1, 1)


@pytest.mark.full
def test_other_methods_come_before_and_after_it(dynabert, shared, tmp_path):
    words = ("--vocab_size", 2000, "--output_dir", tmp_path / "few_pieces")
    assert dynabert("compress", "vocabulary", shared, *words).code == 0
    words = ("--rank_share", 0.25, "--output_dir", tmp_path / "products")
    assert dynabert("compress", "low_rank", tmp_path / "few_pieces", *words).code == 0
    words = ("--sparsity", 0.3, "--finetune_steps", 2, "--output_dir", tmp_path / "sparse")
    done = dynabert("compress", "sparse", tmp_path / "products", *words)
    assert done.code == 0, done.err
    methods = [record["method"] for record in read_metadata(tmp_path / "sparse").compression]
    assert methods == ["share_layers", "vocabulary", "low_rank", "sparse"]
    assert groups_of(tmp_path / "sparse") == (0, 0, 1, 1)
    bundle = db.export(tmp_path / "sparse", tmp_path / "bundle", subnets="w1.00d1.00 w0.50d0.50")
    assert len(db.Predictor(bundle)(["play some jazz"])) == 1


@pytest.fixture(scope="module")
def folders(chain, tmp_path_factory):
    """Models of four layers, three of which share the weights of another in the second one."""
    folder, source = tmp_path_factory.mktemp("models"), db.load_model(chain / "finetune")
    large = make_bert(hidden_size=64, num_attention_heads=4, intermediate_size=256, vocab_size=30522)
    model = db.Supernet(large, source.tokenizer, source.metadata)
    model.model.config.id2label = source.model.config.id2label
    model.save_pretrained(folder / "four")
    config = db.CompressConfig(method="share_layers", groups=1)
    compress_share_layers(model, None, config)[0].save_pretrained(folder / "one")
    return folder


BUNDLES = [
    (form, precision) for form in FORMATS for precision in ("fp32", "int8") if (form, precision) != ("pir", "int8")
]


@pytest.mark.full
@pytest.mark.parametrize(("form", "precision"), BUNDLES)
def test_a_bundle_holds_a_group_once(folders, tmp_path, request, form, precision):
    """Without three layers' matrices a file is as much smaller as they are large."""
    if form == "lite":
        request.getfixturevalue("converter")
    sizes = []
    for name in ("four", "one"):
        bundle = db.export(folders / name, tmp_path / name, format=form, precision=precision)
        files = [path for path in bundle.iterdir() if path.name.startswith("model") and "x86" not in path.name]
        sizes.append(sum(path.stat().st_size for path in files))
    weights = 3 * (4 * 64 * 64 + 2 * 64 * 256)
    if (form, precision) == ("paddle", "int8"):  # joins query, key and value, but not those of the first token alone
        weights -= 3 * 64 * 64
    assert sizes[0] - sizes[1] > 0.95 * weights * (4 if precision == "fp32" else 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "share_layers needs --groups"),
        (["--groups", 0], "--groups is 0, and the model has 4 layers: pass 1 or 2"),
        (["--groups", 3], "--groups is 3, and the model has 4 layers: pass 1 or 2"),
        (["--groups", 4], "--groups is 4, and the model has 4 layers: pass 1 or 2"),
        (["--groups", 2, "--start", "middle"], "'middle' is not one of 'mean', 'first', 'last'"),
        (["--groups", 2, "--sparsity", 0.5], "--sparsity is for sparse, not for share_layers"),
    ],
)
def test_invalid_requests_are_one_line_and_leave_no_files(dynabert, finetuned, tmp_path, words, message):
    done = dynabert("compress", "share_layers", finetuned, *words, "--output_dir", tmp_path / "new")
    assert done.code == 2
    (line,) = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert message in line
    assert not (tmp_path / "new").exists()


def test_a_folder_that_shares_is_refused(dynabert, shared, tmp_path):
    done = dynabert("compress", "share_layers", shared, "--groups", 1, "--output_dir", tmp_path / "new")
    assert "share their weights already" in done.err
    assert not (tmp_path / "new").exists()
