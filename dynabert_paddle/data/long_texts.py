"""Texts that are longer than the longest input: cut, or read in windows; the settings of documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from dynabert_paddle.bundle.manifest import WINDOW_POOLINGS
from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.json_values import json_values
from dynabert_paddle.text.word_windows import LONG_TEXTS


@dataclass(frozen=True)
class DocumentSettings:
    """How the documents are read that a model classifies or gives a value; None: as the model was trained to.

    Args:
        long_text: one of `LONG_TEXTS`; by default `truncate`.
        doc_stride: with windows, the tokens between the starts of successive ones; by default half of a window.
        window_pooling: one of `WINDOW_POOLINGS`; by default `mean`.
    """

    long_text: str | None = None
    doc_stride: int | None = None
    window_pooling: str | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> DocumentSettings:
        """Extract the settings from those of a task.

        Args:
            values: values by name; a missing value is None.

        Returns:
            The settings.

        Raises:
            UsageError: an unknown value, or a stride below 1.
        """
        given = {name: values[name] for name in DOCUMENT_SETTINGS if values.get(name) is not None}
        check_choice("window_pooling", given.get("window_pooling"), WINDOW_POOLINGS)
        check_long_text(given)
        return cls(**given)

    @property
    def has_windows(self) -> bool:
        """Whether long documents are read in windows."""
        return self.long_text == "windows"

    @property
    def pooling(self) -> str:
        """How the logits of windows become a document's."""
        return self.window_pooling or WINDOW_POOLINGS[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values; nothing by default."""
        if self.has_windows:
            return {**json_values(self), "window_pooling": self.pooling}
        return {} if self.long_text is None else {"long_text": self.long_text}

    def over(self, trained: Mapping[str, Any]) -> DocumentSettings:
        """Return these settings, with those of a model in place of each None.

        Args:
            trained: the task of the model's metadata; one that was trained without windows has none of the settings.

        Returns:
            The settings.
        """
        own = {name: trained[name] for name in DOCUMENT_SETTINGS if name in trained}
        merged = DocumentSettings.of({**own, **json_values(self)})
        return merged if merged.has_windows else self  # without windows, those of the model's say nothing

    def window_stride(self, max_tokens: int, *, max_seq_length: int) -> int | None:
        """As the function `window_stride`; None if long documents are cut.

        Args:
            max_tokens: tokens of a window, at most.
            max_seq_length: the same with the special tokens around them, for the message.

        Returns:
            The stride.

        Raises:
            UsageError: windows of this length would not overlap, or settings of windows without `long_text`.
        """
        if self.has_windows:
            return window_stride(self.doc_stride, max_tokens, max_seq_length=max_seq_length)
        for name in DOCUMENT_SETTINGS[1:]:
            # An explicit `truncate` leaves aside the windows of a model's description.
            if self.long_text is None and getattr(self, name) is not None:
                raise UsageError(
                    f"{setting(f'task.{name}')} is {getattr(self, name)}, and long texts are cut: leave it out, or set "
                    f"{setting('task.long_text')} to windows"
                )
        return None


DOCUMENT_SETTINGS = tuple(field.name for field in fields(DocumentSettings))
TRUNCATE = DocumentSettings()


def check_long_text(values: Mapping[str, Any]) -> None:
    """Check how long texts are read.

    Args:
        values: settings of a task by name; None for one that is not given.

    Raises:
        UsageError: an unknown value, or a stride below 1.
    """
    check_choice("long_text", values.get("long_text"), LONG_TEXTS)
    stride = values.get("doc_stride")
    if stride is not None and stride < 1:
        raise UsageError(f"{setting('task.doc_stride')} is at least 1, not {stride}")


def check_choice(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    """Check a setting of a task that has few values.

    Args:
        name: the setting's.
        value: its value; None if it is not given.
        allowed: the values that it may have.

    Raises:
        UsageError: another value.
    """
    if value is not None and value not in allowed:
        raise UsageError(f"{setting(f'task.{name}')} is {value!r}; it must be one of {', '.join(allowed)}.")


def window_stride(doc_stride: int | None, max_tokens: int, *, max_seq_length: int) -> int:
    """Return the tokens between the starts of successive windows.

    Args:
        doc_stride: the user's; None: half of a window.
        max_tokens: tokens of a window, at most.
        max_seq_length: the same with the special tokens around them, for the message.

    Returns:
        The stride.

    Raises:
        UsageError: windows of this length would not overlap, or have no token.
    """
    if max_tokens < 1:
        raise UsageError(
            f"{setting('task.max_seq_length')} is {max_seq_length}: all of it are special tokens: choose a larger one"
        )
    if doc_stride is not None and doc_stride >= max_tokens:
        raise UsageError(
            f"{setting('task.doc_stride')} is {doc_stride}, and a window of {setting('task.max_seq_length')} "
            f"{max_seq_length} has {max_tokens} tokens: windows overlap only with a smaller one"
        )
    return doc_stride or max(1, max_tokens // 2)


def bundle_document_settings(task: Mapping[str, Any], *, max_tokens: int, max_seq_length: int) -> dict[str, Any]:
    """Return the settings of documents that a bundle records.

    Args:
        task: the task of the model.
        max_tokens: tokens of a window, at most.
        max_seq_length: the same with the special tokens around them.

    Returns:
        The stride and the pooling; nothing if long documents are cut.

    Raises:
        UsageError: from `DocumentSettings.window_stride`.
    """
    settings = DocumentSettings.of(task)
    stride = settings.window_stride(max_tokens, max_seq_length=max_seq_length)
    return {} if stride is None else {"doc_stride": stride, "window_pooling": settings.pooling}
