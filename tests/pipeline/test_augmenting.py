"""`dynabert augment` and the stages that train on its file: from the command to the bytes."""

import json
import logging
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import SNIPS, save_masked_lm
from paddlenlp.transformers import BertConfig, BertForMaskedLM

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.cli import main as command
from dynabert_paddle.data.augment import SOURCE_ROW
from dynabert_paddle.errors import DynabertError, Interrupted, UsageError
from dynabert_paddle.training.inputs import split_task
from dynabert_paddle.training.masked_lm import MaskedLM

pytestmark = pytest.mark.full

ROWS = SNIPS.joinpath("train.tsv").read_text(encoding="utf-8").splitlines()[1:31]
TEXTS = [row.split("\t")[0] for row in ROWS]
N = 3


@pytest.fixture(scope="module")
def train_file(tmp_path_factory):
    """Texts without labels, some of them with nothing to replace."""
    path = tmp_path_factory.mktemp("texts") / "train.tsv"
    path.write_text("\n".join(["sentence\tid", "\t0", "so it was\t1", *(f"{text}\t2" for text in TEXTS)]) + "\n")
    return path


@pytest.fixture(scope="module")
def glove(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "glove.txt"
    words = ["fusion", "folk", *{word.lower() for text in TEXTS for word in text.split()}]
    vectors = np.random.default_rng(0).normal(size=(len(words), 4))
    path.write_text(
        "".join(f"{word} {' '.join(map(str, vector))}\n" for word, vector in zip(words, vectors, strict=True))
    )
    return path


def augment(masked_lm, train_file, output, *, task=None, word_vectors=None, overwrite=False, model=None, **settings):
    return db.augment(
        masked_lm,
        output,
        task={"name": "custom", "train_file": str(train_file), **(task or {})},
        config=db.AugmentConfig(**{"num_copies": N, "num_candidates": 5, **settings}),
        word_vectors=word_vectors,
        model_name_or_path=model,
        overwrite=overwrite,
    )


def words_of(masked_lm, train_file, output, *more):
    """The command line that does what `augment` above does."""
    words = ["augment", "--task_name", "custom", "--train_file", train_file, "--masked_lm", masked_lm]
    words += ["--output_file", output, "--num_copies", N, "--num_candidates", 5, *more]
    return list(map(str, words))


@pytest.fixture
def dynabert(capsys, monkeypatch):
    """Runs the command in this process, through the entry point that the shell calls."""

    def run(*words):
        logger = logging.getLogger("dynabert_paddle")
        handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
        monkeypatch.setattr(sys, "argv", ["dynabert", *words])
        try:
            with pytest.raises(SystemExit) as caught:
                command.main()
        finally:
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)
        return caught.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def augmented(masked_lm, train_file, glove, tmp_path_factory):
    """The file that an uninterrupted run makes, with what it counted."""
    output = tmp_path_factory.mktemp("augmented") / "aug.tsv"
    return output, augment(masked_lm, train_file, output, word_vectors=glove, model="minilm-l6")


