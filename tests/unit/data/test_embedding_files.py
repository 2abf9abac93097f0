"""Files of embedding tasks: texts, scored pairs, and retrieval folders; and how the bad ones are refused."""

import json

import numpy as np
import pytest

import dynabert_paddle as db
from dynabert_paddle.data.embedding_groups import GroupedFeatures
from dynabert_paddle.data.embedding_settings import EmbeddingSettings
from dynabert_paddle.errors import DataError, UsageError
from dynabert_paddle.training.batches import cut_shard

TEXTS = [f"text number {i}" for i in range(30)]


def write(folder, name, lines):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def load(**arguments):
    return db.load_task("custom", kind="embedding", **arguments)


def write_retrieval(folder, *, judgements=None, split="test"):
    documents = [{"_id": f"d{i}", "title": "T" if i == 0 else "", "text": f"document {i}"} for i in range(5)]
    queries = [{"_id": f"q{i}", "text": f"query {i}"} for i in range(3)]
    write(folder, "corpus.jsonl", map(json.dumps, documents))
    write(folder, "queries.jsonl", map(json.dumps, queries))
    rows = judgements or ["q0\td0\t2", "q0\td3\t1", "q1\td4\t1", "q2\td1\t0"]
    write(folder / "qrels", f"{split}.tsv", ["query-id\tcorpus-id\tscore", *rows])
    return str(folder)


def test_a_file_of_texts_is_a_task_and_gives_its_own_dev_texts(tmp_path, caplog):
    train_file = write(tmp_path, "train.txt", [*TEXTS, "", "  "])
    task = load(train_file=train_file)
    assert task.metrics == ("cosine",) and task.labels == () and task.train.labels is None
    assert len(task.dev) == 3 and sorted([*task.train.texts, *task.dev.texts]) == sorted(TEXTS)
    assert "2 empty texts are left out; the first is in line 31" in caplog.text
    again = load(**{key: value for key, value in task.to_dict().items() if key not in ("name", "kind", "labels")})
    assert again.dev.texts == task.dev.texts and again.to_dict() == task.to_dict()


def test_a_column_or_two_of_a_table_are_texts_too(tmp_path):
    pairs = [f"first {i}\tsecond {i}" for i in range(20)]
    path = write(tmp_path, "train.tsv", ["sentence1\tsentence2", *pairs])
    assert len(load(train_file=path, dev_file=path).train) == 20  # sentence1 is found
    both = load(train_file=path, dev_file=path, text_column="sentence1", text_pair_column="sentence2").train
    assert list(both.texts[:4]) == ["first 0", "second 0", "first 1", "second 1"]


def test_scored_pairs_as_sts_b_has_them(tmp_path):
    train_file = write(tmp_path, "train.txt", TEXTS)
    rows = ["a\tb\t5.0", "c\td\t0", "e\tf\t2.5"]
    dev_file = write(tmp_path, "dev.tsv", ["sentence1\tsentence2\tscore", *rows])
    task = load(train_file=train_file, dev_file=dev_file)
    assert task.metrics == ("spearman", "cosine")
    assert list(task.dev.texts) == ["a", "b", "c", "d", "e", "f"]
    assert task.dev.judged.pairs.scores.tolist() == [5.0, 0.0, 2.5]
    assert not task.dev.is_query.any()


def test_a_retrieval_folder_in_beirs_form(tmp_path):
    train_file = write(tmp_path, "train.txt", TEXTS)
    task = load(train_file=train_file, retrieval_dir=write_retrieval(tmp_path / "beir"), query_prompt="query: ")
    assert task.metrics == ("recall@10", "mrr@10", "ndcg@10", "cosine")
    retrieval = task.dev.judged.retrieval
    assert task.dev.texts[0] == "T document 0" and [task.dev.texts[i] for i in retrieval.queries] == [
        "query 0",
        "query 1",
    ]
    assert retrieval.relevant == [{0: 2.0, 3: 1.0}, {4: 1.0}]
    assert np.flatnonzero(task.dev.is_query).tolist() == retrieval.queries.tolist()
    assert task.to_dict()["retrieval_dir"] == str(tmp_path / "beir")


