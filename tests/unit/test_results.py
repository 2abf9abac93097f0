"""The parts of results.sh: rows, shapes, names, statistics, merging, tables."""

import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import dynabert_paddle as db
from dynabert_paddle.data.metrics import compute_metrics
from dynabert_paddle.errors import DataError, UsageError
from dynabert_paddle.subnet import Subnet

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "tests/samples/glue"
SNIPS = [line.split("\t")[0] for line in (ROOT / "dynabert_paddle/data/snips/train.tsv").read_text().splitlines()[1:]]
SST2 = ROOT.parent / "shared/data/glue/SST-2/train.tsv"

pytestmark = pytest.mark.reference


@pytest.fixture
def scripts(monkeypatch):
    """The modules of scripts/lib."""
    monkeypatch.syspath_prepend(ROOT / "scripts/lib")
    return lambda name: importlib.import_module(name)


def shares_words(rows, one, others):
    """Whether a text has four words in a row that one of some other texts has: by search in the texts themselves."""
    words = rows[one].lower().split()
    spaced = [f" {' '.join(rows[other].lower().split())} " for other in others]
    runs = (f" {' '.join(words[start : start + 4])} " for start in range(len(words) - 3))
    return any(run in text for run in runs for text in spaced)


def test_rows_that_choose_share_no_four_words_with_rows_to_train_on(scripts):
    rows = scripts("results_rows")
    # Snips' own sentences, and parts of earlier ones after them, as SST-2's training file has them.
    texts = [
        *SNIPS[:200],
        *(" ".join(text.split()[1:]).upper() for text in SNIPS[:100]),
        *SNIPS[200:400],
        "too few words",
    ]
    train, tuning = rows.choose_tuning(texts, num_used=200)
    assert train == list(range(200))
    assert len(tuning) == 20
    assert min(tuning) >= 300, "the parts of the rows to train on are no rows that choose"
    assert not any(shares_words(texts, index, train) for index in tuning)
    apart = [index for index in range(200, len(texts)) if len(texts[index].split()) > 3]
    assert rows.find_apart(texts, 200) == [index for index in apart if not shares_words(texts, index, train)]
    with pytest.raises(DataError, match="300 training rows: too few for 200 to train on and 20 that choose"):
        rows.choose_tuning(texts[:300], num_used=200)


@pytest.mark.skipif(not SST2.is_file(), reason="SST-2 is not part of the package")
def test_sst2_has_enough_rows_that_choose(scripts):
    rows = scripts("results_rows")
    texts = [line.rsplit("\t", 1)[0] for line in SST2.read_text(encoding="utf-8").removesuffix("\n").split("\n")[1:]]
    train, tuning = rows.choose_tuning(texts, num_used=10_000)
    assert (len(train), len(tuning)) == (10_000, 500)
    used = {run for index in train for run in rows.word_runs(texts[index])}
    assert not any(used & rows.word_runs(texts[index]) for index in tuning)


def test_rows_that_choose_depend_on_the_texts_alone(scripts):
    choose = scripts("results_rows").choose_tuning
    texts = [*SNIPS[:150], *SNIPS[:10]]  # ten of them twice
    order = np.random.default_rng(0).permutation(len(texts))
    train, tuning = choose(texts, num_used=None)
    assert len(tuning) == 16
    assert not {texts[index] for index in train} & {texts[index] for index in tuning}
    _, again = choose([texts[index] for index in order], num_used=None)
    assert sorted(texts[order[index]] for index in again) == sorted(texts[index] for index in tuning)
    assert len(choose(SNIPS, num_used=None)[1]) == 500


@pytest.mark.parametrize("task", ["cola", "mrpc", "rte", "sts-b", "sst-2"])
def test_a_training_file_is_divided_in_its_own_format(task, scripts, tmp_path):
    rows = scripts("results_rows")
    split = rows.write_split(task, SAMPLES, tmp_path, None)
    whole = db.load_task(task, data_dir=SAMPLES)
    divided = db.load_task(task, train_file=split.train, dev_file=split.tuning)

    def content(*parts):
        lines = [zip(p.texts, p.pairs or p.texts, p.labels.tolist(), strict=True) for p in parts]
        return sorted(line for part in lines for line in part)

    assert content(divided.train, divided.dev) == content(whole.train)
    assert (split.num_train, split.num_tuning) == (len(divided.train), len(divided.dev))
    texts, labelled = rows.read_texts(task, SAMPLES, "dev"), rows.read_labels(task, SAMPLES, "dev")
    assert texts.labels is None
    assert [*texts.texts] == [*labelled.texts] == [*whole.dev.texts]
    assert labelled.labels.tolist() == whole.dev.labels.tolist()
    again = rows.write_split(task, SAMPLES, tmp_path / "elsewhere", None)
    assert again.digest == split.digest


