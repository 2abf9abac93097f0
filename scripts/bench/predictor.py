#!/usr/bin/env python
"""Sentences per second from text to label, tokenization included.

These alternate on the same sentences: `Predictor` on Paddle Inference, OpenVINO and ONNX Runtime, with the same
tokenizer and the same batches of similar lengths; and a naive baseline, PaddleNLP's tokenizer and model with every text
padded to 128 tokens, which is slow and reads only the first sentences. The weights are random, which does not affect
the time.

    pip install -e '.[bench]'
    python scripts/bench/predictor.py glue_data/SST-2/train.tsv
    python scripts/bench/predictor.py glue_data/SST-2/train.tsv --shape 12x384 --num_sentences 5000 --rounds 3
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from timing import SHAPE_HELP, describe_machine, time_alternately

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.runtime.environment import import_paddle

BATCH_SIZE, MAX_SEQ_LENGTH = 32, 128
BUNDLES = [(format, precision) for format in ("paddle", "openvino", "onnx") for precision in ("fp32", "int8")]
NAIVE, ONNX = "PaddleNLP, padded", "Predictor, onnx fp32"  # the baselines


def main(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="A .tsv with sentences in the first column, such as SST-2's train.tsv."
        ),
    ],
    shape: Annotated[str, typer.Option("--shape", help=SHAPE_HELP)] = "6x384",
    num_sentences: Annotated[int, typer.Option("--num_sentences", min=1, help="Sentences to read.")] = 20_000,
    num_naive: Annotated[int, typer.Option("--num_naive", min=1, help="Sentences for the naive baseline.")] = 1_000,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds to take the median of.")] = 5,
) -> None:
    """Print sentences per second, and their ratios to PaddleNLP's and to ONNX Runtime's."""
    import_paddle()
    lines = file.read_text(encoding="utf-8").splitlines()[1 : num_sentences + 1]
    sentences = [line.split("\t")[0] for line in lines]
    with TemporaryDirectory() as folder:
        predictors = make_predictors(shape, Path(folder))
        texts = {name: sentences[:num_naive] if name == NAIVE else sentences for name in predictors}
        calls = {name: partial(predict, texts[name]) for name, predict in predictors.items()}
        times = time_alternately(calls, rounds)
    rates = {name: np.divide(len(texts[name]), seconds) for name, seconds in times.items()}
    print(f"{shape}, {len(sentences)} sentences, {describe_machine()}, median of {rounds}")
    print(f"  {'':<28}{'sentences a second':>20}{'/ PaddleNLP':>13}{'/ onnx fp32':>13}")
    for name, rate in rates.items():
        over_naive, over_onnx = (median(rate / rates[baseline]) for baseline in (NAIVE, ONNX))
        print(f"  {name:<28}{median(rate):>20.0f}{over_naive:>13.1f}{over_onnx:>13.2f}")


def make_predictors(shape: str, folder: Path) -> dict[str, Callable[[Sequence[str]], object]]:
    """Export a random model, and load a predictor from each bundle, by name."""
    from random_models import random_supernet

    import dynabert_paddle as db

    supernet = random_supernet(shape)
    model = supernet.save_pretrained(folder / "model")
    predictors: dict[str, Callable[[Sequence[str]], object]] = {}
    for format, precision in BUNDLES:
        # The predictions of random weights are arbitrary, so that int8 may change any of them.
        tolerance = 1.0 if precision == "int8" else None
        out = folder / f"{format}-{precision}"
        db.export(model, out, format=format, precision=precision, tolerance=tolerance)
        predictors[f"Predictor, {format} {precision}"] = db.Predictor(out)
    predictors[NAIVE] = make_naive(supernet, model)
    return predictors


def make_naive(supernet, folder: Path) -> Callable[[Sequence[str]], list[int]]:
    """Make a function that classifies texts with PaddleNLP alone."""
    import paddle
    from paddlenlp.transformers import AutoTokenizer, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = BertForSequenceClassification(supernet.model.config)
    model.eval()

    def predict(texts: Sequence[str]) -> list[int]:
        classes: list[int] = []
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
                classes += model(**batch).argmax(-1).tolist()
        return classes

    return predict


if __name__ == "__main__":
    run_command(main)
