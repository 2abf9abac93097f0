"""`dynabert compress`: an ordinary model folder out, which does all that a model folder does."""

import json
import shutil

import numpy as np
import paddle
import pytest
from conftest import FORMATS

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone, to_arrays
from dynabert_paddle.compressing.texts import task_rows
from dynabert_paddle.training.evaluate import evaluate_named


@pytest.fixture(scope="module")
def products(chain, task, make_once):
    """The supernet of the short run, with linear layers of a low rank."""
    config = db.CompressConfig(method="low_rank", rank_share=0.25)
    return make_once("products", lambda folder: db.compress(chain / "depth", task, output_dir=folder, config=config))


@pytest.fixture(scope="module")
def small_folder(chain, task, make_once):
    """The supernet of the short run, with fewer pieces and positions."""
    config = db.CompressConfig(method="vocabulary", vocab_size=2000, max_positions=16)
    return make_once("few_pieces", lambda folder: db.compress(chain / "depth", task, output_dir=folder, config=config))


def read(folder):
    return json.loads((folder / "dynabert.json").read_text(encoding="utf-8"))


def test_command_and_function_write_the_same_files(dynabert, chain, small_folder, tmp_path):
    words = ("--vocab_size", 2000, "--max_positions", 16, "--output_dir", tmp_path / "new", "--json")
    done = dynabert("compress", "vocabulary", chain / "depth", *words)
    assert done.code == 0, done.err
    files = ("model.safetensors", "config.json", "tokenizer.json", "vocab.txt", "tokenizer_config.json")
    assert all((tmp_path / "new" / file).read_bytes() == (small_folder / file).read_bytes() for file in files)
    assert json.loads(done.out) == read(small_folder)["compression"][-1]
    assert f"wrote {tmp_path / 'new'}" in done.err


def test_the_record_describes_the_compression_and_keeps_the_task(chain, small_folder, task):
    source, small = read(chain / "depth"), read(small_folder)
    for key in ("stage", "task", "heads", "neurons", "space", "importance", "provenance"):
        assert small[key] == source[key], key
    (record,) = small["compression"]
    assert record["method"] == "vocabulary"
    assert record["vocab_size"] == [30522, 2000]
    assert record["max_positions"] == [128, 16]
    assert record["rows"] == 182
    assert 0 < record["pieces_per_row"][0] <= record["pieces_per_row"][1]
    assert record["rows_cut"][1] - record["rows_cut"][0] <= record["rows_newly_cut"]
    model = db.load_model(small_folder)
    assert record["after"]["params"] == sum(int(parameter.size) for parameter in model.parameters())
    assert record["before"]["params"] - record["after"]["params"] == (30522 - 2000 + 128 - 16) * 32
    assert abs((small_folder / "model.safetensors").stat().st_size - record["after"]["bytes"]) < 20_000
    (row,) = evaluate_named(model, task, ["w1.00d1.00"])
    assert record["after"]["metrics"] == {name: row[name] for name in task.metrics}


def test_stock_paddlenlp_reads_the_folder_and_cuts_texts_alike(small_folder, task):
    from paddlenlp.transformers import AutoTokenizer, BertForSequenceClassification

    model = db.load_model(small_folder)
    stock = BertForSequenceClassification.from_pretrained(str(small_folder))
    stock.eval()
    tokenizer = AutoTokenizer.from_pretrained(str(small_folder))
    texts = [text for (text,) in task_rows(task.dev)]
    ids, _ = model.tokenizer.encode(texts, max_seq_length=16)
    for text, row in zip(texts, ids, strict=True):
        assert tokenizer(text, max_length=16, truncation=True)["input_ids"] == row
        inputs = {"input_ids": paddle.to_tensor([row])}
        with paddle.no_grad():
            np.testing.assert_array_equal(stock(**inputs).numpy(), model(**inputs).logits.numpy())


each_method = pytest.mark.parametrize("method", ["small_folder", "products"])


