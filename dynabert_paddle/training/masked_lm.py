"""A masked language model and its tokenizer: which words could stand in the place of each word of a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import paddle
import tokenizers
from paddle import nn
from tokenizers import models

from dynabert_paddle.backbone.loading import build_model, find_backbone, load_weights, plain_pickles, to_arrays
from dynabert_paddle.backbone.structure import check_vocabulary, num_positions
from dynabert_paddle.data.augment import Word, is_replaceable, is_word
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.files.array_hash import hash_arrays
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.files.model_folder import check_model_folder
from dynabert_paddle.files.weights import read_weights
from dynabert_paddle.runtime.memory import raise_memory_error
from dynabert_paddle.text.tokenizer import AnyTokenizer, Tokenizer

# The shape of a call decides the last bits of its result. So every call has the same number of sequences, of a rounded
# length that follows from each text alone: neither the batch size nor an interruption changes a candidate.
_SEQUENCES = 32
_LENGTH_STEP = 8

_MASK_TOKENS = ("[MASK]", "<mask>")

# The heads, which PaddleNLP's own table of Hugging Face's names leaves out or does not transpose: Hugging Face's name,
# PaddleNLP's, and whether the one is the other transposed.
_HEAD_NAMES = (
    ("cls.predictions.transform.dense.weight", "cls.predictions.transform.weight", True),
    ("cls.predictions.transform.dense.bias", "cls.predictions.transform.bias", False),
    ("cls.predictions.transform.LayerNorm.weight", "cls.predictions.layer_norm.weight", False),
    ("cls.predictions.transform.LayerNorm.bias", "cls.predictions.layer_norm.bias", False),
    ("cls.predictions.transform.LayerNorm.gamma", "cls.predictions.layer_norm.weight", False),
    ("cls.predictions.transform.LayerNorm.beta", "cls.predictions.layer_norm.bias", False),
    ("cls.predictions.bias", "cls.predictions.decoder_bias", False),
    ("lm_head.dense.weight", "lm_head.dense.weight", True),
)


class _Span(NamedTuple):
    """A replaceable word: where it begins and ends in its text, and its tokens' positions."""

    start: int
    end: int
    positions: list[int]


