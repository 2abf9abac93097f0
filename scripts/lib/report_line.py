#!/usr/bin/env python
"""Print one line about a finished run: report_line.py OUTPUT_DIR"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml


def main(folder: Path) -> None:
    """Print the scores of the full model, of the best sub-network and of the smallest one."""
    grid = json.loads((folder / "grid.json").read_text(encoding="utf-8"))
    task = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8"))["task"]["name"]
    rows = grid["rows"]
    metric = next(key for key in rows[0] if key != "subnet")
    best, smallest = max(rows, key=lambda row: row[metric]), min(rows, key=lambda row: row["macs"])
    parts = [f"{name} {row['subnet']} {row[metric]:.4f}" for name, row in (("best", best), ("smallest", smallest))]
    print(
        f"{task} {grid['split']} {metric}: full {rows[0][metric]:.4f}, {', '.join(parts)}; bundle {folder / 'bundle'}"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
