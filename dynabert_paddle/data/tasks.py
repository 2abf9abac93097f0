"""Tasks: the data files, the labels and the metrics of a prediction problem."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.catalog import find_declaration
from dynabert_paddle.data.declaration import Declaration
from dynabert_paddle.data.embedding_examples import TextsToEmbed
from dynabert_paddle.data.embedding_settings import EmbeddingSettings
from dynabert_paddle.data.embedding_task import load_embedding_data
from dynabert_paddle.data.kinds import KINDS, check_columns, check_kind_settings
from dynabert_paddle.data.label_scheme import check_type_metrics, find_label_scheme
from dynabert_paddle.data.label_set_metrics import are_label_sets
from dynabert_paddle.data.label_sets import read_label_sets
from dynabert_paddle.data.labels import permutation
from dynabert_paddle.data.layout import Layout
from dynabert_paddle.data.long_texts import DocumentSettings
from dynabert_paddle.data.metrics import check_metrics
from dynabert_paddle.data.question_answering import AnswerSettings, Questions, read_questions
from dynabert_paddle.data.readers import Columns, Examples, read_examples, read_rows
from dynabert_paddle.data.tag_names import read_labels_setting
from dynabert_paddle.data.task_files import default_label_column, default_text_column, find_data_file
from dynabert_paddle.data.task_labels import check_labels_differ, positive_class, task_labels
from dynabert_paddle.data.token_classification import LABEL_COLUMN, Sentences, check_word_labels, read_sentences
from dynabert_paddle.data.word_settings import EARLIER_WORD_SETTINGS, WORD_SETTINGS, WordSettings
from dynabert_paddle.data.word_split import check_word_split, find_word_split
from dynabert_paddle.data.word_streams import divide_stream
from dynabert_paddle.errors import UsageError, did_you_mean

_AUGMENTED_KINDS = ("classification", "regression", "multi_label")  # of whole texts

# The types of `Task.train` and `Task.dev`.
TaskExamples = Examples | Sentences | Questions


@dataclass(frozen=True)
class Task:
    """A task with its data.

    Args:
        name: a built-in task, or 'custom'.
        kind: one of `KINDS`.
        labels: the classes in the order of the logits; empty if there are none.
        metrics: the first metric selects checkpoints and sub-networks; higher is better.
        columns: the columns that were read.
        train: the training examples, with labels.
        dev: the development examples, with labels.
        files: the files that the user named, by the arguments of `load_task`.
        positive_label: the class whose F1 the metric `f1` is; None without that metric.
        word_split: how a text is split into the words that are labelled; None for other kinds of tasks.
        label_separator: what separates several labels in a cell; None for lists, and for other kinds of tasks.
        labels_given: the user gave the labels, so that their order is known to be that of an unnamed classifier.
        settings_given: the names of the settings of words or documents that the user gave, which a model's own do not
            replace.
        embedding: how a text becomes a vector; None for other kinds of tasks.
        looked_at: its files, and how they were read, about which warnings were given, so that the stages of a run
            give each of them once.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    columns: Columns
    train: TaskExamples
    dev: TaskExamples
    files: Mapping[str, str]
    positive_label: str | None = None
    word_split: str | None = None
    label_separator: str | None = None
    labels_given: bool = False
    settings_given: frozenset[str] = frozenset()
    embedding: EmbeddingSettings | None = None
    looked_at: set[Any] = field(default_factory=set, compare=False, repr=False)

    @property
    def head(self) -> str:
        """The suffix of PaddleNLP's model classes for this kind of task."""
        return KINDS[self.kind].head

    @property
    def num_outputs(self) -> int:
        """The number of a model's logits: per text, or per token for token classification and question answering."""
        return KINDS[self.kind].num_outputs or len(self.labels)

    @property
    def takes_pairs(self) -> bool:
        """Whether a row has two texts for the model; texts of two columns to embed are rows of their own."""
        return self.kind == "question_answering" or (self.kind != "embedding" and self.columns.pair is not None)

    def to_dict(self) -> dict:
        """Describe the task for a model folder, so that it can be loaded again.

        Returns:
            The arguments of `load_task` that load the same task, as JSON values. Files that belong to the package or
            are downloaded are omitted, so that the description is valid on other machines.
        """
        return {
            "name": self.name,
            "kind": self.kind,
            "labels": list(self.labels),
            "metrics": list(self.metrics),
            **({"positive_label": self.positive_label} if self.positive_label is not None else {}),
            **({"word_split": self.word_split} if self.word_split is not None else {}),
            **({"label_separator": self.label_separator} if self.label_separator is not None else {}),
            "text_column": self.columns.text,
            "text_pair_column": self.columns.pair,
            "label_column": self.columns.label,
            **(asdict(self.train.settings) if isinstance(self.train, Questions) else {}),
            **(self.train.settings.to_dict() if isinstance(self.train, Sentences) else {}),
            **(self.train.documents.to_dict() if isinstance(self.train, Examples) else {}),
            **(self.embedding.to_dict() if self.embedding else {}),
            **self.files,
        }

    def with_labels(self, labels: Sequence[str]) -> "Task | None":
        """Return the task with its classes in the order of a model's.

        Args:
            labels: the model's classes in the order of its logits.

        Returns:
            The task; None if these are not its classes.
        """
        labels = tuple(labels)
        if labels == self.labels:
            return self
        new_indices = permutation(labels, self.labels)  # of the old classes
        if new_indices is None or (self.kind == "token_classification" and set(labels) != set(self.labels)):
            return None
        train, dev = (_reorder(examples, new_indices, labels) for examples in (self.train, self.dev))
        return replace(self, labels=labels, train=train, dev=dev)

    def with_settings_of(self, trained: Mapping[str, Any]) -> "Task":
        """Label words and read documents as a model was trained to, but for what the user has given.

        Args:
            trained: the task of the model's metadata; from before the `WORD_SETTINGS` it has none of them.

        Returns:
            The task.
        """
        if isinstance(self.train, Examples) and isinstance(self.dev, Examples):
            documents = self.train.documents.over(trained)
            if documents == self.train.documents == self.dev.documents:
                return self
            return replace(
                self, train=replace(self.train, documents=documents), dev=replace(self.dev, documents=documents)
            )
        if not isinstance(self.train, Sentences) or not isinstance(self.dev, Sentences):
            return self
        known = {**EARLIER_WORD_SETTINGS, **{name: trained[name] for name in WORD_SETTINGS if name in trained}}
        own = {name: value for name, value in known.items() if name not in self.settings_given}
        settings = WordSettings.of({**self.train.settings.to_dict(), **own})
        train, dev = (replace(examples, settings=settings) for examples in (self.train, self.dev))
        return replace(self, train=train, dev=dev)

    def with_embedding(self, settings: EmbeddingSettings) -> "Task":
        """Embed texts as a model does.

        Args:
            settings: the model's.

        Returns:
            The task; of another kind, as it is.
        """
        if not isinstance(self.train, TextsToEmbed) or not isinstance(self.dev, TextsToEmbed):
            return self
        train, dev = (replace(texts, settings=settings) for texts in (self.train, self.dev))
        return replace(self, train=train, dev=dev, embedding=settings)


