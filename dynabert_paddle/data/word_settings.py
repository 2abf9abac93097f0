"""How the words of a task are labelled: the scheme of their labels, decoding, and windows of long texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.long_texts import check_choice, check_long_text, window_stride
from dynabert_paddle.errors import UsageError, did_you_mean
from dynabert_paddle.files.json_values import json_values
from dynabert_paddle.text.word_labels import DECODINGS, LABEL_SCHEMES


@dataclass(frozen=True)
class WordSettings:
    """How words are labelled.

    Args:
        label_scheme: one of `LABEL_SCHEMES`; None if it is not known.
        decode: one of `DECODINGS`.
        long_text: one of `LONG_TEXTS`.
        doc_stride: tokens between the starts of successive windows; None: half of a window.
    """

    label_scheme: str | None = None
    decode: str = "constrained"
    long_text: str = "windows"
    doc_stride: int | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> WordSettings:
        """Extract the settings from those of a task.

        Args:
            values: values by name; a missing value or None means the default.

        Returns:
            The settings.

        Raises:
            UsageError: an unknown value, or a stride below 1.
        """
        given = {name: values[name] for name in WORD_SETTINGS if values.get(name) is not None}
        check_choice("decode", given.get("decode"), DECODINGS)
        check_long_text(given)
        if "label_scheme" in given:
            given["label_scheme"] = parse_label_scheme(given["label_scheme"])
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values, without those that are None."""
        return json_values(self)

    def window_stride(self, max_tokens: int, *, max_seq_length: int) -> int | None:
        """Return the tokens between the starts of successive windows; None if long texts are cut.

        Args:
            max_tokens: tokens of a window, at most.
            max_seq_length: the same with the special tokens around them, for the message.

        Returns:
            The stride.

        Raises:
            UsageError: windows of this length would not overlap, or have no token.
        """
        if self.long_text == "truncate":
            return None
        return window_stride(self.doc_stride, max_tokens, max_seq_length=max_seq_length)


WORD_SETTINGS = tuple(field.name for field in fields(WordSettings))
# Of models that were trained before these settings, which record none of them.
EARLIER_WORD_SETTINGS: Mapping[str, str] = MappingProxyType({"decode": "free", "long_text": "truncate"})


def parse_label_scheme(name: str) -> str:
    """Find a scheme by its name.

    Args:
        name: in capitals or small letters; the order of a scheme's letters is free, as in BIOES and IOBES.

    Returns:
        One of `LABEL_SCHEMES`.

    Raises:
        UsageError: an unknown name, or an ambiguous one: `IOB` (IOB1, IOB2), `IOE` (IOE1, IOE2).
    """
    known = {scheme.upper(): scheme for scheme in LABEL_SCHEMES} | {"BIO": "IOB2"}
    given = str(name).strip().upper()
    if given in known:
        return known[given]
    for scheme in LABEL_SCHEMES:
        if scheme.isalpha() and set(given) - {"O"} == set(scheme) - {"O"} and len(given) > 2:
            return scheme
    raise UsageError(
        f"{setting('task.label_scheme')} is {name!r}; it must be one of {', '.join(LABEL_SCHEMES)}."
        f"{did_you_mean(given, LABEL_SCHEMES)}"
    )


def bundle_word_settings(task: Mapping[str, Any], *, is_trained: bool, max_tokens: int, max_seq_length: int) -> dict:
    """Return the settings that a bundle records.

    Args:
        task: the task of the model.
        is_trained: whether a stage has trained the model, which then records its settings unless it is older.
        max_tokens: tokens of a window, at most.
        max_seq_length: the same with the special tokens around them.

    Returns:
        The scheme of the labels with how they are decoded, if it is known; the stride, if long texts have windows.

    Raises:
        UsageError: the task is to be decoded by a scheme that is not known, or the stride is too large.
    """
    defaults = EARLIER_WORD_SETTINGS if is_trained else {}
    settings = WordSettings.of({**defaults, **task})
    if settings.label_scheme is None and task.get("decode") == "constrained":
        raise UsageError(
            f"{setting('task.decode')} constrained needs the scheme of the labels, which the model does not record: "
            f"name it with {setting('task.label_scheme')}"
        )
    stride = settings.window_stride(max_tokens, max_seq_length=max_seq_length)
    decoded = {} if settings.label_scheme is None else {"decode": settings.decode}
    return {"label_scheme": settings.label_scheme, **decoded, "doc_stride": stride}
