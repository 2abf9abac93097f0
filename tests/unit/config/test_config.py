"""Configs: priorities, error messages, and round trips through YAML."""

import dataclasses
import json
import typing

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dynabert_paddle.config.loading import built_in_configs, find_config, load_config, parse_yaml, resolve_config
from dynabert_paddle.config.options import lasting_settings, recorded_settings
from dynabert_paddle.config.settings import (
    SECTIONS,
    STAGES,
    BaselineConfig,
    Config,
    DepthConfig,
    FinalConfig,
    FinetuneConfig,
    RewireConfig,
    TaskConfig,
    WidthConfig,
)
from dynabert_paddle.data.catalog import CATALOG
from dynabert_paddle.errors import UsageError
from dynabert_paddle.multipliers import DEPTH_MULTS, WIDTH_MULTS

TRAINED = ("finetune", "width", "depth", "final")


@pytest.fixture
def write(tmp_path):
    """Write a config file."""

    def write(text):
        path = tmp_path / "config.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        return path

    return write


def test_defaults_equal_the_papers():
    config = load_config()
    assert config == Config()
    assert (config.finetune.learning_rate, config.finetune.num_train_epochs) == (2e-5, 3)
    assert (config.width.lambda_logit, config.width.lambda_hidden) == (1.0, 0.1)
    assert (config.depth.lambda_logit, config.depth.lambda_hidden) == (1.0, 1.0)
    assert config.space.width_mult_list == WIDTH_MULTS == (1.0, 0.75, 0.5, 0.25)
    assert config.space.depth_mult_list == DEPTH_MULTS == (1.0, 0.75, 0.5)


@pytest.mark.parametrize(
    ("text", "overrides", "flags", "seed"),
    [
        ("", [], {}, 42),
        ("width: {seed: 1}", [], {}, 1),
        ("width: {seed: 1}", ["width.seed=2"], {}, 2),
        ("width: {seed: 1}", ["width.seed=2"], {"width.seed": 3}, 3),
        ("width: {seed: 1}", [], {"width.seed": 3}, 3),
        ("width: {seed: 1}", ["width.seed=2"], {"width.seed": None}, 2),
        ("width: {seed: 1}", ["width.seed=2", "width.seed=4"], {}, 4),
        ("width: {seed: 1}", [], {"width.seed": 0}, 0),
    ],
)
def test_priority_is_flag_then_override_then_file_then_default(write, text, overrides, flags, seed):
    config = load_config(write(text), overrides, flags)
    assert config.width.seed == seed
    assert config.depth.seed == 42


def test_the_users_values_override_the_models_task(write):
    base = {"task": {"name": "custom", "data_dir": "base", "max_seq_length": 32}}
    config = load_config(write("task: {data_dir: file}"), ["task.label_column=y"], base=base)
    assert config.task == TaskConfig(name="custom", data_dir="file", max_seq_length=32, label_column="y")
    assert load_config(base=base).task.data_dir == "base"


def test_train_sets_every_stage_that_has_the_field(write):
    config = load_config(write("train: {seed: 7, max_steps: 5, temperature: 2.0}\nwidth: {max_steps: 9}"))
    assert [getattr(config, stage).seed for stage in (*STAGES, "baseline")] == [7] * 7
    assert [getattr(config, stage).max_steps for stage in TRAINED] == [5, 9, 5, 5]
    assert (config.width.temperature, config.depth.temperature) == (2.0, 2.0)
    assert config.finetune == FinetuneConfig(seed=7, max_steps=5)
    assert config.rewire == RewireConfig(seed=7)


def test_train_in_an_override_replaces_the_files_values(write):
    config = load_config(write("train: {seed: 7}\ndepth: {seed: 8}"), ["train.seed=9"])
    assert [getattr(config, stage).seed for stage in STAGES] == [9] * 6


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "train:\n", "---\n"])
def test_an_empty_config_equals_the_defaults(write, text):
    assert load_config(write(text)) == Config()


@pytest.mark.parametrize("text", ["2e-5", "2E-5", "'2e-5'", "0.00002", "2.0e-05"])
def test_a_learning_rate_may_have_any_notation(write, text):
    """In YAML 1.1 `2e-5` is a string, because a number needs a dot before its exponent."""
    assert load_config(write(f"train: {{learning_rate: {text}}}")).width.learning_rate == 2e-5
    assert load_config(None, [f"width.learning_rate={text}"]).width.learning_rate == 2e-5


