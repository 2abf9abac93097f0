"""Recipes: built-in settings between the config file and the defaults."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from dynabert_paddle.config.loading import built_in_configs, find_config, find_recipe, load_config
from dynabert_paddle.config.settings import RECIPES, Config
from dynabert_paddle.errors import UsageError

FOLDER = Path(load_config.__globals__["_RECIPE_DIR"])


def read(name):
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def _get(section, field):
    return section[field] if isinstance(section, dict) else getattr(section, field)


def make_run(folder, text):
    """A folder that a run has begun in."""
    folder.mkdir()
    (folder / ".dynabert").touch()
    (folder / "run.yaml").write_text(text)
    return folder


def test_every_recipe_has_a_file_of_differences():
    assert {path.stem for path in FOLDER.iterdir()} == set(RECIPES)
    assert load_config() == load_config(flags={"recipe": "paper"}) == Config()
    for name in set(RECIPES) - {"paper"}:
        config, defaults = load_config(flags={"recipe": name}), Config()
        for key, value in read(name).items():
            own, default = getattr(config, key), getattr(defaults, key)
            if not isinstance(value, dict):
                own, default, value = {"": own}, {"": default}, {"": value}
            assert all(_get(own, field) != _get(default, field) for field in value), (name, key)


def test_recipes_leave_the_steps_to_epochs():
    """max_steps has priority over epochs, so that a recipe's would outrank a file's num_train_epochs."""
    assert not [name for name in RECIPES if "max_steps" in str(read(name))]


@pytest.mark.parametrize("how", ["flag", "override", "file"])
def test_a_recipe_stands_between_what_is_given_and_the_defaults(tmp_path, how):
    file = tmp_path / "my.yaml"
    file.write_text(("recipe: best\n" if how == "file" else "") + "depth: {num_random_subnets: 1}\n")
    overrides = ["recipe=best"] if how == "override" else []
    flags = {"recipe": "best"} if how == "flag" else {}
    config = load_config(file, [*overrides, "train.learning_rate=3e-5"], {**flags, "width.learning_rate": 1e-5})
    best = load_config(flags={"recipe": "best"})
    assert config.recipe == "best"
    assert config.stages == best.stages == ("finetune", "rewire", "depth")
    assert config.depth == dataclasses.replace(best.depth, num_random_subnets=1, learning_rate=3e-5)
    assert (config.width.learning_rate, config.finetune.learning_rate) == (1e-5, 3e-5)


def test_a_file_s_own_section_and_its_train_section_have_priority(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("recipe: best\nstages: [finetune]\ntrain: {learning_rate: 7e-5}\n")
    config = load_config(file)
    assert (config.stages, config.depth.learning_rate) == (("finetune",), 7e-5)
    assert config.depth.subnets_per_step == "sandwich"


def test_a_model_s_task_and_grid_have_priority():
    base = {"space": {"width_mult_list": [1.0, 0.5]}, "task": {"name": "rte"}}
    config = load_config(flags={"recipe": "best"}, base=base)
    assert (config.space.width_mult_list, config.task.name) == ((1.0, 0.5), "rte")


@pytest.mark.parametrize("name", ["bset", "", [1], {"a": 1}, None])
def test_another_recipe_is_refused(name):
    with pytest.raises(UsageError, match=r"recipe: .* is not allowed"):
        load_config(None, [f"recipe={json.dumps(name)}"])


def test_a_folder_keeps_its_recipe(tmp_path):
    best = make_run(tmp_path / "best", "recipe: best\n")
    before = make_run(tmp_path / "before", "device: cpu\n")
    assert (find_recipe(best), find_recipe(before), find_recipe(tmp_path)) == ("best", "paper", None)
    for folder, recipe in ((best, "best"), (before, "paper"), (tmp_path / "new", "paper")):
        assert load_config(flags={"output_dir": str(folder)}, resumes=True).recipe == recipe
        assert load_config(flags={"output_dir": str(folder)}).recipe == "paper"
        for given in RECIPES:
            flags = {"output_dir": str(folder), "recipe": given}
            assert load_config(flags=flags, resumes=True).recipe == given


@pytest.mark.parametrize("text", ["task: [", "- a list", ""])
def test_a_damaged_run_file_is_told_later(tmp_path, text):
    folder = make_run(tmp_path / "out", text)
    assert load_config(flags={"output_dir": str(folder)}, resumes=True).recipe == "paper"


def test_a_config_of_the_user_s_in_the_folder_is_no_run(tmp_path):
    (tmp_path / "run.yaml").write_text("recipe: best\n")
    assert find_recipe(tmp_path) is None


def test_twins_differ_from_the_configs_of_the_paper_by_the_recipe_and_its_stage():
    twins = [name for name in built_in_configs() if name.endswith("-best")]
    assert {name.removesuffix("-best") for name in twins} == {
        name for name in built_in_configs() if name.startswith(("glue/", "clue/", "quickstart")) and name not in twins
    }
    for name in twins:
        twin, paper = (load_config(find_config(key)) for key in (name, name.removesuffix("-best")))
        assert twin.recipe == "best"
        assert twin.stages == load_config(flags={"recipe": "best"}).stages
        assert twin.model_name_or_path == paper.model_name_or_path
        for section in ("task", "space", "finetune", "rewire", "baseline"):
            assert getattr(twin, section) == getattr(paper, section), (name, section)
