"""The stages on small models: they learn, hold out, select, log what they promise, and keep what they were made of."""

import json

import numpy as np
import paddle
import pytest
from conftest import make_bert
from visualdl import LogReader

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone, to_arrays
from dynabert_paddle.config.loading import resolve_config
from dynabert_paddle.files.array_hash import hash_arrays
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.training.evaluate import evaluate_subnets, predict_logits
from dynabert_paddle.training.inputs import split_task, tokenize_examples

pytestmark = pytest.mark.full

LENGTH = 16
COLOURS = ["red", "green", "blue", "white", "black"]
PLACES = ["north", "south", "east", "west", "river", "stone", "cloud", "forest", "field", "road", "house"]
WORDS = COLOURS + PLACES


def write_rows(path, header, rows):
    path.write_text("\n".join("\t".join(row) for row in (header, *rows)) + "\n", encoding="utf-8")


def texts(rng, count):
    return [" ".join(rng.choice(WORDS, rng.integers(2, 7))) for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer():
    return db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))


@pytest.fixture(scope="module")
def separable(tmp_path_factory):
    """Two classes, told apart by one word."""
    folder = tmp_path_factory.mktemp("separable")
    rng = np.random.default_rng(0)
    for name, count in (("train", 300), ("dev", 60)):
        rows = [
            (f"{text} {'good' if index % 2 else 'bad'}", "yes" if index % 2 else "no")
            for index, text in enumerate(texts(rng, count))
        ]
        write_rows(folder / f"{name}.tsv", ("sentence", "label"), rows)
    return db.load_task("custom", data_dir=folder)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Whether the second sentence says yes: what the first one says is noise."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for name, count in (("train", 300), ("dev", 60)):
        noise = [("good", "bad")[k] for k in rng.integers(0, 2, count)]
        rows = [
            (f"{first} {noise[index]}", f"{second} {'good' if index % 2 else 'bad'}", "01"[index % 2])
            for index, (first, second) in enumerate(zip(texts(rng, count), texts(rng, count), strict=True))
        ]
        write_rows(folder / f"{name}.tsv", ("question", "answer", "label"), rows)
    return db.load_task("custom", data_dir=folder, text_column="question", text_pair_column="answer", metrics=["f1"])


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """How many of three words a sentence has, as a score."""
    folder = tmp_path_factory.mktemp("scores")
    rng = np.random.default_rng(0)
    for name, count in (("train", 400), ("dev", 60)):
        rows = []
        for text in texts(rng, count):
            number = int(rng.integers(0, 4))
            rows.append((f"{text} {' '.join(['good'] * number)}", f"{number / 2:.1f}"))
        write_rows(folder / f"{name}.csv", ("text", "score"), rows)
        content = (folder / f"{name}.csv").read_text().replace("\t", ",")
        (folder / f"{name}.csv").write_text(content)
    return db.load_task("custom", data_dir=folder, kind="regression", label_column="score")


@pytest.fixture(scope="module")
def start(tokenizer, tmp_path_factory):
    """A small model that has never seen a label."""
    supernet = db.Supernet(make_bert(num_labels=2, num_layers=2), tokenizer)
    return supernet.save_pretrained(tmp_path_factory.mktemp("start") / "model")


def settings(section, **values):
    defaults = {"max_steps": 40, "learning_rate": 2e-3, "per_device_train_batch_size": 16, "eval_steps": 1000}
    return section(**{**defaults, "logging_steps": 5, **values})


def read_log(folder):
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def read_scalars(folder):
    """VisualDL's scalars of a run in one process, as (tag, step) -> value."""
    (path,) = (folder / "vdl").iterdir()
    reader = LogReader(file_path=str(path))
    tags = [tag.rpartition("/")[2].replace("%", "/") for tag, kind in reader.tags().items() if kind == "scalar"]
    return {(tag, point.id): point.value for tag in tags for point in reader.get_data("scalar", tag)}