def test_the_labelled_test_rows_of_mrpc_are_read(scripts):
    rows = scripts("results_rows")
    assert rows.splits_of("mrpc") == ("dev", "test")
    assert rows.splits_of("rte") == ("dev",)
    test = rows.read_labels("mrpc", SAMPLES, "test")
    unlabelled = (SAMPLES / "MRPC/test.tsv").read_text(encoding="utf-8-sig").splitlines()[1:]
    assert [*test.texts] == [line.split("\t")[3] for line in unlabelled]
    assert set(test.labels.tolist()) == {0, 1}
    with pytest.raises(
        UsageError, match=r"--glue_dir .*: it has no mrpc file MRPC/msr_paraphrase_test\.txt: name anoth"
    ):
        rows.read_labels("mrpc", SAMPLES.parent, "test")


@pytest.mark.parametrize("num_layers", [6, 12])
def test_fixed_size_models_have_the_macs_of_their_budget(num_layers, scripts):
    plan = scripts("results_plan")
    backbone = plan.Backbone("any", "any", num_layers)
    shapes = plan.fixed_shapes(backbone)
    assert list(shapes) == [0.5, 0.25, 0.125]
    for share, by_method in shapes.items():
        assert set(by_method) == set(plan.FIXED_SIZE)
        for subnet in by_method.values():
            assert backbone.macs_share(subnet) == pytest.approx(share, abs=1e-12)
    for share, divisor in ((0.25, 3), (0.125, 6)):
        tiny = Subnet.parse(shapes[share]["tinybert"])
        assert len(tiny.layers) == num_layers // divisor
        assert set(tiny.heads) == {12}
        # A layer has 128 * 4 * 384^2 + 2 * 128^2 * 384 MACs of attention and 128 * 2 * 384 a neuron: with 1,536 neurons
        # it has 239,075,328, of which 6 layers of the 12.5 % leave 179,306,496 to one.
        assert set(tiny.neurons) == {(179_306_496 - 88_080_384) // 98_304} == {928}
    thin = plan.Backbone("thin", "", 4, 64, 4, 128).space
    assert scripts("results_shapes").tinybert_shape(thin, 0.125, 1) is None, "its heads need more"


def rows_of(plan, num=2241, digest="abc"):
    return plan.Rows(num, digest)


def test_a_part_has_the_same_name_on_every_machine_and_another_one_with_other_settings(scripts, monkeypatch):
    plan = scripts("results_plan")
    here, there = plan.Backbone("big", "/here/big", 12), plan.Backbone("big", "/there/big", 12)

    def names(backbone=here, rows=None):
        return {part.label: part.name for part in plan.plan_parts("rte", backbone, 1, rows or rows_of(plan), [])}

    before = names()
    assert names(there) == before
    assert len(set(before.values())) == len(before)
    assert not {*names(rows=rows_of(plan, digest="other")).values()} & {*before.values()}
    monkeypatch.setitem(plan.BEST_SETTINGS, "depth.temperature", 2.0)
    changed = {label for label, name in names().items() if name != before[label]}
    assert changed == {"best", "search"}, "and what starts from it"
    monkeypatch.setitem(plan.BEST_SETTINGS, "depth.temperature", 1.0)  # the default
    assert names() == before


def test_the_recipe_is_the_built_in_one(scripts, tmp_path):
    plan = scripts("results_plan")
    config = db.load_config(flags={"recipe": "best"})
    assert (*plan.TEACHER_STAGES, *plan.BEST_STAGES) == config.stages
    (best,) = (
        part
        for part in plan.plan_parts("rte", plan.Backbone("minilm-l6", "minilm-l6", 6), 1, rows_of(plan), [])
        if part.label == "best"
    )
    values = plan.config_values(best.settings, 1, {})
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(values))
    own = db.load_config(tmp_path / "own.yaml")
    assert own == db.load_config(flags={**best.settings, "train.seed": 1}), "what names have hashes of"
    for stage in plan.BEST_STAGES:
        same = {"select_on": "dev", "eval_steps": 10**9, "seed": 1}  # nothing is chosen while training
        assert getattr(own, stage) == dataclasses.replace(getattr(config, stage), **same)
    assert plan.read_recipe("paper") == (("width", "depth", "final"), {})