@pytest.mark.parametrize("text", ["1.0 0.5", "1, .5", "'1.0,0.5'", "[1.0, 0.5]", "['0.5', 1]", "[0.5, 1, 0.5]"])
def test_multipliers_may_be_a_list_or_a_string(write, text):
    config = load_config(write(f"space:\n  width_mult_list: {text}"))
    assert config.space.width_mult_list == (1.0, 0.5)
    assert load_config(None, [], {"space.depth_mult_list": "1 0.5"}).space.depth_mult_list == (1.0, 0.5)
    assert load_config(None, ["space.depth_mult_list=0.5"]).space.depth_mult_list == (0.5,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("finetun: {}", "unknown key 'finetun'. Did you mean 'finetune'?"),
        ("train: {learning_rte: 1}", "unknown key 'train.learning_rte'. Did you mean 'learning_rate'?"),
        ("width: {lambda_hiden: 1}", "unknown key 'width.lambda_hiden'. Did you mean 'lambda_hidden'?"),
        ("task: {max_length: 9}", "unknown key 'task.max_length'. Did you mean 'max_seq_length'?"),
        ("space: {width_mults: 1}", "unknown key 'space.width_mults'. Did you mean 'width_mult_list'?"),
        ("rewire: {learning_rate: 1}", "unknown key 'rewire.learning_rate'."),
        ("xyzzy: 1", "unknown key 'xyzzy'. Known keys: model_name_or_path, output_dir,"),
        ("finetune: {temperature: 1}", "unknown key 'finetune.temperature'."),
    ],
)
def test_an_unknown_key_suggests_the_nearest(write, text, words):
    with pytest.raises(UsageError) as error:
        load_config(write(text))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("stage", STAGES)
def test_an_unknown_key_of_an_override_or_a_flag_is_refused(stage):
    with pytest.raises(UsageError, match=rf"unknown key '{stage}\.sede'\. Did you mean 'seed'\?"):
        load_config(None, [f"{stage}.sede=1"])
    with pytest.raises(UsageError, match=rf"unknown key '{stage}\.sede'\. Did you mean 'seed'\?"):
        load_config(None, [], {f"{stage}.sede": 1})