@each_method
def test_it_evaluates_extracts_exports_and_predicts(dynabert, request, method, tmp_path):
    source = request.getfixturevalue(method)
    rows = json.loads(dynabert("evaluate", source, "--grid", "--json").out)["rows"]
    assert len(rows) == 12
    done = dynabert("extract", source, "w0.50d0.50", "--output_dir", tmp_path / "small")
    assert done.code == 0, done.err
    done = dynabert("export", tmp_path / "small", "--output_dir", tmp_path / "bundle")
    assert done.code == 0, done.err
    (prediction,) = db.Predictor(tmp_path / "bundle")(["play some jazz"])
    assert prediction.label in read(source)["task"]["labels"]
    assert read(tmp_path / "small")["compression"] == read(source)["compression"]
    bundle = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert bundle["vocab_size"] == (2000 if method == "small_folder" else 30522)
    small = db.load_model(tmp_path / "small")
    assert bundle["num_params"] == sum(int(parameter.size) for parameter in small.parameters())


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(form, marks=[] if form == "onnx" else pytest.mark.full_on_reference)
        for form in FORMATS
        if form not in ("paddle", "lite")
    ],
)
def test_products_are_exported_in_every_format(products, form, tmp_path):
    """An export compares its logits with the model's."""
    bundle = db.export(products, tmp_path / form, format=form, subnet="w0.50d0.75")
    assert len(db.Predictor(bundle)(["play some jazz", "what is the weather"])) == 2


@pytest.mark.full
def test_several_parts_with_products_are_in_one_bundle(products, tmp_path):
    bundle = db.export(products, tmp_path / "bundle", subnets="w1.00d1.00 w0.50d0.50")
    members = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))["members"]
    assert {member["subnet"] for member in members} == {"w1.00d1.00", "w0.50d0.50"}


@pytest.mark.full
@each_method
def test_it_is_trained_further_and_used_as_teacher(request, method, task, tmp_path):
    small_folder = request.getfixturevalue(method)
    steps = {"max_steps": 1, "holdout_size": 8}
    supernet = db.Supernet.from_pretrained(small_folder)
    space = supernet.search_space(width_mults=[1.0, 0.5], depth_mults=[1.0])
    db.train_width(
        supernet,
        db.load_model(small_folder),
        task,
        space,
        config=db.WidthConfig(**steps),
        output_dir=tmp_path / "width",
    )
    assert read(tmp_path / "width")["compression"] == read(small_folder)["compression"]
    config = db.FinetuneConfig(**steps)
    again = db.finetune(small_folder, task, config=config, max_seq_length=16, output_dir=tmp_path / "again")
    assert again.model.config.vocab_size == supernet.model.config.vocab_size
    assert again.search_space().layer_ranks == supernet.search_space().layer_ranks
    if method == "products":
        assert again.search_space().layer_ranks[0] == (8,) * 6


@pytest.mark.full
def test_the_source_model_is_the_teacher_of_its_low_rank_products(dynabert, chain, tmp_path):
    words = ("--rank_share", 0.2, "--finetune_steps", 4, "--learning_rate", "1e-3", "--output_dir", tmp_path / "new")
    done = dynabert("compress", "low_rank", chain / "depth", *words)
    assert done.code == 0, done.err
    (record,) = read(tmp_path / "new")["compression"]
    assert (record["method"], record["rank_share"]) == ("low_rank", 0.2)
    assert record["after"]["macs"] < record["before"]["macs"]
    for part in ("attention", "ffn"):
        assert record[f"{part}_output_error"] < record[f"{part}_output_error_of_svd"]
    assert "ffn output error" in done.out
    done = dynabert("compress", "low_rank", tmp_path / "new", "--rank_share", 0.1, "--output_dir", tmp_path / "twice")
    assert "products of a low rank already" in done.err
    assert not (tmp_path / "twice").exists()


