#!/usr/bin/env python
"""Sentences per second from text to label, tokenization included.

All take turns on the same sentences: `Predictor` on Paddle Inference, on the OpenVINO in it, and on ONNX Runtime, with
the same tokenizer and the same batches of similar lengths; and the way that comes to mind first: PaddleNLP's tokenizer,
every text padded to 128 tokens, and the model itself. That way is slow: it reads a part of the sentences. The weights
are random, which does not matter to the time.

    pip install -e '.[bench]'
    python scripts/bench/predictor.py glue_data/SST-2/train.tsv
    python scripts/bench/predictor.py glue_data/SST-2/train.tsv --shape 12x384 --num_sentences 5000 --rounds 3
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.runtime.environment import describe_environment, import_paddle, package_versions

BATCH_SIZE, MAX_SEQ_LENGTH = 32, 128
BUNDLES = [(format, precision) for format in ("paddle", "openvino", "onnx") for precision in ("fp32", "int8")]
NAIVE, ONNX = "PaddleNLP, padded", "Predictor, onnx fp32"  # what the others are compared with


def main(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="SST-2's train.tsv, or another whose first column is a sentence."
        ),
    ],
    shape: Annotated[str, typer.Option("--shape", help="Layers x hidden size; heads are 32 wide.")] = "6x384",
    num_sentences: Annotated[int, typer.Option("--num_sentences", min=1)] = 20_000,
    num_naive: Annotated[int, typer.Option("--num_naive", min=1, help="Sentences of the slow side.")] = 1_000,
    rounds: Annotated[int, typer.Option("--rounds", min=1)] = 5,
) -> None:
    """Print each side's sentences per second, and how many times as many they are as with PaddleNLP and with ONNX."""
    import_paddle()
    lines = file.read_text(encoding="utf-8").splitlines()[1 : num_sentences + 1]
    sentences = [line.split("\t")[0] for line in lines]
    with TemporaryDirectory() as folder:
        sides = make_sides(shape, Path(folder))
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(rounds + 1):
            for name, predict in sides.items():
                own = sentences[:num_naive] if name == NAIVE else sentences
                begin = time.perf_counter()
                predict(own)
                if turn:  # the first one sets the shapes up
                    rates[name].append(len(own) / (time.perf_counter() - begin))
    versions = package_versions()
    print(
        f"{shape}, {len(sentences)} sentences, {describe_environment()['processor']}, {os.environ['OMP_NUM_THREADS']} "
        f"threads, paddle {versions.get('paddlepaddle')}, median of {rounds}"
    )
    print(f"  {'':<28}{'sentences a second':>20}{'/ PaddleNLP':>13}{'/ onnx fp32':>13}")
    for name, own in rates.items():
        over_naive, over_onnx = (median(np.divide(own, rates[side])) for side in (NAIVE, ONNX))
        print(f"  {name:<28}{median(own):>20.0f}{over_naive:>13.1f}{over_onnx:>13.2f}")


def make_sides(shape: str, folder: Path) -> dict[str, Callable[[Sequence[str]], object]]:
    """Export a random model, and make what predicts with it, by name."""
    from random_models import random_supernet

    import dynabert_paddle as db

    supernet = random_supernet(shape)
    model = supernet.save_pretrained(folder / "model")
    sides: dict[str, Callable[[Sequence[str]], object]] = {}
    for format, precision in BUNDLES:
        # A model with random weights guesses: how much int8 loses says nothing here.
        tolerance = 1.0 if precision == "int8" else None
        out = folder / f"{format}-{precision}"
        db.export(model, out, format=format, precision=precision, tolerance=tolerance)
        sides[f"Predictor, {format} {precision}"] = db.Predictor(out)
    sides[NAIVE] = make_naive(supernet, model)
    return sides


def make_naive(supernet, folder: Path) -> Callable[[Sequence[str]], list[int]]:
    """What predicts a class for each text with PaddleNLP alone."""
    import paddle
    from paddlenlp.transformers import AutoTokenizer, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = BertForSequenceClassification(supernet.model.config)
    model.eval()

    def predict(texts: Sequence[str]) -> list[int]:
        found: list[int] = []
        for start in range(0, len(texts), BATCH_SIZE):
            batch = tokenizer(
                list(texts[start : start + BATCH_SIZE]),
                padding="max_length",
                truncation=True,
                max_length=MAX_SEQ_LENGTH,
                return_attention_mask=True,
                return_tensors="pd",
            )
            with paddle.no_grad():
                found += model(**batch).argmax(-1).tolist()
        return found

    return predict


if __name__ == "__main__":
    run_command(main)