@pytest.mark.parametrize("text", ["{1: 2}", "task: {1: 2}", "train: {1: 2}", "train: {null: 1}", "width: {yes: 1}"])
def test_a_key_that_is_not_a_string_is_refused(write, text):
    with pytest.raises(UsageError):
        load_config(write(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {max_steps: many}", "train.max_steps in FILE: 'many' is not allowed"),
        ("train: {max_steps: 2.5}", "train.max_steps in FILE: 2.5 is not allowed"),
        ("train: {learning_rate: 2e-5x}", "train.learning_rate in FILE: '2e-5x' is not allowed"),
        ("train: {learning_rate: [1]}", "train.learning_rate in FILE: [1] is not allowed"),
        ("baseline: {method: distilbrt}", "'finetuned'. Did you mean 'distilbert'?"),
        ("train: {amp: fp8}", "train.amp in FILE: 'fp8' is not allowed: input should be 'off', 'bf16' or 'fp16'"),
        (
            "depth: {subnets_per_step: some}",
            "depth.subnets_per_step in FILE: 'some' is not allowed: input should be 'all' or",
        ),
        ("depth: {include_padding: 3}", "depth.include_padding in FILE: 3 is not allowed"),
        (
            "rewire: {accumulation: hawei}",
            "rewire.accumulation in FILE: 'hawei' is not allowed: input should be 'per_batch'",
        ),
        ("stages: [width, teach]", "stages in FILE: 'teach' is not allowed: input should be 'finetune', 'rewire'"),
        ("stages: finetune", "stages in FILE: 'finetune' is not allowed"),
        ("task: {kind: ranking}", "task.kind in FILE: 'ranking' is not allowed"),
        ("task: {name: 3}", "task.name in FILE: 3 is not allowed"),
        ("task: snips", "task in FILE: 'snips' is not allowed"),
        ("rewire: [1]", "rewire in FILE: [1] is not allowed"),
        ("device: 0", "device in FILE: 0 is not allowed"),
        ("train: 3", "train in FILE: a section holds keys and values, not 3"),
        (
            "space: {width_mult_list: wide}",
            "multipliers are numbers such as '1.0 0.75 0.5' or '3/4 2/3 1/2', not 'wide'",
        ),
        ("space: {depth_mult_list: null}", "multipliers are numbers such as '1.0 0.75 0.5' or '3/4 2/3 1/2', not None"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(write, text, words):
    file = write(text)
    with pytest.raises(UsageError) as error:
        load_config(file)
    assert words.replace("FILE", f"{file}, line 1") in str(error.value)
    assert "\n" not in str(error.value)


MINIMUM = {
    "max_steps": 1, "per_device_train_batch_size": 1, "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1, "learning_rate": 0, "warmup_ratio": 0, "weight_decay": 0, "max_grad_norm": 0,
    "seed": 0, "holdout_size": 1, "eval_steps": 0, "save_steps": 0, "save_minutes": 0, "logging_steps": 1,
    "num_random_subnets": 0,
    "lambda_logit": 0, "lambda_hidden": 0,
}  # fmt: skip


@pytest.mark.parametrize(("key", "minimum"), list(MINIMUM.items()))
def test_a_number_below_the_minimum_is_refused(key, minimum):
    assert getattr(load_config(None, [], {f"width.{key}": minimum}).width, key) == minimum
    with pytest.raises(UsageError, match=rf"width\.{key} is at least {minimum}, not {minimum - 1}"):
        load_config(None, [], {f"width.{key}": minimum - 1})


@pytest.mark.parametrize("key", ["num_train_epochs", "adam_epsilon", "temperature"])
@pytest.mark.parametrize("value", [0, -1.0])
def test_a_number_that_must_be_positive_is_refused_at_0(key, value):
    with pytest.raises(UsageError, match=f"^width.{key} is more than 0, not {value}$"):
        load_config(None, [], {f"width.{key}": value})


@pytest.mark.parametrize(
    ("key", "value"),
    [("train.warmup_ratio", 1.01), ("train.seed", 2**31), ("rewire.holdout_size", 0), ("task.max_seq_length", 2)],
)
def test_a_number_out_of_range_is_refused(key, value):
    words = rf"{key.split('.')[1]} is at (least|most) [\d.e+]+, not {value}$"
    with pytest.raises(UsageError, match=words):
        load_config(None, [], {key: value})


@pytest.mark.parametrize("value", [".inf", ".nan"])
@pytest.mark.parametrize("key", ["train.learning_rate", "train.num_train_epochs", "width.temperature"])
def test_a_number_that_is_not_finite_is_refused(key, value):
    with pytest.raises(UsageError, match=rf"{key.split('.')[1]}: .* should be a finite number"):
        load_config(None, [f"{key}={value}"])


@pytest.mark.parametrize("value", ["[]", "''", "[2.0]", "[1.0, 0]", "[-1]", "[.nan]"])
@pytest.mark.parametrize("key", ["width_mult_list", "depth_mult_list"])
def test_multipliers_out_of_range_are_refused_before_anything_runs(key, value):
    with pytest.raises(UsageError):
        load_config(None, [f"space.{key}={value}"])


def test_amp_may_be_off_without_quotes(write):
    """YAML 1.1 reads a bare `off` as false."""
    assert load_config(write("train: {amp: 'off'}")).width.amp == "off"
    assert load_config(write("train: {amp: off}")).width.amp == "off"
    assert load_config(None, ["width.amp=off"]).width.amp == "off"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed", "override seed: write it as section.key=value"),
        ("train.seed=[1", "override train.seed=[1: line 1: not YAML"),
        ("=3", "unknown key ''"),
        ("train=3", "train: a section holds keys and values, not 3"),
        ("width=3", "width: 3 is not allowed"),
        ("width.seed.x=3", "override width.seed.x: {'x': 3} is not allowed"),
        ("width.seed=", "width.seed: None is not allowed"),
    ],
)
def test_a_malformed_override_is_refused(override, words):
    with pytest.raises(UsageError) as error:
        load_config(None, [override])
    assert words in str(error.value)


def test_an_override_below_a_value_is_refused(write):
    with pytest.raises(UsageError, match="'device.x': 'device' is a value, not a section"):
        load_config(write("device: cpu"), ["device.x=1"])


@pytest.mark.parametrize("section", ["train", "finetune"])
def test_an_empty_section_may_be_overridden(write, section):
    """A section with all keys commented out is null in YAML."""
    path = write(f"{section}:\n#  seed: 1\n")
    assert load_config(path, [f"{section}.seed=3"]).finetune.seed == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"- finetune\n", "a config holds keys and values, not list"),
        (b"finetune\n", "a config holds keys and values, not str"),
        (b"3\n", "a config holds keys and values, not int"),
        (b"device: cpu\ntrain: {seed: 1\n", "line 3: not YAML"),
        (b"a: b: c\n", "line 1: not YAML"),
        (b"device: \xff\xfe\n", "cannot be read"),
        ("device: 設備".encode("gb18030"), "cannot be read"),
        (b"x: !!python/object/apply:os.getcwd []\n", "not YAML: could not determine"),
    ],
)
def test_a_file_that_is_not_a_config_is_named(write, content, words):
    path = write(content)
    with pytest.raises(UsageError) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path}:")
    assert words in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