@pytest.mark.full
def test_methods_follow_each_other(dynabert, products, tmp_path):
    done = dynabert("compress", "vocabulary", products, "--vocab_size", 2000, "--output_dir", tmp_path / "both")
    assert done.code == 0, done.err
    assert [record["method"] for record in read(tmp_path / "both")["compression"]] == ["low_rank", "vocabulary"]
    assert not (tmp_path / "both" / "model.safetensors").exists()
    assert db.load_model(tmp_path / "both").search_space().layer_ranks


def test_a_teacher_with_another_vocabulary_is_refused(dynabert, chain, small_folder, tmp_path):
    words = ("--teacher_name_or_path", chain / "finetune", "--max_steps", 1, "--output_dir", tmp_path / "new")
    done = dynabert("train_width", small_folder, *words)
    assert done.code == 2
    assert "the teacher has another vocabulary" in done.err
    assert not (tmp_path / "new").exists()


def test_a_masked_lm_of_the_full_vocabulary_is_refused_for_it(dynabert, small_folder, masked_lm, tmp_path):
    words = ("--model_name_or_path", small_folder, "--output_file", tmp_path / "more.tsv")
    done = dynabert("augment", "--masked_lm", masked_lm, *words)
    assert done.code == 2
    assert "name a masked LM with the backbone's vocabulary" in done.err
    assert not (tmp_path / "more.tsv").exists()


def test_an_extracted_model_is_compressed(dynabert, finetuned, tmp_path):
    assert dynabert("extract", finetuned, "w0.50d0.50", "--output_dir", tmp_path / "small").code == 0
    done = dynabert(
        "compress", "vocabulary", tmp_path / "small", "--vocab_size", 3000, "--output_dir", tmp_path / "new"
    )
    assert done.code == 0, done.err
    assert "30522" in done.out
    assert db.load_model(tmp_path / "new").full == db.Subnet((0, 1), (2, 2), (24, 24))


@pytest.mark.full
def test_the_source_model_is_the_default_teacher(dynabert, chain, tmp_path):
    words = ("--vocab_size", 1700, "--finetune_steps", 4, "--learning_rate", "1e-3", "--output_dir", tmp_path / "new")
    done = dynabert("compress", "vocabulary", chain / "depth", *words)
    assert done.code == 0, done.err
    (record,) = read(tmp_path / "new")["compression"]
    assert record["finetune_steps"] == 4
    assert read(tmp_path / "new")["stage"] == "depth"
    assert read(tmp_path / "new")["space"] == read(chain / "depth")["space"]
    trained = to_arrays(db.load_model(tmp_path / "new").model)
    words = ("--vocab_size", 1700, "--output_dir", tmp_path / "plain")
    assert dynabert("compress", "vocabulary", chain / "depth", *words).code == 0
    plain = to_arrays(db.load_model(tmp_path / "plain").model)
    assert any(not np.array_equal(trained[name], plain[name]) for name in plain)
    # What another verb has made is not replaced; its own folder is.
    words = ("--vocab_size", 1800, "--output_dir", tmp_path / "new")
    assert "exists: pass --overwrite_output_dir" in dynabert("compress", "vocabulary", chain / "depth", *words).err
    assert dynabert("compress", "vocabulary", chain / "depth", *words, "--overwrite_output_dir").code == 0
    assert read(tmp_path / "new")["compression"][0]["vocab_size"] == [30522, 1800]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vocabulary"], "vocabulary needs --vocab_size"),
        (["vocabulary", "--vocab_size", 2000, "--rank_share", 0.2], "--rank_share is for low_rank, not for vocabulary"),
        (["low_rank", "--rank_share", 0.2, "--max_positions", 16], "--max_positions is for vocabulary"),
        (["low_rank"], "low_rank needs --rank_share"),
        (["low_rank", "--rank_share", 0], "--rank_share is more than 0, not 0.0"),
        (["low_rank", "--rank_share", 0.2, "--part", "head"], "--part: 'head' is not allowed"),
        (["vocabulary", "--vocab_size", 1000], "pieces are needed"),
        (["vocabulary", "--vocab_size", 2000, "--text_file", "dev.tsv.gz"], "dev.tsv.gz"),
        (["vocabulary", "--vocab_size", 2000, "--max_seq_length", 24], "is read so here: leave out --max_seq_length"),
        (["vocabulry", "--vocab_size", 2000], "Did you mean 'vocabulary'?"),
    ],
)
def test_invalid_requests_are_one_line_and_leave_no_files(dynabert, finetuned, tmp_path, words, message):
    done = dynabert("compress", words[0], finetuned, *words[1:], "--output_dir", tmp_path / "new")
    assert done.code in (1, 2)
    (line,) = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert message in line
    assert not (tmp_path / "new").exists()