def test_a_query_is_no_answer_to_itself(tmp_path):
    """Where a query is a document of its own id, as in BEIR's duplicate questions, its judgement does not count."""
    train_file, folder = write(tmp_path, "train.txt", TEXTS), tmp_path / "beir"
    write_retrieval(folder, judgements=["d0\td0\t1", "d0\td2\t1", "d1\td1\t1"])
    write(folder, "queries.jsonl", ['{"_id": "d0", "text": "x"}', '{"_id": "d1", "text": "y"}'])
    retrieval = load(train_file=train_file, retrieval_dir=str(folder)).dev.judged.retrieval
    assert retrieval.relevant == [{2: 1.0}] and retrieval.same.tolist() == [0]


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("train.txt", ["only one"], "train.txt: has only the text 'only one'; distilling needs at least two"),
        ("train.txt", ["same", "same", " same "], "has only the text 'same'"),
        ("train.txt", ["", " "], "has only empty texts"),
        ("train.txt", [], "the file has no rows"),
        ("train.tsv", ["text", "", ""], "has only empty texts"),
    ],
)
def test_files_that_have_nothing_to_distil_are_refused(tmp_path, name, lines, message):
    with pytest.raises(DataError, match=message):
        load(train_file=write(tmp_path, name, lines))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a\tb\thigh", "c\td\t1"], "dev.tsv:2: the score is 'high', which is no number"),
        (["a\tb\tnan", "c\td\t1"], "dev.tsv:2: the score is 'nan'"),
        (["a\tb\t1e99", "c\td\t1"], "dev.tsv:2: the score is '1e99'"),
        (["a\tb\t1", "c\t\t2"], "dev.tsv:3: a text of the pair is empty"),
        (["a\tb\t1", "c\td\t1.0"], "every pair has the score 1"),
    ],
)
def test_pairs_whose_scores_mean_nothing_are_refused(tmp_path, rows, message):
    train_file = write(tmp_path, "train.txt", TEXTS)
    with pytest.raises(DataError, match=message):
        load(train_file=train_file, dev_file=write(tmp_path, "dev.tsv", ["sentence1\tsentence2\tscore", *rows]))


@pytest.mark.parametrize(
    ("judgements", "message"),
    [
        ([f"q0\tx{i}\t1" for i in range(5)], "5 documents are not in corpus.jsonl, such as 'x0', 'x1', 'x2', ..."),
        (["q9\td0\t1"], "1 queries are not in queries.jsonl, such as 'q9'"),
        (["q0\td0"], "test.tsv:2: must be an id of a query"),
        (["q0\td0\t0"], "no query has a document with a gain above 0"),
    ],
)
def test_judgements_that_do_not_fit_the_folder_are_refused(tmp_path, judgements, message):
    train_file = write(tmp_path, "train.txt", TEXTS)
    folder = write_retrieval(tmp_path / "beir", judgements=judgements)
    with pytest.raises(DataError, match=message):
        load(train_file=train_file, retrieval_dir=folder)


def test_files_of_a_retrieval_folder_are_needed_and_checked(tmp_path):
    train_file = write(tmp_path, "train.txt", TEXTS)
    folder = tmp_path / "beir"
    with pytest.raises(DataError, match="no such folder"):
        load(train_file=train_file, retrieval_dir=str(folder))
    write_retrieval(folder, split="train")
    assert load(train_file=train_file, retrieval_dir=str(folder)).dev.judged.retrieval  # the only judgements
    write(folder / "qrels", "other.tsv", ["q0\td0\t1"])
    with pytest.raises(DataError, match=r"contains other.tsv, train.tsv; name the file to score on test.tsv"):
        load(train_file=train_file, retrieval_dir=str(folder))
    write(folder, "corpus.jsonl", ['{"_id": "a", "text": "x"}', '{"_id": "a", "text": "y"}'])
    with pytest.raises(DataError, match=r"corpus.jsonl:2: the id 'a' occurs twice"):
        load(train_file=train_file, retrieval_dir=str(folder))
    (folder / "queries.jsonl").unlink()
    with pytest.raises(DataError, match="corpus.jsonl:2|queries.jsonl: no such file"):
        load(train_file=train_file, retrieval_dir=str(folder))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ["spearman"]}, "metric 'spearman' needs pairs with a score"),
        ({"metrics": ["recall@10"]}, "metric 'recall@10' needs queries with their documents"),
        ({"metrics": ["accuracy"]}, "metric 'accuracy' is not for embedding"),
        ({"pooling": "sum"}, "pooling is 'sum'; it must be one of mean, cls, max"),
        ({"labels": ["a", "b"]}, "an embedding task has texts, not labels"),
        ({"word_split": "words"}, "word_split is for token_classification, this task is embedding"),
        ({"positive_label": "a"}, "positive_label is for classification"),
    ],
)
def test_settings_without_their_data_are_refused(tmp_path, arguments, message):
    with pytest.raises(UsageError, match=message):
        load(train_file=write(tmp_path, "train.txt", TEXTS), **arguments)