def test_files_are_read_as_utf8(write):
    assert load_config(write("task: {labels: [好, größe]}")).task.labels == ("好", "größe")


@pytest.mark.parametrize("name", built_in_configs())
def test_every_built_in_config_loads(name):
    config = load_config(find_config(name))
    assert config.stages
    assert (config == Config()) == (name == "default")


def test_built_in_configs_are_found_by_name_and_files_by_path(write):
    assert {"default", "quickstart"} <= set(built_in_configs())
    path = write("device: cpu")
    assert find_config(str(path)) == path
    with pytest.raises(UsageError, match=r"quikstart: no such file, .*Did you mean 'quickstart'\?"):
        find_config("quikstart")


@pytest.mark.parametrize("benchmark", ["glue", "clue"])
def test_every_task_of_a_benchmark_has_a_config(benchmark):
    folder = find_config("default").parent / benchmark
    names = [name for name, task in CATALOG.items() if task.loader and bool(task.submission) == (benchmark == "glue")]
    assert {path.stem for path in folder.iterdir()} == {*names, *(f"{name}-best" for name in names)}
    for name in names:
        config = load_config(find_config(f"{benchmark}/{name}"))
        assert config.task.name == name
        # All stages use the paper's defaults, except that fine-tuning on CLUE follows PaddleNLP.
        sections = ("rewire", "width", "depth", "final", *(["finetune"] if benchmark == "glue" else []))
        assert all(getattr(config, section) == getattr(Config(), section) for section in sections)


def test_configs_do_not_repeat_defaults():
    for name in built_in_configs():
        values = yaml.safe_load(find_config(name).read_text(encoding="utf-8"))
        for section in set(values) & set(SECTIONS):
            defaults = dataclasses.asdict(SECTIONS[section]())
            resolved = dataclasses.asdict(getattr(load_config(find_config(name)), section))
            assert not [key for key in values[section] if resolved[key] == defaults[key]], (name, section)


@pytest.mark.parametrize("name", built_in_configs())
def test_a_resolved_config_reads_back_from_yaml(write, name):
    overrides = ["task.labels=[x, 'no']", "train.seed=3", "train.amp=bf16", "space.width_mult_list=1 .5"]
    config = load_config(find_config(name), overrides)
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    assert load_config(write(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))) == config
    assert load_config(write(yaml.safe_dump(dataclasses.asdict(Config())))) == Config()


@pytest.mark.parametrize(
    "section", [FinetuneConfig, RewireConfig, WidthConfig, DepthConfig, FinalConfig, BaselineConfig, TaskConfig]
)
def test_a_single_section_is_validated(section):
    config = resolve_config(section, {})
    assert config == section()
    assert resolve_config(section, dataclasses.asdict(config)) == config
    with pytest.raises(UsageError, match=rf"{section.__name__}: unknown key 'sed'"):
        resolve_config(section, {"sed": 1})