@pytest.fixture(scope="module")
def chain(start, separable, tmp_path_factory):
    """All stages on the separable task, as the Python functions do them."""
    folder = tmp_path_factory.mktemp("chain")
    models = {}
    finetune = settings(db.FinetuneConfig)
    supernet = db.finetune(start, separable, output_dir=folder / "finetune", config=finetune, max_seq_length=LENGTH)
    models["finetune"] = db.extract(supernet, supernet.full)
    before = to_arrays(supernet.model)
    db.rewire(supernet, separable)
    models["rewire"] = db.extract(supernet, supernet.full)
    space = supernet.search_space(width_mults=(1.0, 0.5), depth_mults=(1.0, 0.5))
    teacher = db.Supernet.from_pretrained(folder / "finetune")
    db.train_width(
        supernet, teacher, separable, space, output_dir=folder / "width", config=settings(db.WidthConfig, eval_steps=20)
    )
    models["width"] = db.extract(supernet, supernet.full)
    db.train_depth(supernet, separable, space, output_dir=folder / "depth", config=settings(db.DepthConfig))
    models["depth"] = db.extract(supernet, supernet.full)
    sandwich = settings(db.FinalConfig, subnets_per_step="sandwich", num_random_subnets=1)
    db.train_final(supernet, separable, space, output_dir=folder / "final", config=sandwich)
    models["final"] = supernet
    return folder, models, space, before


def test_a_separable_task_is_learned_by_every_sub_network_of_each_stage(chain, separable):
    folder, _, _, _ = chain
    for stage in ("finetune", "width", "depth", "final"):
        rows = db.evaluate_grid(db.Supernet.from_pretrained(folder / stage), separable)
        assert len(rows) == {"finetune": 1, "width": 2}.get(stage, 4)
        assert min(row["accuracy"] for row in rows) > 0.95, stage


@pytest.mark.parametrize("stage", ["finetune", "width", "depth", "final"])
def test_the_loss_goes_down(chain, stage):
    losses = [line["train/loss"] for line in read_log(chain[0] / stage) if "train/loss" in line]
    assert len(losses) == 8  # every fifth of 40 steps
    assert losses[-1] < (0.6 if stage == "finetune" else 0.95) * losses[0]


def test_rewiring_keeps_the_logits_and_sorts_by_importance(chain, separable):
    _, models, _, before = chain
    features = tokenize_examples(separable.dev, models["finetune"])
    logits = [predict_logits(models[stage], features, [models[stage].full])[0] for stage in ("finetune", "rewire")]
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-4)
    importance = models["final"].metadata.importance
    assert [len(layer) for layer in importance["heads"] + importance["neurons"]] == [4, 4, 48, 48]
    for layer in importance["heads"] + importance["neurons"]:
        assert layer == sorted(layer, reverse=True)
    after = to_arrays(models["rewire"].model)
    assert any(not np.array_equal(after[name], before[name]) for name in after if "linear1" in name)


@pytest.mark.parametrize("stage", ["finetune", "width", "depth", "final"])
def test_visualdl_and_the_lines_of_the_log_agree(chain, stage):
    lines = read_log(chain[0] / stage)
    logged = {(tag, line["step"]): value for line in lines for tag, value in line.items() if tag != "step"}
    # VisualDL keeps floats of 32 bits.
    assert read_scalars(chain[0] / stage) == pytest.approx(logged, rel=1e-6)