def test_files_in_settings_count_by_their_contents(scripts, tmp_path):
    plan = scripts("results_plan")
    backbone = plan.Backbone("minilm-l6", "minilm-l6", 6)
    (best,) = (part for part in plan.plan_parts("rte", backbone, 1, rows_of(plan), []) if part.label == "best")
    names = []
    for folder, text in (("one", "same"), ("two", "same"), ("three", "other")):
        file = tmp_path / folder / "texts.tsv"
        file.parent.mkdir()
        file.write_text(text)
        names.append(plan.plan_trial(best, {"depth.augmented_file": str(file)}).name)
    assert names[0] == names[1] != names[2]


def test_the_two_best_fixed_size_models_of_each_budget_go_on(scripts):
    plan = scripts("results_plan")
    backbone, rows = plan.Backbone("minilm-l6", "minilm-l6", 6), rows_of(plan)
    first = [part for part in plan.plan_parts("rte", backbone, 1, rows, []) if part.kind == "baseline"]
    assert [part.label.split("-")[0] for part in first] == [*plan.FIXED_SIZE] * 3
    tuning = dict(
        zip((part.label for part in first), [0.5, 0.7, 0.6, 0.4, 0.9, 0.1, 0.1, 0.8, 0.2, 0.2, 0.3, 0.1], strict=True)
    )
    records = [{**part.key, "rows": [{"tuning": tuning[part.label]}]} for part in first]

    def second(some):
        parts = plan.plan_parts("rte", backbone, 2, rows, some)
        return [part.label for part in parts if part.kind == "baseline"]

    assert second(records) == [
        "tinybert-w1.00d0.50",
        "pruned-w1.00d0.50".replace("w1.00d0.50", "w0.50d1.00"),
        "distilbert-w0.50d0.50",
        "finetuned-w0.50d0.50",
        "pruned-w0.25d0.50",
        "distilbert-w0.25d0.50",
    ]
    assert second(records[1:]) == second(records)[2:], "a budget waits for all its models"


def test_ablations_train_as_the_recipe_does_but_for_one_of_its_parts(scripts):
    plan = scripts("results_plan")
    backbone = plan.Backbone("minilm-l6", "minilm-l6", 6)
    parts = {part.label: part for part in plan.plan_parts("mrpc", backbone, 2, rows_of(plan), [])}
    best, rewiring, distillation = (parts[label] for label in ("best", "without-rewiring", "without-distillation"))
    assert rewiring.settings == best.settings
    assert (rewiring.needs, rewiring.from_stage) == (best.needs, "finetune")
    assert rewiring.name.split("-")[-1] != best.name.split("-")[-1]
    assert distillation.settings["stages"] == ("final",)
    for key in ("num_train_epochs", "learning_rate", "subnets_per_step"):
        assert distillation.settings[f"final.{key}"] == best.settings[f"depth.{key}"]
    labels = [part.label for part in plan.plan_parts("mrpc", backbone, 3, rows_of(plan), [])]
    assert not [label for label in labels if label.startswith("without")], "two seeds"