def _reorder(examples: TaskExamples, new_indices: Sequence[int], labels: tuple[str, ...]) -> TaskExamples:
    if isinstance(examples, Sentences):
        return replace(examples, names=labels)
    if isinstance(examples, Questions) or examples.labels is None:
        return examples
    if are_label_sets(examples.labels):
        return replace(examples, labels=examples.labels[:, np.argsort(new_indices)])
    return replace(
        examples,
        labels=np.asarray(new_indices, dtype=examples.labels.dtype)[examples.labels],
        positive=new_indices[examples.positive],
    )


@dataclass(frozen=True)
class TrainingTexts:
    """Iterates over a task's training texts.

    Args:
        path: the training file.
        columns: the columns to read.
        layout: how the file differs from a plain one.
    """

    path: Path
    columns: Columns
    layout: Layout

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        for row in read_rows(self.path, self.columns, self.layout):
            yield row.texts


def load_task(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    train_file: str | os.PathLike | None = None,
    dev_file: str | os.PathLike | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    labels: Sequence[str] | None = None,
    kind: str | None = None,
    metrics: Sequence[str] | None = None,
    positive_label: str | None = None,
    word_split: str | None = None,
    label_separator: str | None = None,
    label_scheme: str | None = None,
    decode: str | None = None,
    long_text: str | None = None,
    doc_stride: int | None = None,
    window_pooling: str | None = None,
    max_answer_length: int | None = None,
    may_be_empty: bool | None = None,
    pooling: str | None = None,
    normalize: bool | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    output_dims: Sequence[int] | None = None,
    retrieval_dir: str | os.PathLike | None = None,
) -> Task:
    """Load a built-in task, or one with the user's files.

    An argument replaces the default of the task.

    Args:
        name: a built-in task, such as 'snips', 'rte' or 'tnews', or 'custom' for your own files; case, `-` and `_` are
            ignored.
        data_dir: for 'custom', a folder with train.* and dev.*, each .tsv, .csv, .jsonl or .json (one JSON object per
            line); for token classification also .conll, .bio or .txt; for question answering SQuAD's .json, or .jsonl.
            For other tasks, the task's folder in the official layout, or its parent folder; by default PaddleNLP's
            loaders download the task.
        train_file: the training file, instead of the one in `data_dir`.
        dev_file: the development file, instead of the one in `data_dir`.
        text_column: column of the text; by default `sentence`, else `text`; for token classification `tokens`.
        text_pair_column: column of the second text of a pair; by default none.
        label_column: column of the class or score; by default `label`; for token classification `labels`, for
            multi-label classification `labels`, else `label`.
        labels: the classes in the order of the logits, or the name of a file that lists them; by default those of the
            training file, sorted.
        kind: 'classification' (the default), 'regression', 'multi_label', 'token_classification',
            'question_answering' or 'embedding'.
        metrics: names of metrics; the first selects the best model; by default those of the kind.
        positive_label: the class whose F1 the metric `f1` is; by default the second of the two.
        word_split: for token classification, how a text is split to be predicted: 'words', or 'characters' if every
            character is labelled; by default as the training file is.
        label_separator: for multi-label classification, what separates the labels in a cell of a .tsv or .csv file,
            such as '|'; JSON files have lists of labels and need none.
        label_scheme: for token classification, the scheme of the labels, such as 'IOB2', or 'types'; by default that of
            the training file.
        decode: for token classification, 'constrained' (the default): words get the most probable labels that the
            scheme allows one after the other; 'free': each word gets its most probable label.
        long_text: 'windows': a text that is longer than the longest input is read in windows; 'truncate': what is
            beyond it is not read, and its words are labelled O. For token classification the default is windows, for
            whole texts truncate.
        doc_stride: tokens between the starts of windows of a long text; by default half of a window, and 128 for
            question answering.
        window_pooling: for windows of whole texts, how their logits become the text's: 'mean' (the default), weighted
            by each window's new tokens, or 'max'.
        max_answer_length: for question answering, maximum tokens of an answer; by default 30.
        may_be_empty: for question answering, whether questions may have no answer; by default, whether the training
            file has such questions.
        pooling: for embeddings, 'mean', 'cls' or 'max'; by default as the model's folder says, else 'mean'.
        normalize: for embeddings, whether vectors are divided by their length; by default likewise, else not.
        query_prompt: for embeddings, what stands before a query; by default likewise, else nothing.
        document_prompt: for embeddings, what stands before a document; by default likewise, else nothing.
        output_dims: for embeddings, sizes to which vectors can be cut, such as (256, 128); by default none.
        retrieval_dir: for embeddings, a folder in BEIR's form to score on: corpus.jsonl, queries.jsonl and
            qrels/test.tsv.

    Returns:
        The task with its examples.

    Raises:
        UsageError: an unknown name, or arguments that do not fit together.
        DataError: a file is missing or cannot be read.
    """
    labels = read_labels_setting(labels)
    declared = _declare(
        name,
        data_dir=data_dir,
        text_column=text_column,
        text_pair_column=text_pair_column,
        label_column=label_column,
        labels=labels,
        kind=kind,
        metrics=metrics,
        positive_label=positive_label,
    )
    answers = {"doc_stride": doc_stride, "max_answer_length": max_answer_length, "may_be_empty": may_be_empty}
    words = {"label_scheme": label_scheme, "decode": decode, "long_text": long_text, "doc_stride": doc_stride}
    documents = {"long_text": long_text, "doc_stride": doc_stride, "window_pooling": window_pooling}
    of_some = {"word_split": word_split, "label_separator": label_separator}
    embeddings = {
        "pooling": pooling,
        "normalize": normalize,
        "query_prompt": query_prompt,
        "document_prompt": document_prompt,
        "output_dims": output_dims,
        "retrieval_dir": retrieval_dir,
    }
    if declared.kind == "embedding":
        check_kind_settings(declared.kind, {**answers, **words, **documents, **of_some})
        return _load_embedding_task(declared, embeddings, train_file=train_file, dev_file=dev_file)
    train_path = find_data_file(declared, train_file, declared.train_name, "task.train_file")
    dev_path = find_data_file(declared, dev_file, declared.dev_name, "task.dev_file")
    files = {
        argument: str(path.absolute())
        for argument, path, given in (("train_file", train_path, train_file), ("dev_file", dev_path, dev_file))
        if given is not None or data_dir is not None
    }
    check_kind_settings(declared.kind, {**answers, **words, **documents, **of_some, **embeddings})
    defaults = KINDS[declared.kind]
    columns = Columns(
        declared.text_column or default_text_column(train_path, declared.kind),
        "context" if declared.kind == "question_answering" else declared.text_pair_column,
        declared.label_column or default_label_column(train_path, declared.kind),
    )
    _check_columns_differ(columns)
    labels_given = labels is not None
    labels = task_labels(declared, train_path, columns, separator=label_separator)
    metrics = tuple(declared.metrics or defaults.metrics)
    check_metrics(metrics, kind=declared.kind, num_labels=len(labels))
    positive = positive_class(declared, labels, metrics)
    train: TaskExamples
    dev: TaskExamples
    if declared.kind == "token_classification":
        settings = WordSettings.of(words)
        check_word_labels(labels, setting("task.labels") if labels_given else train_path, scheme=settings.label_scheme)
        train, dev = (
            read_sentences(
                path,
                labels,
                text_column=columns.text,
                label_column=columns.label or LABEL_COLUMN,
                given_names=labels if labels_given else None,
                word_split=word_split or "words",
            )
            for path in (train_path, dev_path)
        )
        settings = replace(settings, label_scheme=find_label_scheme(train, settings.label_scheme))
        check_type_metrics(metrics, labels, str(settings.label_scheme))
        train, dev = (divide_stream(replace(sentences, settings=settings)) for sentences in (train, dev))
        word_split = check_word_split(word_split or find_word_split(train), train)
    elif declared.kind == "question_answering":
        train, dev = _read_questions(train_path, dev_path, answers)
    else:
        options: dict[str, Any] = {"columns": columns, "labels": labels, "layout": declared.layout}
        read: Callable[[Path], Examples] = (
            partial(read_label_sets, separator=label_separator, **options)
            if declared.kind == "multi_label"
            else partial(read_examples, kind=declared.kind, **options)
        )
        train = read(train_path)
        check_labels_differ(train, labels)
        dev = read(dev_path)
        as_documents = DocumentSettings.of(documents)
        train, dev = (replace(examples, documents=as_documents) for examples in (train, dev))
        if positive is not None:
            train, dev = (replace(examples, positive=positive) for examples in (train, dev))
    return Task(
        declared.name,
        declared.kind,
        labels,
        metrics,
        columns,
        train,
        dev,
        files,
        positive_label=None if positive is None else labels[positive],
        word_split=word_split,
        label_separator=label_separator,
        labels_given=labels_given,
        settings_given=frozenset(name for name, value in {**words, **documents}.items() if value is not None),
    )