def test_each_row_comes_first_and_then_its_copies(augmented):
    output, counts = augmented
    header, *lines = output.read_text(encoding="utf-8").splitlines()
    assert header == f"sentence\t{SOURCE_ROW}"
    texts, sources = zip(*(line.split("\t") for line in lines), strict=True)
    assert list(map(int, sources)) == [row for row in range(len(TEXTS) + 2) for _ in range(N + 1)]
    assert list(texts[:: N + 1]) == ["", "so it was", *TEXTS]
    assert set(texts[: 2 * (N + 1)]) == {"", "so it was"}
    changed = sum(text != texts[row // (N + 1) * (N + 1)] for row, text in enumerate(texts))
    assert changed > len(TEXTS)
    assert counts == (len(TEXTS) + 2, (len(TEXTS) + 2) * (N + 1), counts.words_replaced)
    assert counts.words_replaced >= changed
    assert [path.name for path in output.parent.iterdir()] == ["aug.tsv"]


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_changes_nothing(augmented, masked_lm, train_file, glove, tmp_path, batch_size):
    output, counts = augmented
    again = tmp_path / "aug.tsv"
    assert augment(masked_lm, train_file, again, word_vectors=glove, batch_size=batch_size) == counts
    assert again.read_bytes() == output.read_bytes()


@pytest.mark.parametrize("change", [{"seed": 1}, {"probability": 0.5}, {"num_candidates": 4}, {"num_copies": 4}])
def test_every_setting_changes_the_result(augmented, masked_lm, train_file, glove, tmp_path, change):
    augment(masked_lm, train_file, tmp_path / "aug.tsv", word_vectors=glove, **change)
    assert (tmp_path / "aug.tsv").read_bytes() != augmented[0].read_bytes()


def test_without_word_vectors_words_of_several_tokens_stay(masked_lm, glove, tmp_path):
    (tmp_path / "train.tsv").write_text("text\nIheart\n")
    outputs = [tmp_path / "with.tsv", tmp_path / "without.tsv"]
    for output, vectors in zip(outputs, (glove, None), strict=True):
        augment(masked_lm, tmp_path / "train.tsv", output, word_vectors=vectors, probability=1)
    assert "Iheart" not in outputs[0].read_text().splitlines()[2]
    assert outputs[1].read_text().count("Iheart\t0\n") == N + 1


def test_probability_0_copies_and_1_replaces_every_word(masked_lm, train_file, tmp_path):
    assert augment(masked_lm, train_file, tmp_path / "0.tsv", probability=0).words_replaced == 0
    lines = (tmp_path / "0.tsv").read_text().splitlines()[1:]
    assert lines == [line for line in lines[:: N + 1] for _ in range(N + 1)]
    (tmp_path / "one.tsv").write_text("text\nriver song\n")
    augment(masked_lm, tmp_path / "one.tsv", tmp_path / "1.tsv", probability=1)
    copies = (tmp_path / "1.tsv").read_text().splitlines()[2:]
    assert len(copies) == N
    assert not any("river" in copy or "song" in copy for copy in copies)


def test_the_training_rows_of_a_data_folder_are_read(masked_lm, tiny_data, task_file, tmp_path):
    task = {"name": "custom", "data_dir": str(tiny_data)}
    config = db.AugmentConfig(num_copies=2, num_candidates=5)
    db.augment(masked_lm, tmp_path / "aug.tsv", task=task, config=config)
    assert (tmp_path / "aug.tsv").read_bytes() == task_file.read_bytes()


def test_pairs_and_json_lines(masked_lm, tmp_path):
    rows = [{"a": "a river\tand\na song", "b": "the radio", "label": "x"}, {"a": "", "b": "music"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"text_column": "a", "text_pair_column": "b"}
    for name in ("aug.jsonl", "aug.tsv"):
        augment(masked_lm, tmp_path / "train.jsonl", tmp_path / name, task=task, probability=1)
    records = [json.loads(line) for line in (tmp_path / "aug.jsonl").read_text().splitlines()]
    assert [record[SOURCE_ROW] for record in records] == [0] * (N + 1) + [1] * (N + 1)
    assert (records[0]["a"], records[0]["b"]) == (rows[0]["a"], rows[0]["b"])
    for record in records[1 : N + 1]:
        assert record["a"] != rows[0]["a"] and record["b"].startswith("the ") and record["b"] != "the radio"
    header, *lines = (tmp_path / "aug.tsv").read_text().splitlines()
    assert header.split("\t") == ["a", "b", SOURCE_ROW]
    blank = str.maketrans("\t\n", "  ")
    assert lines == [f"{r['a'].translate(blank)}\t{r['b']}\t{r[SOURCE_ROW]}" for r in records]


def test_a_killed_run_goes_on_to_the_same_bytes(augmented, masked_lm, train_file, glove, tmp_path, dynabert):
    output = tmp_path / "aug.tsv"
    words = words_of(masked_lm, train_file, output, "--word_vectors", glove, "--batch_size", 2)
    state = tmp_path / ".aug.tsv.state"
    process = subprocess.Popen([sys.executable, "-m", "dynabert_paddle", *words], stderr=subprocess.PIPE)
    while process.poll() is None:
        if state.exists() and json.loads(state.read_text())["counts"]["rows_in"] >= 20:
            process.kill()
        time.sleep(0.001)
    assert process.wait() == -9, process.stderr.read()
    assert not output.exists()
    with (tmp_path / ".aug.tsv.partial").open("a") as partial:
        partial.write("half a li")
    with pytest.raises(UsageError, match="begun with seed = 42, this run has 43"):
        augment(masked_lm, train_file, output, word_vectors=glove, seed=43)
    code, out, err = dynabert(*words)
    expected, counts = augmented
    assert (code, out) == (0, f"{counts[0]} rows in, {counts[1]} rows out, {counts[2]} words replaced\n")
    assert "going on from row" in err
    assert f"next: dynabert train_width REWIRED_DIR --augmented_file {output}" in err
    assert output.read_bytes() == expected.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["aug.tsv"]


def test_ctrl_c_says_how_to_go_on(augmented, masked_lm, train_file, glove, tmp_path, monkeypatch):
    find_words, calls = MaskedLM.find_words, []

    def stop(*args, **options):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return find_words(*args, **options)

    monkeypatch.setattr(MaskedLM, "find_words", stop)
    options = {"word_vectors": glove, "batch_size": 10}
    with pytest.raises(Interrupted, match=r"stopped after 20 of 32 rows; the same command goes on") as caught:
        augment(masked_lm, train_file, tmp_path / "aug.tsv", **options)
    assert caught.value.exit_code == 130
    assert augment(masked_lm, train_file, tmp_path / "aug.tsv", **options) == augmented[1]
    assert (tmp_path / "aug.tsv").read_bytes() == augmented[0].read_bytes()


def test_an_existing_output_is_replaced_only_with_overwrite(augmented, masked_lm, train_file, glove, tmp_path):
    output = tmp_path / "aug.tsv"
    output.write_text("mine")
    with pytest.raises(UsageError, match="overwrite=True"):
        augment(masked_lm, train_file, output)
    assert output.read_text() == "mine"
    augment(masked_lm, train_file, output, word_vectors=glove, overwrite=True)
    assert output.read_bytes() == augmented[0].read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_copies": 0}, "num_copies is at least 1, not 0"),
        ({"num_candidates": 0}, "num_candidates is at least 1, not 0"),
        ({"batch_size": 0}, "batch_size is at least 1, not 0"),
        ({"probability": 1.5}, "probability is at most 1, not 1.5"),
        ({"probability": float("nan")}, "probability: nan is not allowed: input should be a finite number"),
        ({"seed": -1}, "seed is at least 0, not -1"),
        ({"task": {"max_seq_length": 200}}, "more than the masked LM's 128 positions"),
        ({"task": {"text_column": "sentense"}}, "Did you mean 'sentence'"),
        ({"word_vectors": "missing.txt"}, "no such file of word vectors"),
    ],
)
def test_impossible_settings_are_one_line_and_leave_no_files(masked_lm, train_file, tmp_path, change, said):
    with pytest.raises(DynabertError) as caught:
        augment(masked_lm, train_file, tmp_path / "aug.tsv", **change)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [("aug.csv", "ends in .tsv or .jsonl"), ("no/aug.tsv", "there is no folder"), ("", "ends in .tsv or .jsonl")],
)
def test_an_impossible_output_path_is_refused(masked_lm, train_file, tmp_path, name, said):
    with pytest.raises(UsageError, match=said):
        augment(masked_lm, train_file, tmp_path / name)