@pytest.mark.parametrize(
    ("stage", "parts", "names", "evaluations"),
    [
        ("finetune", {"loss"}, {"w1.00d1.00"}, [40]),
        ("width", {"loss", "logit", "hidden"}, {"w1.00d1.00", "w0.50d1.00"}, [20, 40]),
        ("depth", {"loss", "logit", "hidden"}, {"w1.00d1.00", "w0.50d1.00", "w1.00d0.50", "w0.50d0.50"}, [40]),
        ("final", {"loss"}, {"w1.00d1.00", "w0.50d1.00", "w1.00d0.50", "w0.50d0.50"}, [40]),
    ],
)
def test_the_log_has_loss_parts_learning_rate_and_every_sub_networks_metrics(chain, stage, parts, names, evaluations):
    lines = read_log(chain[0] / stage)
    training = [line for line in lines if "train/loss" in line]
    assert all(set(line) - {"step"} == {f"train/{name}" for name in {*parts, "learning_rate"}} for line in training)
    if "logit" in parts:
        for line in training:
            assert line["train/loss"] == pytest.approx(line["train/logit"] + line["train/hidden"], rel=1e-4)
    assert training[0]["train/learning_rate"] == pytest.approx(2e-3 * 36 / 40)  # of the fifth step, after four
    scored = [line for line in lines if "train/loss" not in line]
    assert [line["step"] for line in scored] == evaluations
    expected = {f"eval/{metric}/{name}" for metric in ("accuracy", "macro_f1") for name in names}
    assert all(set(line) - {"step"} == expected for line in scored)


@pytest.mark.parametrize("stage", ["finetune", "width", "depth", "final"])
def test_the_saved_model_scores_as_its_metadata_says(chain, separable, stage):
    """The best weights were saved, not the last ones, and the scores beside them are theirs."""
    folder, _, space, _ = chain
    supernet = db.Supernet.from_pretrained(folder / stage)
    metrics = supernet.metadata.metrics
    assert (metrics["steps"], supernet.metadata.stage) == (40, stage)
    seed = supernet.metadata.provenance["settings"]["seed"]
    split = split_task(separable, supernet, db.FinetuneConfig(seed=seed))
    subnets = {name: space.parse(name) for name in metrics["holdout"]}
    again = evaluate_subnets(supernet, split.select, subnets, metrics=separable.metrics)
    assert again == {name: pytest.approx(row, abs=1e-6) for name, row in metrics["holdout"].items()}
    line = [
        line for line in read_log(folder / stage) if "train/loss" not in line and line["step"] == metrics["best_step"]
    ]
    assert line[0]["eval/accuracy/w1.00d1.00"] == metrics["holdout"]["w1.00d1.00"]["accuracy"]


def test_provenance_suffices_to_repeat_every_stage(chain, start):
    provenance = read_metadata(chain[0] / "final").provenance
    sections = [db.FinalConfig, db.DepthConfig, db.WidthConfig, db.RewireConfig, db.FinetuneConfig]
    for section in sections:
        assert provenance["versions"]["paddlepaddle"] == paddle.__version__
        resolve_config(section, provenance["settings"])
        provenance = provenance["parent"]
    assert provenance == str(start)


def rows_of(features):
    return [tuple(features.input_ids[a:b]) for a, b in zip(features.offsets, features.offsets[1:], strict=False)]


