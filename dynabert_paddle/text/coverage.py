"""Which pieces of a vocabulary a smaller one must keep, so that every text that can be read can still be read.

WordPiece takes the longest piece that fits and never goes back. After a piece is removed, a word is therefore cut at
other places, also behind that piece. If a character has a piece of its own for the inside of a word, the cut can begin
there; if it has none (a *fragile* character), it is read only in the middle of longer pieces. These are kept, and no
piece is kept that could end inside of one of them, before its fragile character.

Byte-level BPE reads any text as long as it has its single bytes. A kept piece needs both halves of every merge that
makes it: then exactly the merges inside of kept pieces are left, in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class PieceRules:
    """What a smaller vocabulary must have, and may have.

    Args:
        required: ids that it must have.
        allowed: ids that it may have.
        parts: for a piece that is made by merges, the ids of their halves; it needs all of them.
    """

    required: frozenset[int]
    allowed: frozenset[int]
    parts: Mapping[int, frozenset[int]] = field(default_factory=dict)

    def with_parts(self, ids: Iterable[int]) -> set[int]:
        """Return pieces together with those that they are merged from, directly or indirectly."""
        found: set[int] = set()
        left = list(ids)
        while left:
            piece = left.pop()
            if piece not in found:
                found.add(piece)
                left += self.parts.get(piece, ())
        return found

    def choose(self, counts: np.ndarray, size: int) -> list[int]:
        """Choose the pieces of a smaller vocabulary: the required ones, then the most frequent ones.

        Args:
            counts: how often each id occurs; among equally frequent ones those with lower ids come first, which are
                the more frequent ones of the text that the vocabulary was made from.
            size: how many pieces to choose, at least as many as are required.

        Returns:
            At most `size` ids, in ascending order; fewer if no more may be kept.
        """
        kept = self.with_parts(self.required)
        for piece in sorted(self.allowed - kept, key=lambda piece: (-counts[piece], piece)):
            needed = self.with_parts([piece]) - kept
            if len(kept) + len(needed) <= size:
                kept |= needed
        return sorted(kept)


class Characters(NamedTuple):
    """The characters that can begin a word, and those that can go on with one, after a tokenizer's normalization."""

    starting: frozenset[str]
    continuing: frozenset[str]


class _Use(NamedTuple):
    """A way to use a piece: at the start of a word, or inside of one."""

    piece: int
    text: str
    continues: bool

    @property
    def tail(self) -> str:
        """The characters that go on with a word."""
        return self.text if self.continues else self.text[1:]


def wordpiece_rules(
    vocab: Mapping[str, int], prefix: str, *, always: Iterable[int], characters: Characters | None = None
) -> PieceRules:
    """Find the pieces that a smaller WordPiece vocabulary needs.

    Args:
        vocab: ids by piece.
        prefix: of pieces that go on with a word, for example `##`.
        always: ids to keep in any case, such as special tokens.
        characters: those that words can have; None if that is not known.

    Returns:
        The rules. With every vocabulary that follows them, each word that the full one can read is read.
    """
    uses = list(_uses(vocab, prefix, characters))
    fragile = {character for use in uses for character in use.tail if prefix + character not in vocab}
    required = set(always)
    for use in uses:
        begins = not use.continues and use.text[0] not in vocab  # no other piece can begin such a word
        if len(use.text) == 1 or begins or not fragile.isdisjoint(use.tail):
            required.add(use.piece)
    unsafe = set(_ending_inside(uses, set(_before_fragile(uses, fragile))))
    allowed = required | {use.piece for use in uses}
    if not unsafe.isdisjoint(required):  # no vocabulary but the full one is known to be safe
        return PieceRules(frozenset(allowed), frozenset(allowed))
    return PieceRules(frozenset(required), frozenset(allowed - unsafe))


def bpe_rules(vocab: Mapping[str, int], merges: Sequence[Sequence[str]], *, always: Iterable[int]) -> PieceRules:
    """Find the pieces that a smaller byte-level BPE vocabulary needs.

    Args:
        vocab: ids by piece.
        merges: pairs of pieces; each pair joins to a piece of `vocab`.
        always: ids to keep in any case, such as special tokens.

    Returns:
        The rules.
    """
    parts: dict[int, frozenset[int]] = {}
    for left, right in merges:
        piece = vocab[left + right]
        parts[piece] = parts.get(piece, frozenset()) | {vocab[left], vocab[right]}
    single = {index for piece, index in vocab.items() if len(piece) == 1}
    return PieceRules(frozenset(single | set(always)), frozenset(vocab.values()), parts)


def _uses(vocab: Mapping[str, int], prefix: str, characters: Characters | None) -> Iterator[_Use]:
    """The uses of all pieces that a word can have."""
    for piece, index in vocab.items():
        uses = [_Use(index, piece, False)]
        if piece.startswith(prefix):
            uses.append(_Use(index, piece.removeprefix(prefix), True))
        for use in uses:
            if use.text and (
                characters is None
                or (
                    characters.continuing.issuperset(use.tail) and (use.continues or use.text[0] in characters.starting)
                )
            ):
                yield use


def _before_fragile(uses: Iterable[_Use], fragile: set[str]) -> Iterator[str]:
    """The beginnings of the pieces inside a word, up to their last fragile character."""
    for use in uses:
        if use.continues:
            last = max((place for place, character in enumerate(use.text) if character in fragile), default=0)
            yield from (use.text[:length] for length in range(1, last + 1))


def _ending_inside(uses: Iterable[_Use], beginnings: set[str]) -> Iterator[int]:
    """The pieces inside a word that can end where such a beginning ends, and begin before it."""
    for use in uses:
        if use.continues and any(use.text[start:] in beginnings for start in range(1, len(use.text))):
            yield use.piece
