"""Reads the text of a special token, such as `[SEP]`, as text like any other, with a tokenizer of the Rust library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import ModelError
from dynabert_paddle.text.leading import special_token_pattern

if TYPE_CHECKING:
    import tokenizers


def read_as_text(backend: tokenizers.Tokenizer, special_tokens: Sequence[str]) -> None:
    """Let a tokenizer read special tokens in texts as text; special tokens around texts stay.

    The library's setting for this holds for added tokens only. The vocabulary of sentencepiece's Unigram model contains
    the special tokens, too, and would turn their text into their ids: that text is split before the model sees it.

    Args:
        backend: the tokenizer; changed in place.
        special_tokens: its special tokens, without that of unknown ones.

    Raises:
        ModelError: it reads one of them as that token all the same.
    """
    from tokenizers import Regex, pre_tokenizers

    backend.encode_special_tokens = True
    found = [token for token in special_tokens if _is_read_as_token(backend, token)]
    if not found:
        return
    split = pre_tokenizers.Split(Regex(special_token_pattern(backend)), "merged_with_previous")
    before = [] if backend.pre_tokenizer is None else [backend.pre_tokenizer]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*before, split])
    for token in found:
        if _is_read_as_token(backend, token):
            raise cannot_read_as_text(token)


def cannot_read_as_text(token: str) -> ModelError:
    """Return the error of a tokenizer that reads a special token in a text as that token, whatever its settings are."""
    return ModelError(
        f"the tokenizer cannot read {token} as text: leave {setting('task.special_tokens_in_text')} at its default"
    )


def _is_read_as_token(backend: tokenizers.Tokenizer, token: str) -> bool:
    number = backend.token_to_id(token)
    texts = (token, f"a {token} a", f"a{token}a", token * 2)
    return any(number in backend.encode(text, add_special_tokens=False).ids for text in texts)
