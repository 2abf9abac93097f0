"""What is read of a folder, and what is said of a damaged one."""

import pytest
from report_folder import METHODS, SEARCHED, edit_json, edit_metadata, write_run

from dynabert_paddle.errors import DynabertError, ModelError
from dynabert_paddle.files.metadata import METADATA_FILE
from dynabert_paddle.reporting.collect import collect


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run")


def test_all_of_a_run_is_found(folder):
    run = collect(folder)
    assert [stage.name for stage in run.stages] == ["finetune", "rewire", "width", "depth"]
    assert run.model.name == "depth"
    assert run.config.task.name == "snips"
    assert len(run.grid.rows) == 12 and run.grid.split == "dev" and run.grid.metrics == ["accuracy", "macro_f1"]
    assert [row.subnet for row in run.search.pareto] == list(SEARCHED)
    assert sorted({baseline.method for baseline in run.baselines}) == sorted(METHODS)
    assert len(run.baselines) == 12


def test_a_stage_shows_its_own_scores(folder):
    run = collect(folder / "depth")
    assert [stage.name for stage in run.stages] == ["depth"]
    assert run.grid.split == "holdout" and len(run.grid.rows) == 12
    assert run.grid.rows[0].params is None
    assert run.config is None and run.search is not None and run.baselines == ()


def test_a_search_of_other_weights_is_left_out(folder):
    """The wrong weights, and none."""
    weights = folder / "depth" / "model.safetensors"
    weights.write_bytes(b"trained again")
    path = folder / "depth" / "search" / "search.json"
    assert (collect(folder).search, collect(folder).outdated_search) == (None, path)
    weights.unlink()
    assert (collect(folder).search, collect(folder).outdated_search) == (None, path)
    weights.write_bytes(b"depth")
    assert collect(folder).search and not collect(folder).outdated_search


def test_a_stage_that_still_trains_has_its_curves(folder):
    (folder / "depth" / METADATA_FILE).unlink()
    with (folder / "depth" / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 21, "train/lo')
    run = collect(folder)
    assert [stage.name for stage in run.stages][-1] == "depth"
    assert run.stages[-1].log[-1]["step"] == 20
    assert run.model.name == "width"


def without(*keys):
    def change(values):
        for key in keys[:-1]:
            values = values[key]
        del values[keys[-1]]

    return change


DAMAGE = {
    "grid.json": [
        lambda path: path.write_text('{"split": "dev", "rows": [', encoding="utf-8"),
        lambda path: edit_json(path, without("split")),
        lambda path: edit_json(path, without("rows")),
        lambda path: edit_json(path, without("rows", 0, "params")),
        lambda path: edit_json(path, without("rows", 3, "macro_f1")),
        lambda path: edit_json(path, lambda values: values["rows"].clear()),
        lambda path: edit_json(path, lambda values: values["rows"][0].update(accuracy="high")),
        lambda path: edit_json(path, lambda values: values["rows"][0].update(subnet="<script>")),
    ],
    "run.yaml": [
        lambda path: path.write_text("task: [", encoding="utf-8"),
        lambda path: path.write_text("tusk: {}\n", encoding="utf-8"),
        lambda path: path.write_bytes(b"\xff\xfe"),
    ],
    "width/train.jsonl": [
        lambda path: path.write_text('{"step": 1}\n{"step": 2, "tr\n{"step": 3}\n', encoding="utf-8"),
        lambda path: path.write_text('["step"]\n', encoding="utf-8"),
        lambda path: path.write_text('{"train/loss": 1.0}\n', encoding="utf-8"),
        lambda path: path.write_text('{"step": 1, "train/loss": "low"}\n', encoding="utf-8"),
        lambda path: path.write_bytes(b"\xff\xff\n"),
    ],
    "depth/dynabert.json": [
        lambda path: path.write_text("{", encoding="utf-8"),
        lambda path: edit_metadata(path.parent, importance={"heads": [[1.0]]}),
        lambda path: edit_metadata(path.parent, importance={"heads": "x", "neurons": [[1.0]]}),
        lambda path: edit_metadata(path.parent, importance={"heads": [[]], "neurons": [[1.0]]}),
    ],
    "depth/search/search.json": [
        lambda path: path.write_text("", encoding="utf-8"),
        lambda path: edit_json(path, without("pareto")),
        lambda path: edit_json(path, without("weights")),
        lambda path: edit_json(path, without("setting", "seq_length")),
        lambda path: edit_json(path, lambda values: values["pareto"][0].update(subnet="l9h1f1")),
    ],
    "baselines/pruned-1/baseline.json": [
        lambda path: path.write_text("[]", encoding="utf-8"),
        lambda path: edit_json(path, without("metrics")),
    ],
}


@pytest.mark.parametrize(("name", "damage"), [(name, damage) for name, every in DAMAGE.items() for damage in every])
def test_a_damaged_file_is_named_in_one_line(folder, name, damage):
    damage(folder / name)
    with pytest.raises(DynabertError) as caught:
        collect(folder)
    assert str(caught.value).replace(", line 1:", ":").startswith(f"{folder / name}:")
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_refused_with_the_nearest_name(folder):
    with pytest.raises(ModelError, match=rf"no such model folder. Did you mean '{folder}'"):
        collect(folder.with_name("runn"))


def test_an_unrelated_folder_is_refused_with_the_allowed_kinds(folder):
    with pytest.raises(ModelError, match=rf"neither a run's folder .* nor a model's .* Did you mean '{folder}'"):
        collect(folder.parent)
    with pytest.raises(ModelError, match="name a folder that 'dynabert run' or one of its stages has written.$"):
        collect(folder / "baselines")


def test_an_empty_log_is_not_called_damaged(folder):
    (folder / "width" / "train.jsonl").write_text("", encoding="utf-8")
    assert collect(folder).stages[2].log == ()
