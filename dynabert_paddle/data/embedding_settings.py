"""How a text becomes one vector: pooling, normalisation, and the prompts before queries and documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.json_values import json_values

POOLINGS = ("mean", "cls", "max")


@dataclass(frozen=True)
class EmbeddingSettings:
    """How a model embeds texts; None where nothing says it.

    Args:
        pooling: one of `POOLINGS`: the mean or the maximum of the last hidden states over the tokens that are not
            padding, or the first token's.
        normalize: whether vectors are divided by their length.
        query_prompt: what stands before a query.
        document_prompt: what stands before a document.
        output_dims: sizes to which vectors are cut, each at least 1; None: vectors are used whole.
    """

    pooling: str | None = None
    normalize: bool | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    output_dims: tuple[int, ...] | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> EmbeddingSettings:
        """Extract the settings from those of a task.

        Args:
            values: values by name; a missing one is None.

        Returns:
            The settings.

        Raises:
            UsageError: an unknown pooling, or sizes that are not different whole numbers of at least 1.
        """
        pooling = values.get("pooling")
        if pooling not in (None, *POOLINGS):
            raise UsageError(f"{setting('task.pooling')} is {pooling!r}; it must be one of {', '.join(POOLINGS)}.")
        given = {name: values.get(name) for name in EMBEDDING_SETTINGS}
        sizes = given["output_dims"]
        if sizes is not None:
            if not sizes or len(set(sizes)) < len(sizes) or not all(type(size) is int and size > 0 for size in sizes):
                raise UsageError(
                    f"{setting('task.output_dims')} is {list(sizes)}: give different whole numbers of at least 1"
                )
            given["output_dims"] = tuple(sorted(sizes, reverse=True))
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values, without those that are None."""
        values = json_values(self)
        if self.output_dims is not None:
            values["output_dims"] = list(self.output_dims)
        return values

    def completed(self, own: EmbeddingSettings, source: object) -> EmbeddingSettings:
        """Fill in what the user has not given.

        Args:
            own: what the model's folder says; it has priority over the defaults, and may not be contradicted in what
                its vectors depend on.
            source: the model, for the message.

        Returns:
            The settings, none of them None.

        Raises:
            UsageError: the user's pooling or normalisation is another one than the model's.
        """
        for name in ("pooling", "normalize"):
            given, stored = getattr(self, name), getattr(own, name)
            if None not in (given, stored) and given != stored:
                raise UsageError(
                    f"{setting(f'task.{name}')} is {_show(given)}, but {source} says {_show(stored)}: leave it out, or "
                    "correct the model's folder"
                )
        return EmbeddingSettings.of({**_DEFAULTS, **own.to_dict(), **self.to_dict()})


def _show(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


NO_SETTINGS = EmbeddingSettings()
EMBEDDING_SETTINGS = tuple(field.name for field in fields(EmbeddingSettings))
# As sentence-transformers reads a folder that says nothing.
_DEFAULTS: dict[str, Any] = {"pooling": "mean", "normalize": False, "query_prompt": "", "document_prompt": ""}