def test_the_training_file_is_never_replaced(masked_lm, tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("text\nriver\n")
    with pytest.raises(UsageError, match="is the file to read"):
        augment(masked_lm, path, path, overwrite=True)
    assert path.read_text() == "text\nriver\n"


def test_a_backbone_of_another_vocabulary_is_refused(train_file, tmp_path, dynabert):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nriver\nsong\n")
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "num_hidden_layers": 1}
    model = BertForMaskedLM(BertConfig(vocab_size=7, max_position_embeddings=128, **sizes))
    save_masked_lm(tmp_path, model, db.Tokenizer.from_pretrained(tmp_path))
    words = words_of(tmp_path, train_file, tmp_path / "aug.tsv", "--model_name_or_path", "minilm-l6")
    code, _, err = dynabert(*words)
    assert code == 2
    assert err.startswith("error: the masked LM's vocabulary has 7 tokens and that of minilm-l6 30522")
    assert err.count("\n") == 1
    assert not (tmp_path / "aug.tsv").exists()


@pytest.fixture(scope="module")
def task(tiny_data):
    return db.load_task("custom", data_dir=tiny_data)


@pytest.fixture(scope="module")
def task_file(tiny_data, masked_lm, tmp_path_factory):
    """The augmented file of a task that is trained on."""
    output = tmp_path_factory.mktemp("augmented") / "task.tsv"
    augment(masked_lm, tiny_data / "train.tsv", output, num_copies=2)
    return output