def _load_embedding_task(
    declared: Declaration,
    given: Mapping[str, Any],
    *,
    train_file: str | os.PathLike | None,
    dev_file: str | os.PathLike | None,
) -> Task:
    if declared.positive_label is not None:
        positive_class(declared, (), ())  # refuses it
    settings = EmbeddingSettings.of(given)
    data = load_embedding_data(
        declared, settings, train_file=train_file, dev_file=dev_file, retrieval_dir=given["retrieval_dir"]
    )
    return Task(
        declared.name,
        declared.kind,
        (),
        data.metrics,
        data.columns,
        data.train,
        data.dev,
        data.files,
        embedding=settings,
    )


def read_training_texts(name: str, *, train_file: str | os.PathLike | None = None, **given: Any) -> TrainingTexts:
    """Find a task's training texts, to be read one by one without labels.

    Args:
        name: as for `load_task`.
        train_file: as for `load_task`.
        given: other arguments of `load_task` that select files and columns.

    Returns:
        The texts.

    Raises:
        UsageError: an unknown name, or a kind of task that cannot be augmented.
        DataError: the file does not exist.
    """
    declared = _declare(name, **given)
    if declared.kind not in _AUGMENTED_KINDS:
        allowed = ", ".join(_AUGMENTED_KINDS)
        raise UsageError(f"task {declared.name!r} is {declared.kind}; augmenting needs one of {allowed}.")
    path = find_data_file(declared, train_file, declared.train_name, "task.train_file")
    columns = Columns(
        declared.text_column or default_text_column(path),
        declared.text_pair_column,
        # The label is read only where rows with a certain label are skipped.
        (declared.label_column or "label") if declared.layout.skipped_label else None,
    )
    return TrainingTexts(path, columns, declared.layout)