def test_a_trial_changes_the_stage_alone_and_gains_in_the_mean_of_the_grid(scripts):
    plan, trial = scripts("results_plan"), scripts("results_trial")
    backbone = plan.Backbone("minilm-l6", "minilm-l6", 6)
    pairs, records = [], []
    for task, gains in (("mrpc", (0.004, 0.002)), ("sts-b", (0.01, -0.006))):
        for seed, gain in zip((1, 2), gains, strict=True):
            (best,) = (p for p in plan.plan_parts(task, backbone, seed, rows_of(plan), []) if p.label == "best")
            changed = plan.plan_trial(best, {"depth.temperature": 2.0})
            assert changed.needs is best.needs
            assert changed.name.split("-")[-1] != best.name.split("-")[-1]
            pairs.append((best, changed))
            records.append({**best.key, "rows": [{"tuning": 0.8}, {"tuning": 0.6}]})
            records.append({**changed.key, "rows": [{"tuning": 0.8 + 2 * gain}, {"tuning": 0.6}]})
    found = trial.find_gains(records, pairs)
    assert found["minilm-l6", "mrpc"] == pytest.approx([0.4, 0.2])
    assert found["minilm-l6", "sts-b"] == pytest.approx([1.0, -0.6])
    assert not trial.stays(found), "0.3 points, and 0.2"
    assert trial.stays({"a": [0.4, 0.3]})
    with pytest.raises(UsageError, match=r"--set finetune\.seed: a trial changes .* pass depth\.KEY or space\.KEY"):
        plan.plan_trial(best, {"finetune.seed": 2})


def test_fixed_size_models_see_as_many_examples_as_the_chain(scripts):
    plan = scripts("results_plan")
    # Three epochs, a tenth of the rows for the importance, and 3.4 epochs.
    assert plan.num_examples(1000) == 3000 + 100 + 3400
    assert plan.num_examples(10_000) == 30_000 + 500 + 34_000


@pytest.mark.parametrize("metric", ["accuracy", "matthews", "pearson"])
def test_resamples_are_scored_as_rows_are(metric, scripts):
    statistics, score = scripts("results_statistics"), scripts("results_score").score
    random = np.random.default_rng(0)
    n = 40
    labels = random.normal(3, 1, n) if metric == "pearson" else random.integers(0, 2, n)
    outputs = labels - 0.4 + random.normal(0, 0.8, (3, n))
    outputs[2] = 1.0  # constant
    drawn = random.integers(0, n, (5, n))
    counts = np.stack([np.bincount(rows, minlength=n) for rows in drawn]).astype(float)
    expected = [[score(metric, model[rows], labels[rows]) for rows in drawn] for model in outputs]
    np.testing.assert_allclose(statistics.score_resamples(metric, outputs, labels, counts), expected, atol=1e-9)


def test_a_score_is_the_metric_of_the_logits(scripts):
    margins, score = scripts("results_run").margins, scripts("results_score").score
    random = np.random.default_rng(0)
    logits, labels = random.normal(0, 3, (500, 2)).astype("float32"), random.integers(0, 2, 500)
    kept = margins(logits, "classification")
    assert kept.dtype == np.float16
    for metric in ("accuracy", "matthews"):
        assert score(metric, kept.astype(float), labels) == compute_metrics([metric], logits, labels)[metric]
    values = random.normal(3, 1, (500, 1)).astype("float32")
    targets = (values[:, 0] + random.normal(0, 1, 500)).astype("float32")
    kept = margins(values, "regression").astype(float)
    assert score("pearson", kept, targets) == pytest.approx(
        compute_metrics(["pearson"], values, targets)["pearson"], abs=1e-9
    )