@pytest.mark.parametrize(("select_on", "num_rows"), [("holdout", 126), ("dev", 140)])
def test_copies_of_held_out_rows_are_not_trained_on(finetuned, task, task_file, select_on, num_rows):
    supernet = db.Supernet.from_pretrained(finetuned)
    plain = split_task(task, supernet, db.WidthConfig(select_on=select_on))
    split = split_task(task, supernet, db.WidthConfig(select_on=select_on, augmented_file=str(task_file)))
    assert split.train.labels is None
    assert len(split.train) == 3 * len(plain.train) == 3 * num_rows
    # Every third row is an original one.
    assert np.array_equal(split.train.select(np.arange(0, 3 * num_rows, 3)).input_ids, plain.train.input_ids)
    assert np.array_equal(split.select.input_ids, plain.select.input_ids)
    assert np.array_equal(split.select.labels, plain.select.labels)


def train_width(finetuned, task, output, **settings):
    supernet = db.Supernet.from_pretrained(finetuned)
    space = supernet.search_space(width_mults=(1.0, 0.5), depth_mults=(1.0,))
    config = db.WidthConfig(max_steps=4, learning_rate=1e-3, per_device_train_batch_size=16, **settings)
    teacher = db.Supernet.from_pretrained(finetuned)
    return db.train_width(supernet, teacher, task, space, output_dir=output, config=config)


def test_the_width_stage_trains_on_the_file(finetuned, task, task_file, tmp_path):
    plain = train_width(finetuned, task, tmp_path / "plain")
    trained = train_width(finetuned, task, tmp_path / "augmented", augmented_file=str(task_file))
    assert trained.metadata.provenance["settings"]["augmented_file"] == str(task_file)
    assert trained.metadata.metrics["holdout"].keys() == plain.metadata.metrics["holdout"].keys()
    arrays, others = to_arrays(plain.model), to_arrays(trained.model)
    assert any(not np.array_equal(arrays[name], others[name]) for name in arrays)


def test_an_unfinished_stage_does_not_go_on_with_another_file(finetuned, task, task_file, monkeypatch, tmp_path):
    path, output = tmp_path / "aug.tsv", tmp_path / "width"
    path.write_bytes(task_file.read_bytes())
    with monkeypatch.context() as patch:

        def stop(*args):
            raise KeyboardInterrupt

        patch.setattr("dynabert_paddle.training.loop._evaluate", stop)
        with pytest.raises(KeyboardInterrupt):
            train_width(finetuned, task, output, augmented_file=str(path), save_steps=1)
    lines = path.read_text().splitlines()
    lines[2] = "another text\t0"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError, match="data"):
        train_width(finetuned, task, output, augmented_file=str(path), save_steps=1)


def test_a_run_takes_the_file_in_its_distillation_stages(tiny_folder, tiny_data, task_file, tmp_path):
    overrides = [
        f"model_name_or_path={tiny_folder}",
        "task.name=custom",
        f"task.data_dir={tiny_data}",
        "task.max_seq_length=16",
        "space.width_mult_list=[1.0, 0.5]",
        "space.depth_mult_list=[1.0, 0.5]",
        "train.max_steps=1",
        f"width.augmented_file={task_file}",
        f"depth.augmented_file={task_file}",
    ]
    db.run(db.load_config(None, overrides, {"output_dir": str(tmp_path / "out")}))
    for stage in ("width", "depth"):
        metadata = json.loads((tmp_path / "out" / stage / "dynabert.json").read_text())
        assert metadata["provenance"]["settings"]["augmented_file"] == str(task_file)
    assert (
        "augmented_file"
        not in json.loads((tmp_path / "out/finetune/dynabert.json").read_text())["provenance"]["settings"]
    )
    with pytest.raises(UsageError, match="augmented_file"):
        db.load_config(None, [f"finetune.augmented_file={task_file}"])