def test_the_holdout_and_the_training_examples_are_apart(tokenizer, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("train", "dev"):
        rows = [(f"{name} {index} {WORDS[index % 7]}", "ab"[int(rng.integers(0, 2))]) for index in range(100)]
        write_rows(tmp_path / f"{name}.tsv", ("sentence", "label"), rows)
    task = db.load_task("custom", data_dir=tmp_path)
    supernet = db.Supernet(make_bert(num_labels=2, num_layers=1), tokenizer)
    every = set(rows_of(tokenize_examples(task.train, supernet)))
    assert len(every) == 100
    split = split_task(task, supernet, db.FinetuneConfig(holdout_size=500))
    train, held = set(rows_of(split.train)), set(rows_of(split.select))
    assert (len(train), len(held), split.select_name) == (90, 10, "holdout")
    assert not train & held
    assert train | held == every
    assert len(split_task(task, supernet, db.FinetuneConfig(holdout_size=3)).select) == 3
    # The same examples for every stage of a seed, others for another.
    again = split_task(task, supernet, db.WidthConfig())
    assert set(rows_of(again.select)) == held
    assert set(rows_of(split_task(task, supernet, db.FinetuneConfig(seed=1)).select)) != held


def test_select_on_dev_trains_on_all_examples(start, separable, tmp_path):
    config = settings(db.FinetuneConfig, max_steps=2, select_on="dev")
    supernet = db.finetune(start, separable, output_dir=tmp_path / "m", config=config, max_seq_length=LENGTH)
    split = split_task(separable, supernet, config)
    assert (len(split.train), len(split.select), split.select_name) == (300, 60, "dev")
    (row,) = db.evaluate_grid(supernet, separable)
    assert supernet.metadata.metrics["dev"]["w1.00d1.00"]["accuracy"] == row["accuracy"]


def test_hashes_of_different_arrays_differ():
    ids, offsets, labels = np.arange(6, dtype="int32"), np.array([0, 2, 6]), np.array([0, 1])
    changed = [[ids[::-1], offsets, labels], [ids, np.array([0, 3, 6]), labels], [ids, offsets, labels[::-1]]]
    assert len({hash_arrays([ids, offsets, labels]), *map(hash_arrays, changed)}) == 4
    assert hash_arrays([ids, offsets, labels]) == hash_arrays([ids.copy(), offsets.copy(), labels.copy()])
    assert hash_arrays([np.zeros((4, 6))[:, ::2]]) == hash_arrays([np.zeros((4, 3))])  # strides are no content


def test_pairs_end_to_end(start, pairs, tmp_path):
    config = settings(db.FinetuneConfig, max_steps=120)
    supernet = db.finetune(start, pairs, output_dir=tmp_path / "teacher", config=config, max_seq_length=24)
    db.rewire(supernet, pairs)
    space = supernet.search_space(width_mults=(1.0, 0.5), depth_mults=(1.0,))
    teacher = db.Supernet.from_pretrained(tmp_path / "teacher")
    db.train_width(supernet, teacher, pairs, space, output_dir=tmp_path / "width", config=settings(db.WidthConfig))
    rows = db.evaluate_grid(db.Supernet.from_pretrained(tmp_path / "width"), pairs)
    assert [set(row) >= {"f1"} for row in rows] == [True, True]
    # The first sentences' words are coin flips: a model that reads them instead of the second ones scores 0.5.
    assert min(row["f1"] for row in rows) > 0.9
    assert read_metadata(tmp_path / "width").task["text_pair_column"] == "answer"


def test_regression_end_to_end(start, scores, tmp_path):
    config = settings(db.FinetuneConfig, max_steps=150)
    supernet = db.finetune(start, scores, output_dir=tmp_path / "teacher", config=config, max_seq_length=LENGTH)
    assert supernet.model.config.num_labels == 1
    db.rewire(supernet, scores)
    space = supernet.search_space(width_mults=(1.0, 0.5), depth_mults=(1.0, 0.5))
    teacher = db.Supernet.from_pretrained(tmp_path / "teacher")
    db.train_width(supernet, teacher, scores, space, output_dir=tmp_path / "width", config=settings(db.WidthConfig))
    db.train_depth(supernet, scores, space, output_dir=tmp_path / "depth", config=settings(db.DepthConfig))
    rows = db.evaluate_grid(db.Supernet.from_pretrained(tmp_path / "depth"), scores)
    assert len(rows) == 4
    assert all({"pearson", "spearman"} <= set(row) for row in rows)
    assert rows[0]["pearson"] > 0.9
    assert min(row["pearson"] for row in rows) > 0.7
    features = tokenize_examples(scores.dev, supernet)
    values = predict_logits(supernet, features, [supernet.full])[0][:, 0]
    assert np.corrcoef(values, scores.dev.labels)[0, 1] == pytest.approx(rows[0]["pearson"], abs=1e-4)
