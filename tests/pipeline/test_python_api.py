"""The Python interface, used as the design shows it, on a small model."""

import subprocess
import sys

import numpy as np
import paddle
import pytest

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import to_arrays


def test_a_whole_chain_in_python(tiny_folder, tiny_data, tmp_path):
    quick = {"max_steps": 3, "per_device_train_batch_size": 16, "learning_rate": 1e-3}
    task = db.load_task("custom", data_dir=tiny_data)
    teacher = db.finetune(tiny_folder, task, output_dir=tmp_path / "teacher", config=db.FinetuneConfig(**quick))
    supernet = db.Supernet.from_pretrained(tmp_path / "teacher")
    db.rewire(supernet, task)
    space = supernet.search_space(width_mults=[1, 0.75, 0.5, 0.25], depth_mults=[1, 0.75, 0.5])
    db.train_width(supernet, teacher, task, space, output_dir=tmp_path / "width", config=db.WidthConfig(**quick))
    db.train_depth(supernet, task, space, output_dir=tmp_path / "depth", config=db.DepthConfig(**quick))
    grid = db.evaluate_grid(supernet, task, space)
    assert [row["subnet"] for row in grid] == [
        f"w{width}d{depth}" for depth in ("1.00", "0.75", "0.50") for width in ("1.00", "0.75", "0.50", "0.25")
    ]
    assert all({"accuracy", "macro_f1", "params", "params_without_embeddings", "macs"} <= set(row) for row in grid)
    params = [row["params"] for row in grid[:4]]
    assert params == sorted(set(params), reverse=True)
    small = db.extract(supernet, space.subnet(width_mult=0.5, depth_mult=0.5))
    small.save_pretrained(tmp_path / "small")

    again = db.Supernet.from_pretrained(tmp_path / "small")
    assert again.full == db.Subnet((0, 1), (2, 2), (24, 24))
    assert again.metadata.subnet["name"] == "w0.50d0.50"
    (row,) = db.evaluate_grid(again, task)
    expected = next(row for row in grid if row["subnet"] == "w0.50d0.50")
    assert {**row, "subnet": "w0.50d0.50"} == expected
    # What each folder holds is what the functions returned.
    for folder, model in (("teacher", teacher), ("depth", supernet), ("small", small)):
        arrays = to_arrays(db.Supernet.from_pretrained(tmp_path / folder).model)
        assert all(np.array_equal(arrays[name], array) for name, array in to_arrays(model.model).items()), folder


def test_the_extracted_model_computes_what_the_supernet_does(tiny_folder, batch):
    supernet = db.Supernet.from_pretrained(tiny_folder)
    supernet.eval()
    for name in ("w0.50d0.50", "w0.25d1.00", "l1h3f7-l2h1f40"):
        subnet = supernet.search_space().parse(name)
        small = db.extract(supernet, subnet)
        with paddle.no_grad():
            np.testing.assert_allclose(small(**batch).logits, supernet(subnet, **batch).logits, atol=1e-5)


def test_every_public_name_is_there():
    for name in db.__all__:
        assert getattr(db, name) is not None
    assert set(db.__all__) <= set(dir(db))
    with pytest.raises(AttributeError, match="no attribute 'Supernett'"):
        db.Supernett  # noqa: B018 - the access itself is the test


def test_importing_the_package_loads_no_paddle():
    code = "import sys, dynabert_paddle; print([name for name in ('paddle', 'paddlenlp') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_stage_replaces_a_finished_folder_only_with_overwrite(tiny_folder, tiny_data, tmp_path):
    task = db.load_task("snips", data_dir=tiny_data)
    config = db.FinetuneConfig(max_steps=1)
    options = {"output_dir": tmp_path / "m", "max_seq_length": 8}
    db.finetune(tiny_folder, task, config=config, **options)
    with pytest.raises(db.DynabertError, match="m exists: pass overwrite=True"):
        db.finetune(tiny_folder, task, config=config, **options)
    db.finetune(tiny_folder, task, config=db.FinetuneConfig(max_steps=2), overwrite=True, **options)
    assert db.Supernet.from_pretrained(tmp_path / "m").metadata.metrics["steps"] == 2


@pytest.mark.parametrize(
    ("text", "mults"),
    [("1.0 0.5", (1.0, 0.5)), ("0.5,1", (1.0, 0.5)), (0.5, (0.5,)), ([0.25, "1", 0.25], (1.0, 0.25))],
)
def test_load_config_takes_multipliers_as_people_write_them(text, mults):
    config = db.load_config(None, (), {"space.width_mult_list": text})
    assert config.space.width_mult_list == mults


def test_overwriting_a_run_removes_all_results_of_the_old_run(tiny_folder, tiny_data, tmp_path):
    output = tmp_path / "out"
    words = (f"model_name_or_path={tiny_folder}", "stages=[finetune]", "task.max_seq_length=16", "train.max_steps=1")
    config = db.load_config(None, words, {"output_dir": str(output), "task.data_dir": str(tiny_data)})
    db.run(config)
    (output / "notes.txt").write_text("mine")
    task = db.load_task("snips", data_dir=tiny_data)
    small = db.BaselineConfig(method="finetuned", max_steps=1)
    db.baseline(output / "finetune", task, output_dir=output / "baselines" / "finetuned", config=small)
    db.report(output)
    db.run(config, overwrite=True)
    left = {str(path.relative_to(output)) for path in output.iterdir()}
    assert left == {"finetune", "grid.json", "run.yaml", ".dynabert", "notes.txt"}

    (output / "baselines" / "own").mkdir(parents=True)
    (output / "baselines" / "own" / "notes.txt").write_text("mine")
    db.run(config, overwrite=True)
    assert (output / "baselines" / "own" / "notes.txt").read_text() == "mine"