def test_a_single_section_checks_ranges_and_types():
    with pytest.raises(UsageError, match="^temperature is more than 0, not 0$"):
        resolve_config(WidthConfig, {"temperature": 0})
    with pytest.raises(UsageError, match="^seed: 'x' is not allowed"):
        resolve_config(WidthConfig, {"seed": "x"})


def test_configs_are_frozen_and_every_field_has_a_help_text():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_config().width.seed = 3
    for section in SECTIONS.values():
        assert all(field.metadata.get("help") for field in dataclasses.fields(section)), section


def numbers():
    for name, section in SECTIONS.items():
        for field in dataclasses.fields(section):
            kind = typing.get_type_hints(section)[field.name]
            if {kind, *typing.get_args(kind)} & {int, float} and not field.name.endswith("_mult_list"):
                yield f"{name}.{field.name}"


@pytest.mark.parametrize("key", list(numbers()))
def test_no_number_may_be_negative(key):
    with pytest.raises(
        UsageError, match=rf"{key.removeprefix('task.').removeprefix('baseline.')} is (at least|more than) \d, not -1$"
    ):
        load_config(None, [], {key: -1})


def test_lasting_settings_omit_reporting():
    lasting = lasting_settings(WidthConfig())
    assert lasting == lasting_settings(WidthConfig(logging_steps=1, save_steps=1, save_minutes=1))
    assert set(lasting) == {f.name for f in dataclasses.fields(WidthConfig)} - {
        "logging_steps",
        "save_steps",
        "save_minutes",
        "early_stopping_patience",
        "ema_decay",
        "random_subnets",
        "lambda_label",
        "lambda_contrastive",
        "unlabelled_files",
        "lambda_relation",
        "relation_layer",
        "teacher_name_or_path",
    }
    assert lasting != lasting_settings(WidthConfig(temperature=2.0))


def test_settings_that_earlier_versions_lack_are_recorded_only_where_they_are_set():
    """The folders of a run that does not use them stay what they were."""
    later = {"early_stopping_patience": 3, "class_weights": "balanced", "focal_gamma": 2.0, "label_smoothing": 0.1}
    later |= {"ema_decay": 0.9}
    assert not later.keys() & lasting_settings(FinetuneConfig()).keys()
    assert not later.keys() & recorded_settings(Config())["final"].keys()
    for name, value in later.items():
        config = FinetuneConfig(**{name: value})
        assert lasting_settings(config) == lasting_settings(FinetuneConfig()) | {name: value}
        assert recorded_settings(Config(finetune=config))["finetune"][name] == value
        assert load_config(None, [], {f"finetune.{name}": value}).finetune == config


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("balanced", "balanced"),
        ("{pos: 3, neg: 1.5}", {"pos": 3.0, "neg": 1.5}),
        ("{1: 2, 0: 1}", {"1": 2.0, "0": 1.0}),
        ("{true: 2}", {"true": 2.0}),
        ("null", None),
    ],
)
def test_class_weights_are_balanced_or_by_label(write, text, weights):
    config = load_config(write(f"train: {{class_weights: {text}}}"))
    assert config.finetune.class_weights == config.final.class_weights == config.baseline.class_weights == weights
    assert load_config(None, [f"final.class_weights={text}"]).final.class_weights == weights
    resolved = json.loads(json.dumps(recorded_settings(config)))
    assert load_config(write(yaml.safe_dump(resolved))) == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("finetune: {class_weights: balance}", "line 1: 'balance' is not allowed: input should be 'balanced', or"),
        ("finetune: {class_weights: balance}", "Did you mean 'balanced'?"),
        ("finetune: {class_weights: [1, 2]}", "[1, 2] is not allowed: input should be 'balanced', or"),
        ("finetune: {class_weights: {a: -1}}", "finetune.class_weights in config.yaml, line 1 is at least 0, not -1"),
        ("finetune: {class_weights: {a: x}}", "'x' is not allowed: input should be a valid number"),
        ("finetune: {class_weights: {a: .inf}}", "inf is not allowed: input should be a finite number"),
        ("finetune: {label_smoothing: 1}", "label_smoothing in config.yaml, line 1 is less than 1, not 1"),
        (
            "width: {class_weights: balanced}",
            "unknown key 'width.class_weights'. It is one of finetune, final, baseline.",
        ),
        ("depth: {focal_gamma: 2}", "unknown key 'depth.focal_gamma'. It is one of finetune, final, baseline."),
    ],
)
def test_settings_of_the_label_loss_that_mean_nothing_are_refused(write, text, words):
    with pytest.raises(UsageError) as error:
        load_config(write(text))
    assert words in str(error.value).replace(str(write(text).parent) + "/", "") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        (
            "bench B --batch_size 1 32 --seq_length 32 128 --json",
            ["bench", "B", "--batch_size", "1 32", "--seq_length", "32 128", "--json"],
        ),
        (
            "train_width D --width_mult_list 1.0 .5 --seed 3",
            ["train_width", "D", "--width_mult_list", "1.0 .5", "--seed", "3"],
        ),
        ("rewire D --width_mult_list 3/4 2/3 1", ["rewire", "D", "--width_mult_list", "3/4 2/3 1"]),
        ("bench 7 8", ["bench", "7", "8"]),
        ("bench --batch_size 1 2 dir", ["bench", "--batch_size", "1 2", "dir"]),
    ],
)
def test_numbers_after_a_flag_are_joined(words, joined):
    from dynabert_paddle.cli.main import join_numbers

    assert join_numbers(words.split()) == joined


