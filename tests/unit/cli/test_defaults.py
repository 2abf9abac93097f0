"""The defaults that the help shows are those in force, also for the verbs whose defaults come from a model's folder."""

import dataclasses

import pytest
import typer
import yaml

from dynabert_paddle.cli import main, run
from dynabert_paddle.cli.stages import load_settings
from dynabert_paddle.config import command_settings, settings
from dynabert_paddle.config.loading import find_config, load_config
from dynabert_paddle.data.question_answering import AnswerSettings
from dynabert_paddle.files.metadata import Metadata, read_metadata, write_metadata

# Verb -> the sections of its options; those of the task and the grid are taken from DIR, as far as it tells them.
SECTIONS_OF = {
    "rewire": ("task", "rewire"),
    "train_width": ("task", "space", "width"),
    "train_depth": ("task", "space", "depth"),
    "train_general": ("task", "space", "general"),
    "train_final": ("task", "space", "final"),
    "evaluate": ("task",),
    "baseline": ("task", "baseline"),
    "search": ("task",),
    "export": ("task",),
}
TASK = {"name": "custom", "max_seq_length": 24, "labels": ["a", "b"], "text_column": "body", "metrics": ["f1"]}


def options(verb):
    """The options of a verb by name."""
    command = typer.main.get_command(main.app).commands[verb]
    return {parameter.name: parameter for parameter in command.params}


def shown(verb, section, field):
    """The default of a section's field as the verb's help shows it; None for none, and where it has no option."""
    name = "task_name" if (section, field) == ("task", "name") else field
    parameter = options(verb).get(name)
    return parameter and (parameter.show_default or None)


def as_text(value):
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


@pytest.fixture
def folder(tmp_path):
    """A model's folder whose task and grid differ from the defaults."""
    space = {"width_mults": [1.0, 0.5], "depth_mults": [1.0, 0.25]}
    write_metadata(tmp_path, Metadata(stage="depth", task=TASK, space=space))
    return tmp_path


@pytest.mark.parametrize("verb", SECTIONS_OF)
def test_a_verb_that_takes_a_folder_has_the_folders_task_and_grid(folder, verb):
    of_folder, bare = load_settings(read_metadata(folder), None, None, {}), load_config()
    for section in SECTIONS_OF[verb]:
        for field in dataclasses.fields(settings.SECTIONS[section]):
            text = shown(verb, section, field.name)
            if field.name == "method":  # an argument, without a default
                continue
            known, default = (getattr(getattr(config, section), field.name) for config in (of_folder, bare))
            if section in ("task", "space"):
                assert text == ("DIR's" if default is None else f"DIR's, else {as_text(default)}"), field.name
            elif text is not None:
                expected = field.metadata["otherwise"] if default is None else as_text(default)
                assert known == default and text == expected, field.name
    assert of_folder.task.max_seq_length == 24 and of_folder.space.depth_mult_list == (1.0, 0.25)


@pytest.mark.parametrize(("verb", "sections"), [("finetune", ("task", "finetune")), ("augment", ("task",))])
def test_a_verb_without_a_folder_has_the_plain_defaults(verb, sections):
    config = load_config()
    for section in sections:
        for field in dataclasses.fields(settings.SECTIONS[section]):
            value = getattr(getattr(config, section), field.name)
            assert shown(verb, section, field.name) == (
                field.metadata["otherwise"] if value is None else as_text(value)
            )
    assert options("finetune")["model_name_or_path"].show_default == config.model_name_or_path
    assert options("finetune")["device"].show_default == config.device


@pytest.mark.parametrize(
    ("verb", "section"), [("search", command_settings.SearchConfig), ("augment", command_settings.AugmentConfig)]
)
def test_settings_of_a_verb_alone_are_those_of_its_section(verb, section):
    for field in dataclasses.fields(section):
        value = getattr(section(), field.name)
        assert shown(verb, "", field.name) == (field.metadata["otherwise"] if value is None else as_text(value))


def test_defaults_of_answers_are_those_of_their_settings():
    for field in dataclasses.fields(AnswerSettings):
        if field.default not in (dataclasses.MISSING, False):
            assert shown("finetune", "task", field.name).endswith(str(field.default))


def test_a_config_goes_before_the_defaults_of_run(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(yaml.safe_dump({"output_dir": "mine", "device": "cpu"}))
    for name, fallback in (("output_dir", "out"), ("device", "auto")):
        assert options("run")[name].show_default == f"CONFIG's, else {fallback}"
        assert getattr(load_config(file), name) != getattr(load_config(), name) == fallback
    assert load_config(find_config("quickstart")).output_dir == "out"


def test_a_flag_of_run_is_that_of_all_stages_that_have_it(dynabert, tmp_path, monkeypatch):
    """Priority, highest first: flag, -o, config file, default."""
    file = tmp_path / "my.yaml"
    file.write_text("task: {max_seq_length: 16}\ntrain: {seed: 1}\nwidth: {learning_rate: 1e-3, temperature: 3}\n")
    seen = []
    monkeypatch.setattr(run, "_run", lambda *values: seen.append(values))
    words = ["--learning_rate", "4e-5", "--label_column", "intent", "--width_mult_list", "1", "2/3", "--accumulation"]
    words += ["huawei", "-o", "width.learning_rate=9", "-o", "train.max_steps=7", "-o", "task.label_column=x"]
    assert dynabert("run", file, *words, "--no_include_padding", "--lambda_hidden", "0.5").code == 0
    name, overrides, flags, _, _ = seen[0]
    config, default = load_config(find_config(name), overrides, flags), load_config()
    assert {getattr(config, stage).learning_rate for stage in ("finetune", "width", "depth", "final")} == {4e-5}
    assert config.baseline.learning_rate == default.baseline.learning_rate  # no stage of run
    assert (config.width.lambda_hidden, config.depth.lambda_hidden) == (0.5, 0.5)
    assert (config.task.label_column, config.task.max_seq_length) == ("intent", 16)
    assert config.space.width_mult_list == (1.0, 2 / 3)
    assert config.rewire.accumulation == "huawei"
    assert (config.rewire.seed, config.final.seed, config.finetune.max_steps) == (1, 1, 7)
    assert (config.width.temperature, config.depth.temperature) == (3, default.depth.temperature)


def test_a_flag_of_run_is_named_in_its_error(dynabert):
    done = dynabert("run", "quickstart", "--learning_rate", "-1", "-o", "train.seed=3")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: --learning_rate is at least 0, not -1.0\n"
    done = dynabert("run", "quickstart", "--width_mult_list", "3/2")
    assert done.err.startswith("error: --width_mult_list: at least one multiplier is needed, and all lie in (0, 1]")


@pytest.mark.parametrize(
    "verb", [*SECTIONS_OF, "quickstart", "run", "finetune", "augment", "extract", "predict", "bench"]
)
def test_no_default_is_shown_where_there_is_none(dynabert, verb):
    assert "default: None" not in dynabert(verb, "--help").out


def test_the_help_does_not_show_a_default_twice():
    """Once in the words, once in brackets."""
    for verb in (*SECTIONS_OF, "finetune", "augment", "run", "predict", "bench", "report"):
        assert not [option for option in options(verb).values() if "(default" in (option.help or "")], verb
