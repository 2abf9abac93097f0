#!/usr/bin/env python
"""Write snips as two streams of words with their marks as labels, for run_punctuation.sh: snips_words.py FOLDER"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import dynabert_paddle

_WORD = re.compile(r"\w(?:[\w.'/:&-]*\w)?")


def main(folder: Path) -> None:
    """Write train.txt and dev.txt, each the sentences of one file in random order."""
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(dynabert_paddle.__file__).parent / "data" / "snips"
    for name in ("train", "dev"):
        with open(source / f"{name}.tsv", encoding="utf-8", newline="") as file:
            sentences = [row["sentence"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
        order = np.random.default_rng(0).permutation(len(sentences))
        lines = [line for index in order for line in label_words(sentences[index])]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def label_words(sentence: str) -> Iterator[str]:
    """Yield the lines of a sentence: each word in small letters and the mark behind it."""
    words = list(_WORD.finditer(sentence))
    for index, word in enumerate(words):
        if index == len(words) - 1:
            label = "QUESTION" if sentence.rstrip().endswith("?") else "PERIOD"
        else:
            label = "COMMA" if sentence[word.end() :].startswith(",") else "O"
        yield f"{word.group().lower()}\t{label}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