class MaskedLM:
    """A PaddleNLP masked language model with its tokenizer.

    Args:
        model: BERT's, ERNIE's or RoBERTa's.
        tokenizer: the tokenizer that goes with it.

    Raises:
        ModelError: a model or a tokenizer of another kind.
    """

    def __init__(self, model: nn.Layer, tokenizer: AnyTokenizer) -> None:
        head = getattr(model, "cls", None) or getattr(model, "lm_head", None)
        if head is None:
            raise ModelError(f"{type(model).__name__} is not supported as a masked LM; supported: BERT, ERNIE, RoBERTa")
        self._encoder, self._head = getattr(model, model.base_model_prefix), head
        model.eval()
        self._backend = open_backend(tokenizer)
        self._mask_id = next((i for i in map(self._backend.token_to_id, _MASK_TOKENS) if i is not None), None)
        if self._mask_id is None:
            raise ModelError(f"the masked LM's tokenizer has none of {', '.join(_MASK_TOKENS)}: name another masked LM")
        self._pad_id = tokenizer.pad_token_id
        self.num_positions = num_positions(model.config)
        check_vocabulary(model.config, tokenizer.vocab_size)
        self._words = list_words(self._backend, model.config.vocab_size)
        self._no_word = paddle.to_tensor([0.0 if word else -np.inf for word in self._words], dtype="float32")
        self.fingerprint = hash_arrays(
            [*to_arrays(model).values(), np.frombuffer(tokenizer.fingerprint.encode(), "u1")]
        )

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> MaskedLM:
        """Load a masked LM from a folder, PaddleNLP's or Hugging Face's, or by its name on PaddleNLP's hub.

        Args:
            name_or_path: the folder or the name; nothing is written to the folder, and no code in it is run.

        Returns:
            The masked LM.

        Raises:
            ModelError: it cannot be loaded, or has no head that predicts words.
        """
        folder = find_backbone(name_or_path)
        model = _load_from_hub(str(name_or_path)) if folder is None else load_masked_lm(folder)
        return cls(model, Tokenizer.from_pretrained(folder or name_or_path))

    def check_vocabulary(self, name_or_path: str | Path) -> None:
        """Refuse a backbone whose tokenizer has other tokens or other ids for them.

        A candidate is one token of the masked LM; it must be one of the backbone's, too, so that it can be trained
        on the copies. How the two treat case and accents is not compared.

        Args:
            name_or_path: the backbone.

        Raises:
            UsageError: its vocabulary is another one.
        """
        theirs = open_backend(Tokenizer.from_pretrained(find_backbone(name_or_path) or name_or_path)).get_vocab()
        ours = self._backend.get_vocab()
        if theirs != ours:
            shared = sum(ours.get(token) == index for token, index in theirs.items())
            raise UsageError(
                f"the masked LM's vocabulary has {len(ours)} tokens and that of {name_or_path} {len(theirs)}; "
                f"{shared} are the same: name a masked LM with the backbone's vocabulary"
            )

    def find_words(
        self,
        texts: Sequence[str],
        *,
        num_candidates: int,
        max_seq_length: int,
        neighbours: Callable[[str], Sequence[str]],
    ) -> list[list[Word]]:
        """Find the candidates that can replace each word of some texts.

        A word that is one token is masked, and gets the model's likeliest words; one of several tokens gets its
        neighbours. The model sees the masked text alone, as in the paper; TinyBERT's script adds the unmasked one.

        Args:
            texts: the texts.
            num_candidates: M in the paper; fewer where the vocabulary has no more.
            max_seq_length: words after this number of tokens are not replaced.
            neighbours: finds candidates for a word of several tokens.

        Returns:
            Each text's words that have candidates, in their order.
        """
        self._backend.enable_truncation(max_seq_length)
        encodings = self._backend.encode_batch(list(texts))
        spans = [list(find_spans(text, encoding)) for text, encoding in zip(texts, encodings, strict=True)]
        masked = [
            (row, span.positions[0]) for row, found in enumerate(spans) for span in found if len(span.positions) == 1
        ]
        # One more than asked for, as the word itself may be among them.
        predicted = self._predict([encoding.ids for encoding in encodings], masked, num_candidates + 1)
        words: list[list[Word]] = []
        for row, (text, found) in enumerate(zip(texts, spans, strict=True)):
            words.append([])
            for start, end, positions in found:
                word, key = text[start:end], (row, positions[0])
                if len(positions) == 1:
                    own = self._words[encodings[row].ids[positions[0]]]
                    candidates: Sequence[str] = [
                        c for c in map(self._words.__getitem__, predicted[key]) if c and c not in (own, word)
                    ]
                else:
                    candidates = neighbours(word)
                if candidates:
                    words[-1].append(Word(start, end, candidates[:num_candidates]))
        return words

    def _predict(
        self, ids: list[list[int]], masked: list[tuple[int, int]], count: int
    ) -> dict[tuple[int, int], list[int]]:
        """The likeliest tokens, the likeliest first, at each (row, position) when it is masked."""

        def length(key: tuple[int, int]) -> int:
            return min(-(-len(ids[key[0]]) // _LENGTH_STEP) * _LENGTH_STEP, self.num_positions)

        predicted: dict[tuple[int, int], list[int]] = {}
        for size, group in groupby(sorted(masked, key=length), key=length):
            keys = list(group)
            for start in range(0, len(keys), _SEQUENCES):
                part = keys[start : start + _SEQUENCES]
                predicted.update(zip(part, self._top([(ids[row], at) for row, at in part], size, count), strict=False))
        return predicted

    def _top(self, sequences: list[tuple[list[int], int]], size: int, count: int) -> list[list[int]]:
        input_ids = np.full((_SEQUENCES, size), self._pad_id, dtype=np.int64)  # [b, s]
        mask = np.zeros_like(input_ids)
        positions = np.zeros(_SEQUENCES, dtype=np.int64)
        for row, (ids, position) in enumerate(sequences):
            input_ids[row, : len(ids)] = ids
            input_ids[row, position] = self._mask_id
            mask[row, : len(ids)] = 1
            positions[row] = position
        with paddle.no_grad():
            inputs = {"input_ids": paddle.to_tensor(input_ids), "attention_mask": paddle.to_tensor(mask)}
            hidden = self._encoder(**inputs, return_dict=True).last_hidden_state  # [b, s, d]
            # Before the head, whose product with the vocabulary costs as much as some layers.
            hidden = hidden[paddle.arange(_SEQUENCES), paddle.to_tensor(positions)]  # [b, d]
            logits = self._head(hidden) + self._no_word  # [b, v]
            return paddle.topk(logits, min(count, logits.shape[-1]))[1].numpy().tolist()


def open_backend(tokenizer: AnyTokenizer) -> tokenizers.Tokenizer:
    """Open a tokenizer as the Rust library has it, which also tells where in a text each token stands.

    Args:
        tokenizer: the tokenizer.

    Returns:
        The library's object.

    Raises:
        ModelError: the tokenizer has no form in that library.
    """
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        file = Path(folder) / "tokenizer.json"
        if not file.exists():
            raise ModelError("augmenting needs a tokenizer that the tokenizers library can run: name another model")
        return tokenizers.Tokenizer.from_file(str(file))


def list_words(backend: tokenizers.Tokenizer, vocab_size: int) -> list[str]:
    """Tell which tokens are whole words.

    Args:
        backend: the tokenizer.
        vocab_size: tokens of the model.

    Returns:
        The word by token id; the empty string for continuations of a word, special tokens, numbers and punctuation. A
        token that begins a word counts as one.
    """
    is_wordpiece = isinstance(backend.model, models.WordPiece)
    words = [""] * vocab_size
    for token, index in backend.get_vocab(with_added_tokens=False).items():
        # Elsewhere a word begins with the blank before it: byte-level BPE writes it as the one, Unigram as the other.
        word = token if is_wordpiece else backend.decode([index]).strip() if token[0] in "Ġ▁" else ""
        if is_word(word):
            words[index] = word
    return words


def find_spans(text: str, encoding: tokenizers.Encoding) -> Iterator[_Span]:
    """Find the replaceable words of a text.

    Args:
        text: the text.
        encoding: its tokens.

    Yields:
        Where each word begins and ends, and the positions of its tokens.
    """
    word_ids = encoding.word_ids
    # What was cut off may have belonged to the last word.
    cut = max((i for i in word_ids if i is not None), default=None) if encoding.overflowing else None
    for word_id, group in groupby(range(len(word_ids)), key=word_ids.__getitem__):
        if word_id is None or word_id == cut:
            continue
        positions = list(group)
        start, end = encoding.offsets[positions[0]][0], encoding.offsets[positions[-1]][1]
        start = end - len(text[start:end].lstrip())
        if is_replaceable(text[start:end]):
            yield _Span(start, end, positions)


def load_masked_lm(folder: Path) -> nn.Layer:
    """Load a masked language model from a folder, PaddleNLP's or Hugging Face's.

    Args:
        folder: the folder; nothing is written to it.

    Returns:
        The model.

    Raises:
        ModelError: it cannot be loaded, or has no head that predicts words.
    """
    import paddlenlp.transformers as transformers

    check_model_folder(folder)
    if stage := read_metadata(folder).stage:
        raise ModelError(
            f"{folder}: a model that the stage '{stage}' has written has a classifier in place of the head that "
            f"predicts words: it is no masked LM; name one that is"
        )
    classifier = build_model(folder)
    name = type(classifier).__name__.partition("For")[0] + "ForMaskedLM"
    if not hasattr(transformers, name):
        raise ModelError(f"{folder}: PaddleNLP has no {name}; supported as a masked LM: BERT, ERNIE, RoBERTa")
    classifier.config.architectures = [name]
    model = getattr(transformers, name)(classifier.config)
    fresh = set(load_weights(model, folder)) - _load_head(model, folder)
    # Tied parameters have several names; a file needs one of them.
    state = model.state_dict()
    loaded = {id(parameter) for key, parameter in state.items() if key not in fresh}
    missing = [key for key in state if id(state[key]) not in loaded and ".pooler." not in key]
    if missing:
        raise ModelError(f"{folder}: its weights lack '{missing[0]}': it is no masked LM; name one that is")
    return model


def _load_head(model: nn.Layer, folder: Path) -> set[str]:
    """Fill a head from Hugging Face's weights; returns the names of the filled parameters."""
    weights = read_weights(folder)
    if not any(".encoder.layer." in name for name in weights):  # PaddleNLP's are called `.encoder.layers.`
        return set()
    state = model.state_dict()
    found = [names for names in _HEAD_NAMES if names[0] in weights and names[1] in state]
    for source, name, transposed in found:
        state[name].set_value(weights[source].T if transposed else weights[source])
    return {name for _, name, _ in found}


def _load_from_hub(name: str) -> nn.Layer:
    from paddlenlp.transformers import AutoModelForMaskedLM

    try:
        with plain_pickles():
            return AutoModelForMaskedLM.from_pretrained(name)
    except Exception as error:  # PaddleNLP raises whatever its downloader met
        raise_memory_error(error)
        reason = " ".join(str(error).split()).split(". ")[0] or type(error).__name__
        raise ModelError(
            f"'{name}' is no folder, and PaddleNLP cannot get a masked LM of that name: {reason}: "
            "name a model folder, or run where there is a network"
        ) from None