def test_an_interval_of_a_difference_is_as_wide_as_theory_has_it(scripts):
    statistics = scripts("results_statistics")
    random = np.random.default_rng(1)
    n = 1000
    labels = random.integers(0, 2, n)
    truth = 2.0 * labels - 1

    def model(share_right):
        return np.where(random.random(n) < share_right, truth, -truth)[None]

    left, right = model(0.9), model(0.8)
    found = statistics.compare([statistics.Pair("accuracy", labels, [left], [right])])
    gains = (left[0] == truth).astype(float) - (right[0] == truth)
    error = gains.std() / np.sqrt(n)  # of the mean of paired differences
    assert found.value == pytest.approx(gains.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found.low < found.value < found.high
    same = statistics.compare([statistics.Pair("accuracy", labels, [left], [left])])
    assert (same.value, same.low, same.high) == (0, 0, 0), "the rows are paired"


def test_an_interval_has_the_spread_over_seeds_and_the_mean_over_tasks(scripts):
    statistics = scripts("results_statistics")
    n = 400
    labels = np.arange(n) % 2
    right = 2.0 * labels - 1
    wrong = -right

    def model(share_right):
        return np.concatenate([right[: int(share_right * n)], wrong[int(share_right * n) :]])[None]

    # Left is 0.2 better with one seed and equal with the other: seeds alone give 0, 0.1 or 0.2.
    pair = statistics.Pair("accuracy", labels, [model(0.9), model(0.7)], [model(0.7), model(0.7)])
    found = statistics.compare([pair])
    assert found.value == pytest.approx(0.1)
    assert found.low == pytest.approx(0, abs=0.01)
    assert found.high > 0.19
    paired = statistics.Pair("accuracy", labels, [model(0.9), model(0.7)], [model(0.8), model(0.6)])
    assert statistics.compare([paired]).low > 0.05, "the seeds are paired: it is 0.1 better with each"
    equal = statistics.Pair("accuracy", labels, [model(0.7)], [model(0.7)])
    assert statistics.compare([pair, equal]).value == pytest.approx(0.05)
    assert statistics.compare([pair, equal]) == statistics.compare([pair, equal]), "the draws are the same each time"


def finished(run, bench, part, outputs, **row):
    """The record of a part, and its logits beside the records."""
    content = run.pack(outputs)
    bench.parts_file.parent.mkdir(parents=True, exist_ok=True)
    bench.logits_file(part.key).write_bytes(content)
    figures = {"examples": 10, "seconds": 5.0, "processor": "Large, avx2", "commit": "c"}
    rows = [{"method": part.method, "subnet": "w1.00d1.00", "macs_share": 1.0, "params": 9, "tuning": 0.5, **row}]
    needs = part.needs and part.needs.name
    return {**part.key, "rows": rows, "needs": needs, "logits": run.hash_bytes(content), **figures}


@pytest.fixture
def machines(scripts, tmp_path):
    """Two machines, the parts of RTE's plan, and a function that finishes one of them."""
    run, plan, parts = scripts("results_run"), scripts("results_plan"), scripts("parts")
    benches = [run.Bench(SAMPLES, tmp_path / name, tmp_path / name / "results/parts.json") for name in ("one", "two")]
    backbone = plan.Backbone("minilm-l6", "minilm-l6", 6)
    planned = {part.label: part for part in plan.plan_parts("rte", backbone, 1, rows_of(plan), [])}

    def finish(bench, label, outputs, **row):
        arrays = {"dev": np.asarray(outputs, dtype=np.float16)}
        parts.add_records(bench.parts_file, [finished(run, bench, planned[label], arrays, **row)], plan.KEY)

    return benches, planned, finish


def test_parts_of_several_machines_are_merged_once(scripts, machines):
    run, parts = scripts("results_run"), scripts("parts")
    (one, two), planned, finish = machines
    finish(one, "teacher", [[1.0, -1.0]])
    finish(two, "teacher", [[2.0, 2.0]])
    finish(two, "best", [[0.5, 0.25]])
    assert run.merge(one, two.parts_file) == 1
    assert run.merge(one, two.parts_file) == 0
    records = {record["part"]: record for record in parts.read_records(one.parts_file)}
    assert set(records) == {planned[label].name for label in ("teacher", "best")}
    assert run.read_logits(one, records[planned["best"].name])["dev"].tolist() == [[0.5, 0.25]]
    assert run.read_logits(one, records[planned["teacher"].name])["dev"].tolist() == [[1.0, -1.0]], "its own stays"
    one.logits_file(planned["best"].key).write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"rte_minilm-l6_1_best-\w+\.npz: it is missing or not the file of the record"):
        run.read_logits(one, records[planned["best"].name])