def test_settings_of_embeddings_are_for_them_alone(tmp_path):
    path = write(tmp_path, "train.tsv", ["text\tlabel", "a\tx", "b\ty"])
    with pytest.raises(UsageError, match="pooling is for embedding, this task is classification"):
        db.load_task("custom", train_file=path, dev_file=path, pooling="cls")


class Tokenizer:
    """Counts characters in place of tokens."""

    fingerprint = "characters"

    def num_special_tokens(self, num_texts):
        return 0

    def encode_rows(self, texts, pairs, *, max_seq_length):
        ids = [list(map(ord, text))[:max_seq_length] for text in texts]
        return ids, [[0] * len(row) for row in ids], [False] * len(ids)


def read_back(features):
    return ["".join(map(chr, part)) for part in np.split(features.input_ids, features.offsets[1:-1])]


def test_texts_are_read_behind_their_prompts(tmp_path):
    train_file = write(tmp_path, "train.txt", TEXTS)
    folder = write_retrieval(tmp_path / "beir")
    task = load(train_file=train_file, retrieval_dir=folder, query_prompt="Q: ", document_prompt="D: ")
    dev = read_back(task.dev.tokenize(Tokenizer(), max_seq_length=100))
    assert dev[:2] == ["D: T document 0", "D: document 1"] and dev[-2:] == ["Q: query 0", "Q: query 1"]
    # A model learns both kinds of texts, and held-out ones keep theirs.
    train = read_back(task.train.tokenize(Tokenizer(), max_seq_length=100))
    assert train[:2] == [f"D: {TEXTS[0]}", f"Q: {TEXTS[1]}"]
    selected = task.train.select(np.array([1, 4]))
    assert read_back(selected.tokenize(Tokenizer(), max_seq_length=100)) == [train[1], train[4]]
    plain = task.with_embedding(EmbeddingSettings(pooling="cls"))
    assert read_back(plain.train.tokenize(Tokenizer(), max_seq_length=100)) == TEXTS


def test_a_models_own_settings_may_not_be_contradicted():
    own = EmbeddingSettings(pooling="mean", normalize=True, query_prompt="query: ")
    completed = EmbeddingSettings(query_prompt="").completed(own, "models/m")
    assert completed == EmbeddingSettings("mean", True, "", "")
    assert EmbeddingSettings().completed(EmbeddingSettings(), "m") == EmbeddingSettings("mean", False, "", "")
    with pytest.raises(UsageError, match="pooling is cls, but models/m says mean: leave it out"):
        EmbeddingSettings(pooling="cls").completed(own, "models/m")
    with pytest.raises(UsageError, match="normalize is false, but models/m says true"):
        EmbeddingSettings(normalize=False).completed(own, "models/m")


def test_queries_stay_with_their_positive_and_negative_texts(tmp_path):
    rows = [{"query": f"q{i}", "positive": f"pp{i}", "negative": f"nnn{i}"} for i in range(20)]
    path = write(tmp_path, "train.jsonl", map(json.dumps, rows))
    task = load(train_file=path)
    assert task.train.group_size == 3 and task.train.is_query[:6].tolist() == [True, False, False] * 2
    for texts in (task.train, task.dev):  # the dev texts are whole groups, too
        numbers = [text.strip("qpn") for text in texts.texts]
        assert numbers[::3] == numbers[1::3] == numbers[2::3]
    again = load(**{key: value for key, value in task.to_dict().items() if key not in ("name", "kind", "labels")})
    assert again.train.texts == task.train.texts and again.train.group_size == 3
    features = GroupedFeatures(task.train.tokenize(Tokenizer(), max_seq_length=100))
    assert len(features) == 18 and features.lengths[0] == len(task.train.texts[2])
    batch = features.collate(np.array([4, 1]), 0)
    texts = ["".join(map(chr, row[row > 0])) for row in batch["input_ids"]]
    four, one = (task.train.texts[3 * i].strip("q") for i in (4, 1))
    assert texts == [f"q{four}", f"q{one}", f"pp{four}", f"pp{one}", f"nnn{four}", f"nnn{one}"]
    assert batch["labels"].tolist() == [[4, 0], [1, 0], [4, 1], [1, 1], [4, 2], [1, 2]]
    shard = cut_shard(batch, 1, 2)  # every second row: whole groups of an even batch
    assert shard.labels.numpy().tolist() == [[1, 0], [1, 1], [1, 2]]
    path = write(tmp_path, "bad.jsonl", [json.dumps({**rows[0], "positive": " "}), json.dumps(rows[1])])
    with pytest.raises(DataError, match="bad.jsonl:1: 'positive' is empty"):
        load(train_file=path)
