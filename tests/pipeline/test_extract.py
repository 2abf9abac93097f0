"""`dynabert extract`: a sub-network as an ordinary model folder, which does all that a model folder does."""

import json

import numpy as np
import paddle
import pytest
from conftest import make_batch, make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.supernet.supernet import to_tensors
from dynabert_paddle.training.evaluate import evaluate_named

UNEVEN = "l0h3f40-l2h1f16-l3h4f48"


@pytest.fixture(scope="module", params=["w0.50d0.50", UNEVEN])
def extracted(request, tmp_path_factory, finetuned):
    folder = tmp_path_factory.mktemp("small") / "model"
    supernet = db.load_model(finetuned)
    db.extract(supernet, supernet.search_space().parse(request.param)).save_pretrained(folder)
    return request.param, folder


def logits(model, **batch):
    model.eval()
    with paddle.no_grad():
        return model(**batch).logits.numpy()


def test_it_equals_the_slice_and_is_smaller(finetuned, extracted):
    name, folder = extracted
    supernet, small = db.load_model(finetuned), db.load_model(folder)
    batch = make_batch()
    batch.pop("labels")
    inputs = to_tensors(batch)
    subnet = supernet.search_space().parse(name)
    with paddle.no_grad():
        expected = supernet(subnet, **inputs).logits.numpy()
    assert np.abs(logits(small, **inputs) - expected).max() <= 1e-6
    num_params = supernet.search_space().num_params(subnet)
    assert sum(int(parameter.size) for parameter in small.parameters()) == num_params
    assert (folder / "model.safetensors").stat().st_size < 4 * num_params + 20_000
    assert json.loads((folder / "dynabert.json").read_text())["subnet"] == {"name": name}


def test_command_and_function_write_the_same_files(dynabert, finetuned, extracted, tmp_path):
    name, folder = extracted
    done = dynabert("extract", finetuned, name, "--output_dir", tmp_path / "new")
    assert done.code == 0, done.err
    assert f"wrote {tmp_path / 'new'}" in done.err
    files = ("model.safetensors", "config.json", "tokenizer.json")
    assert all((tmp_path / "new" / file).read_bytes() == (folder / file).read_bytes() for file in files)


def test_it_evaluates_to_the_same_metric(dynabert, finetuned, extracted, task):
    name, folder = extracted
    (expected,) = evaluate_named(db.load_model(finetuned), task, [name])
    (found,) = json.loads(dynabert("evaluate", folder, "--json").out)["rows"]
    assert {**found, "subnet": name} == {**expected, "subnet": name}


def test_it_extracts_again(extracted):
    _, folder = extracted
    small = db.load_model(folder)
    again = db.extract(small, small.search_space().subnet(depth_mult=0.5))
    inputs = to_tensors({name: value for name, value in make_batch().items() if name != "labels"})
    with paddle.no_grad():
        expected = small(small.search_space().subnet(depth_mult=0.5), **inputs).logits.numpy()
    assert np.abs(logits(again, **inputs) - expected).max() <= 1e-6


def test_it_is_trained_further_and_used_as_teacher_and_backbone(dynabert, extracted, task, tiny_data, tmp_path):
    _, folder = extracted
    steps = {"max_steps": 1, "holdout_size": 8}
    further = db.finetune(folder, task, config=db.FinetuneConfig(**steps), output_dir=tmp_path / "further")
    assert further.full == db.load_model(folder).full
    space = further.search_space(width_mults=[1.0], depth_mults=[1.0])
    db.train_width(
        further, db.load_model(folder), task, space, config=db.WidthConfig(**steps), output_dir=tmp_path / "width"
    )
    words = ("--model_name_or_path", folder, "--data_dir", tiny_data, "--max_steps", 1, "--output_dir", tmp_path / "b")
    done = dynabert("finetune", *words)
    assert "wrote" in done.err


def test_plain_paddlenlp_loads_the_full_subnet(tmp_path):
    from paddlenlp.transformers import BertForSequenceClassification

    source = db.Supernet(make_bert(), db.Tokenizer.from_pretrained(find_backbone("minilm-l6")))
    db.extract(source, source.full).save_pretrained(tmp_path / "full")
    stock = BertForSequenceClassification.from_pretrained(str(tmp_path / "full"))
    stock.eval()
    inputs = to_tensors({name: value for name, value in make_batch().items() if name != "labels"})
    with paddle.no_grad():
        assert (stock(**inputs).numpy() == logits(source, **inputs)).all()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["w0.50d0.50"], 2, "exists"),
        (["l9h1f1"], 2, "keeps layer 9"),
        (["l0h99f1"], 2, "wants 99 heads"),
        (["half"], 2, "is no subnet"),
    ],
)
def test_invalid_requests_are_one_line(dynabert, finetuned, tmp_path, words, code, message):
    output = finetuned if message == "exists" else tmp_path / "new"
    done = dynabert("extract", finetuned, *words, "--output_dir", output)
    assert done.code == code
    (line,) = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert message in line
    assert not (tmp_path / "new").exists()