EACH_METHOD = {
    "vocabulary": ("--vocab_size", 2000),
    "low_rank": ("--rank_share", 0.25),
    "sparse": ("--sparsity", 0.4),
    "share_layers": ("--groups", 2, "--finetune_steps", 2),
}


@pytest.mark.full
@pytest.mark.parametrize("method", EACH_METHOD)
def test_a_model_and_an_output_behind_links(dynabert, finetuned, tmp_path, method):
    """The folder that a link names is read, and written; the link stays."""
    (tmp_path / "model").symlink_to(finetuned)
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    for source, output in ((finetuned, "plain"), (tmp_path / "model", "out")):
        done = dynabert("compress", method, source, *EACH_METHOD[method], "--output_dir", tmp_path / output)
        assert done.code == 0, done.err
    assert (tmp_path / "out").is_symlink()
    names = {path.name for path in (tmp_path / "plain").glob("*.safetensors")}
    assert names == {path.name for path in (tmp_path / "disk").glob("*.safetensors")} != set()
    assert all((tmp_path / "plain" / name).read_bytes() == (tmp_path / "disk" / name).read_bytes() for name in names)


@pytest.mark.full
@pytest.mark.parametrize("method", EACH_METHOD)
@pytest.mark.parametrize("kind", ["PaddleNLP", "Hugging Face"])
def test_a_model_of_another_library_is_refused_with_the_way_to_it(dynabert, finetuned, tmp_path, method, kind):
    folder = tmp_path / "model"
    if kind == "PaddleNLP":
        shutil.copytree(
            finetuned, folder, ignore=shutil.ignore_patterns("dynabert.json", ".dynabert", "vdl*", "*.jsonl")
        )
    else:
        folder = find_backbone("minilm-l6")
    done = dynabert("compress", method, folder, *EACH_METHOD[method], "--output_dir", tmp_path / "new")
    (line,) = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert done.code == 2 and "is not a model that 'dynabert finetune' has made: begin with that" in line
    assert not (tmp_path / "new").exists()


def test_the_folder_that_is_read_is_not_replaced(dynabert, finetuned, tmp_path):
    shutil.copytree(finetuned, tmp_path / "model")
    words = ("--vocab_size", 2000, "--output_dir", tmp_path / "model", "--overwrite_output_dir")
    done = dynabert("compress", "vocabulary", tmp_path / "model", *words)
    assert done.code == 2
    assert "holds the model to start from" in done.err


def test_a_report_shows_it_beside_the_run_that_it_was_made_of(dynabert, chain, small_folder, products, tmp_path):
    page = tmp_path / "report.html"
    words = ("report", chain, "--no_visualdl", "--output_file", page)
    compare = [word for folder in (small_folder, products) for word in ("--compare", folder)]
    done = dynabert(*words, *compare)
    assert done.code == 0, done.err
    text = page.read_text(encoding="utf-8")
    assert f"{small_folder} (vocabulary)" in text and f"{products} (low_rank)" in text
    db.extract(db.load_model(small_folder), db.Subnet.parse("l0h1f8")).save_pretrained(tmp_path / "part")
    done = dynabert(*words, "--compare", tmp_path / "part")
    assert done.code == 1 and "weights are not those that were scored" in done.err.splitlines()[-1]
    assert page.read_text(encoding="utf-8") == text