def test_results_have_the_fields_of_all_records_and_differences_to_the_best_fixed_size_model(scripts, machines):
    score, parts = scripts("results_score"), scripts("parts")
    (bench, _), planned, finish = machines
    labels = db.load_task("rte", data_dir=SAMPLES).dev.labels
    right = 2.0 * labels - 1
    worse, worst = right * [-1, *[1] * (len(labels) - 1)], right * [-1, -1, *[1] * (len(labels) - 2)]
    finish(bench, "teacher", [right])
    finish(bench, "distilbert-w1.00d0.50", [worse], subnet="w1.00d0.50", macs_share=0.5)
    finish(bench, "pruned-w0.50d1.00", [worst], subnet="w0.50d1.00", macs_share=0.5)
    finish(bench, "best", [right])
    finish(bench, "search", [right], subnet="w0.50d1.00", macs_share=0.5)
    scores, differences = score.score_parts(bench, list(planned.values()), parts.read_records(bench.parts_file))
    by_method = {record["method"]: record for record in scores}
    assert list(by_method["searched"]) == [
        *("task", "backbone", "seed", "method", "subnet", "macs_share", "params", "metric", "score", "examples"),
        *("seconds", "processor", "commit"),
    ]
    assert by_method["searched"]["seconds"] == 15, "the fine-tuning, the supernet and the search"
    n = len(labels)
    assert [by_method[name]["score"] for name in ("searched", "distilbert", "pruned")] == [1, 1 - 1 / n, 1 - 2 / n]
    (against,) = [d for d in differences if "best fixed size" in d["comparison"]]
    assert against["against"] == "distilbert w1.00d0.50"
    assert against["difference"] == pytest.approx(1 / n, abs=1e-6)
    teacher = next(d for d in differences if "half of the MACs" in d["comparison"])
    assert (teacher["difference"], teacher["low"], teacher["high"]) == (0, 0, 0)


def test_the_tables_equal_their_results(tmp_path, scripts):
    tables = scripts("results_tables")
    for name in ("results.json", "results.md", "results/differences.json"):
        copy = tmp_path / name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes((ROOT / "docs" / name).read_bytes())
    assert tables.write_tables(tmp_path / "results.json").read_bytes() == (ROOT / "docs/results.md").read_bytes()


def test_differences_stand_beside_their_targets(scripts):
    tables, score = scripts("results_tables"), scripts("results_score")
    common = {
        "backbone": "minilm-l6",
        "against": "teacher",
        "seeds": 2,
        "difference": -0.0123,
        "low": -0.03,
        "high": 0.01,
    }
    tasks = {"rte": ["rte"], "sst-2": ["sst-2"], "mean": ["rte", "sst-2"]}
    records = [
        {**common, "comparison": title, "task": task, "tasks": names}
        for title, _, _ in score.list_comparisons()
        for task, names in tasks.items()
    ]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in tables.show_differences(records).splitlines()]
    found = {(row[1], row[2]): row[-1] for row in cells[2:]}
    assert cells[2][-3:] == ["-1.23", "-3.00 to +1.00", ""]
    few = "searched, at most 30 % of the encoder's parameters, against the teacher"
    assert [found[few, task] for task in ("rte", "sst-2", "mean of rte, sst-2")] == ["-3.00", "-1.00", "-1.00"]
    targets = {title: found[title, "mean of rte, sst-2"] for title, _ in found}
    assert [*targets.values()] == ["+1.00"] * 3 + ["-1.00", "+0.00", "+1.00", "+2.00", "", ""], "none for the ablations"


def test_tables_tell_spreads_and_what_is_missing(scripts):
    tables = scripts("results_tables")
    common = {"task": "rte", "backbone": "minilm-l6", "subnet": "w1.00d1.00", "macs_share": 1, "params": 22_700_000}
    common |= {"metric": "accuracy", "method": "teacher", "seconds": 60.0, "processor": "Large", "examples": 9}
    records = [{**common, "seed": seed, "score": score} for seed, score in ((1, 0.6), (2, 0.7))]
    assert tables.scores(records).splitlines()[-1] == "| teacher | full | 0.6500 ± 0.0707 (2) | 0.6500 | 22.70 M |"
    lines = tables.missing(records, []).splitlines()
    assert "| bge-small | rte 1, 2, 3; mrpc 1, 2, 3 | everything |" in lines
    assert "| minilm-l6 | mrpc 1, 2; sts-b 1, 2 | ablation without rewiring |" in lines
    assert any(line.startswith("| minilm-l6 | rte 2 | grid, searched, paper, fixed size 0.5") for line in lines)
    assert json.loads((ROOT / "docs/results.json").read_text()) == scripts("parts").read_records(
        ROOT / "docs/results.json"
    )