def test_a_sister_task_keeps_the_models_max_seq_length():
    base = {"task": {"name": "mnli", "max_seq_length": 256, "dev_file": "dev_matched.tsv"}}
    task = load_config(flags={"task.name": "mnli-mm"}, base=base).task
    assert (task.name, task.max_seq_length, task.dev_file) == ("mnli-mm", 256, None)


def alias_bomb(levels):
    """A few lines of YAML whose aliases expand to 10 ** levels values."""
    lines = ["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels))]
    return "\n".join([*lines, f"task: {{name: *a{levels - 1}}}"])


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (alias_bomb(12), "its aliases stand for more than 65,536 values"),
        ("task: &a {name: *a}", "its aliases stand for more than"),
        ("[" * 50_000, "not YAML: nested more than 30 deep"),
        ("task: {name: 2020-13-45}", "not YAML: month must be in 1..12"),
        ("task: {max_seq_length: " + "9" * 5000 + "}", "not YAML: Exceeds the limit"),
        ("x: 1\n" * 100_000, "has 500,000 characters, a config at most 262,144"),
        ("task: {name: !!python/object/apply:os.system ['touch hacked']}", "not YAML: could not determine"),
    ],
)
def test_harmful_yaml_is_refused(write, text, seen):
    with pytest.raises(UsageError, match=r"config\.yaml: ") as caught:
        load_config(write(text))
    assert seen in str(caught.value) and "\n" not in str(caught.value)


def test_an_alias_of_a_few_values_is_accepted(write):
    config = load_config(write("finetune: &shared {seed: 3}\nwidth: *shared"))
    assert (config.finetune.seed, config.width.seed) == (3, 3)


@settings(max_examples=200, deadline=None)
@given(text=st.one_of(st.text(max_size=200), st.text("[]{}&*:-!|>?#'%@, \n\tab019.~<", max_size=60)))
def test_any_yaml_is_read_as_values_or_refused_in_one_line(text):
    try:
        parse_yaml(text, "my.yaml")
    except UsageError as error:
        assert str(error).startswith("my.yaml:") and "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (
            "task: {name: rte}\n\nspace: {}\ntask:\n  name: snips\n",
            "line 4: the section 'task' is given twice, first in line 1",
        ),
        ("task:\n  name: rte\n  name: snips\n", "line 3: the key 'name' is given twice, first in line 2"),
        ("train: {seed: 1, seed: 1}\n", "line 1: the key 'seed' is given twice, first in line 1"),
        ("device: cpu\n'device': auto\n", "line 2: the key 'device' is given twice, first in line 1"),
    ],
)
def test_a_duplicate_section_or_key_is_refused(write, text, seen):
    with pytest.raises(UsageError, match=seen):
        load_config(write(text))


def test_a_key_of_a_merged_mapping_may_be_overridden(write):
    config = load_config(write("width: &w {seed: 1, max_steps: 5}\ndepth:\n  <<: *w\n  seed: 2\nfinal: {<<: *w}\n"))
    assert (config.width.seed, config.depth.seed, config.depth.max_steps, config.final.seed) == (1, 2, 5, 1)