def _declare(name: str, **given: Any) -> Declaration:
    """Return a task's declaration, with values replaced by the user's."""
    declared = find_declaration(name)
    if declared.scored_as:
        raise UsageError(
            f"task {declared.name!r} has a test file only: fine-tune on {declared.scored_as!r}, and give the file to "
            "'dynabert predict --submission'."
        )
    declared = replace(declared, **{key: value for key, value in given.items() if value is not None})
    _check_kind(declared)
    return declared


def _read_questions(train_path: Path, dev_path: Path, given: dict[str, int | bool | None]) -> tuple[Questions, ...]:
    train = read_questions(train_path, training=True)
    if given["may_be_empty"] is None:
        given = {**given, "may_be_empty": any(not row.answers for row in train.rows)}
    settings = AnswerSettings.of(given)
    return replace(train, settings=settings), read_questions(dev_path, settings=settings)


def _check_columns_differ(columns: Columns) -> None:
    """Refuse one column for two purposes: a model would read the answer in the text."""
    chosen = {"text_column": columns.text, "text_pair_column": columns.pair, "label_column": columns.label}
    for name, value in chosen.items():
        others = [setting(f"task.{other}") for other in chosen if other != name and chosen[other] == value]
        if value is not None and others:
            raise UsageError(f"{setting(f'task.{name}')} and {others[0]} are both {value!r}: name another column.")


def _check_kind(declared: Declaration) -> None:
    if declared.kind not in KINDS:
        hint = did_you_mean(declared.kind, KINDS)
        raise UsageError(
            f"unknown kind of task {declared.kind!r}; {setting('task.kind')} is one of {', '.join(KINDS)}.{hint}"
        )
    columns = ("text_column", "text_pair_column", "label_column")
    check_columns(declared.kind, {column: getattr(declared, column) for column in columns})
    what = {"regression": "scores", "question_answering": "answers", "embedding": "texts"}.get(declared.kind)
    if what and declared.labels:
        article = "an" if declared.kind == "embedding" else "a"
        raise UsageError(
            f"{article} {declared.kind} task has {what}, not labels; leave out {setting('task.labels')}, or set "
            f"{setting('task.kind')} to classification."
        )
