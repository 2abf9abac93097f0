"""The names of settings in messages: arguments by default, and where a config or an override gives a setting."""

import pytest

from dynabert_paddle.config.loading import built_in_configs, find_config, load_config
from dynabert_paddle.config.names import find_place, name_later, name_marked, setting, settings_named_by
from dynabert_paddle.errors import UsageError

CONFIG = """\
task:
  name: custom
  label_column: intent
train: {max_steps: 5,
        seed: 3}
width:
  max_steps: 7
stages: [finetune]
"""


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("task.label_column", "label_column"),
        ("train.select_on", "select_on"),
        ("search.goals", "goals"),
        ("width.max_steps", "width.max_steps"),
        ("output_dir", "output_dir"),
        ("overwrite_output_dir", "overwrite=True"),
        ("overwrite_output_file", "overwrite=True"),
        ("force", "force=True"),
    ],
)
def test_python_has_arguments(key, name):
    assert setting(key) == name


def test_another_form_counts_within_its_block_alone():
    with settings_named_by("--{}".format):
        assert setting("task.kind") == "--task.kind"
        with settings_named_by(name_later):
            message = f"give {setting('task.kind')}, or {setting('output_dir')}"
        assert name_marked(message) == "give --task.kind, or --output_dir"
    assert setting("task.kind") == "kind"
    assert name_marked(message) == "give kind, or output_dir"


@pytest.mark.parametrize(
    ("key", "overrides", "name"),
    [
        ("task.label_column", [], "task.label_column in FILE, line 3"),
        ("task.label_column", ["task.label_column=x"], "override task.label_column"),
        ("task.label_column", ["task={label_column: x}"], "override task.label_column"),
        ("task.kind", [], None),
        ("task.kind", ["task.kinds=x"], None),
        ("depth.max_steps", [], "train.max_steps in FILE, line 4"),
        ("depth.seed", [], "train.seed in FILE, line 5"),
        ("width.max_steps", [], "width.max_steps in FILE, line 7"),
        ("width.max_steps", ["train.max_steps=1"], "override train.max_steps"),
        ("width.max_steps", ["train.max_steps=1", " width.max_steps=2"], "override width.max_steps"),
        ("train.select_on", [], None),
        ("stages", [], "stages in FILE, line 8"),
        ("stages", ["stages.x=3"], "override stages.x"),
        ("task", [], "task in FILE, line 1"),
    ],
)
def test_the_place_of_a_setting(tmp_path, key, overrides, name):
    file = tmp_path / "my.yaml"
    file.write_text(CONFIG)
    place = find_place(key, file, overrides)
    assert (place and place.name) == (name and name.replace("FILE", str(file)))


@pytest.mark.parametrize("content", [None, b"", b"- a list", b"task: [", b"\xff", b"task"])
def test_a_file_without_keys_has_no_setting(tmp_path, content):
    file = tmp_path / "my.yaml"
    if content is not None:
        file.write_bytes(content)
    assert find_place("task.name", file) is None


def test_every_setting_of_the_built_in_configs_has_a_line():
    import yaml

    for name in built_in_configs():
        file = find_config(name)
        lines = file.read_text().splitlines()
        for section, values in yaml.safe_load(file.read_text()).items():
            for key in values if isinstance(values, dict) else ():
                place = find_place(f"{section}.{key}", file)
                number = int(place.name.rpartition(" ")[2])
                assert f"{key}:" in lines[number - 1]


@pytest.mark.parametrize(
    ("overrides", "flags", "message"),
    [
        (["width.max_steps=0"], {}, "override width.max_steps is at least 1, not 0"),
        (["train.max_steps=0"], {}, "override train.max_steps is at least 1, not 0"),
        ([], {"width.max_steps": 0}, "width.max_steps is at least 1, not 0"),
        ([], {}, "width.max_steps in FILE, line 2 is at least 1, not -7"),
        (["rewire.sed=1"], {"width.max_steps": 1}, "override: unknown key 'rewire.sed'. Did you mean 'seed'?"),
    ],
)
def test_a_wrong_value_is_blamed_on_its_place(tmp_path, overrides, flags, message):
    file = tmp_path / "my.yaml"
    file.write_text("width:\n  max_steps: -7\n")
    with pytest.raises(UsageError) as error:
        load_config(file, overrides, flags)
    assert str(error.value) == message.replace("FILE", str(file))
