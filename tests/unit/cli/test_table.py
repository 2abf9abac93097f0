"""Tables of every command on terminals of several widths: numbers are whole, names may be shortened."""

import importlib.util
import os
import pty
import re
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from dynabert_paddle.cli import baseline, bench, search
from dynabert_paddle.cli.table import recommended, shorten, show_grid, show_table
from dynabert_paddle.files.search_result import SearchResult

ROOT = Path(__file__).parents[3]
LONG = "-".join(f"l{layer}h12f3072" for layer in range(12))
NAMES = [LONG, LONG[:-1] + "1", LONG.replace("l5h12", "l5h11"), "w1.00d1.00"]
COSTS = {"params": 109_480_000, "macs": 10_873_000_000}


def read_screen(width, show):
    """What a function prints to a terminal of this width, without colours."""
    leader, follower = pty.openpty()
    patch = pytest.MonkeyPatch()
    patch.setenv("COLUMNS", str(width))
    try:
        with open(follower, "w", encoding="utf-8") as stream:
            patch.setattr(sys, "stdout", stream)
            show()
            stream.flush()
            text = b""
            os.set_blocking(leader, False)
            while True:
                try:
                    text += os.read(leader, 65536)
                except BlockingIOError:
                    break
    finally:
        patch.undo()
        os.close(leader)
    return re.sub(r"\x1b\[[\d;]*m", "", text.decode()).replace("\r\n", "\n")


def grid(label):
    rows = [
        {"subnet": name, "accuracy": 0.98571, "f1": 0.98143, "params_without_embeddings": 85_050_000, **COSTS}
        for name in NAMES
    ]
    show_grid(rows, split="dev", as_json=False, positive_label=label)


def searched():
    errors = {"standard_error": 0.00751, "divergence": 0.04321, "divergence_error": 0.00234}
    row = {"score": 0.98571, **errors, "latency_ms": 12.345, "measured_latency_ms": 123.45, "size_mb": 437.9, **COSTS}
    rows = [{"subnet": name, **row} for name in NAMES]
    setting = {"batch_size": 1, "seq_length": 64, "device": "cpu", "num_threads": 2, "precision": "fp32"}
    about = {"model": "", "weights": "", "task": "", "metric": "accuracy", "score": "metric", "split": "holdout"}
    numbers = {"num_examples": 500, "setting": setting, "goals": ("macs",), "budget": {}, "num_evaluated": 300}
    found = {"full": rows[0], "grid": rows, "pareto": rows, "best": rows[0], "nearest": None}
    search._show(SearchResult(**about, **numbers, **found))


def fixed_size():
    measured = {"metrics": {"accuracy": 0.98571, "macro_f1": 0.98143}, "examples_seen": 10420, "seconds": 123.4}
    baseline._show({"method": "distilbert", "subnet": LONG, **measured, **COSTS})


def measured():
    shape = {"batch_size": 32, "seq_length": 128, "p50_ms": 12.34, "p95_ms": 123.45, "sentences_per_second": 1234}
    sizes = {"speedup": 12.34, "peak_memory_mb": 1234, "size_mb": 437.9, "bundle_mb": 438.7}
    paths = ["/home/user/runs/2024/out/bundle_fp32", "/home/user/runs/2024/out/bundle_int8", "部署/中文路径/量化部署包"]
    bench._show({"threads": 2, "rows": [{"name": path, "depends_on_batch": False, **shape, **sizes} for path in paths]})


def load(script, name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def under_load():
    module = load("load_test.py", "load_test")
    answers = [module.Answer(0, 0, 12.34, NAMES[0], "a"), module.Answer(0, 1, 12.34, NAMES[1], "a")]
    module.show(answers, (0.5,), NAMES[:2], 25.0)


SHOW = {
    "grid": (lambda: grid("duplicate"), ["0.9857", "0.9814", "109.48 M", "85.05 M", "10.873 G"]),
    "long label": (lambda: grid("a label of many words, none of them short"), ["0.9857", "85.05 M", "10.873 G"]),
    "Chinese label": (lambda: grid("语义完全相同的一对问题"), ["0.9857", "0.9814", "10.873 G"]),
    "search": (searched, ["0.9857", "0.0075", "0.0432", "0.0023", "12.35", "123.45", "109.48", "10.873", "437.9"]),
    "baseline": (fixed_size, ["0.9857", "0.9814", "109.48 M", "10.873 G", "10420", "123.4"]),
    "bench": (measured, ["32x128", "12.34", "123.45", "1234", "437.9", "438.7"]),
    "load test": (under_load, ["100.00%", "12.3", "50.0%"]),
}


@pytest.mark.parametrize("width", [80, 60, 40])
@pytest.mark.parametrize("name", SHOW)
def test_a_narrow_terminal_shows_every_number(name, width):
    show, numbers = SHOW[name]
    text = read_screen(width, show)
    cells = {cell for line in text.splitlines() for cell in re.split(r"\s{2,}", line.strip())}
    assert set(numbers) <= cells, text
    assert max(map(cell_len, text.splitlines())) <= width, text


def test_names_that_differ_only_in_the_middle_take_several_lines():
    text = read_screen(80, SHOW["grid"][0])
    first_table = re.split(r"\n\s*\n", text)[1]
    rows = re.split(r"\n(?=.*0\.9857)", first_table)[1:]
    names = ["".join(line.split()[0] for line in row.splitlines()) for row in rows]
    assert sorted(names) == sorted(NAMES)


def test_names_that_differ_at_an_end_take_one_line():
    def show():
        show_table(["sub-network", "accuracy"], [[name, "0.9857"] for name in (NAMES[0], NAMES[1])], title="")

    names = [line.split()[0] for line in read_screen(60, show).splitlines() if "0.9857" in line]
    assert len(set(names)) == 2 and all("…" in name for name in names)


@pytest.mark.parametrize("name", SHOW)
def test_a_pipe_shows_all_names_in_one_table(capsys, name):
    show, numbers = SHOW[name]
    show()
    out = capsys.readouterr().out
    assert "…" not in out
    lines = [line for line in out.splitlines() if numbers[0] in line]
    assert all(number in line for number in numbers for line in lines)


def test_a_table_that_fits_is_not_changed(capsys):
    def show():
        show_table(["sub-network", "accuracy"], [["w0.50d0.75", "0.9800"]], title="a title wider than the table")

    show()
    assert read_screen(80, show) == capsys.readouterr().out


def test_tables_with_macs_name_their_length(capsys):
    for name in ("grid", "search", "baseline"):
        SHOW[name][0]()
        assert "MACs of one sequence of 128 tokens" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("w0.50d0.75", 10, "w0.50d0.75"),
        ("l0h12f3072-l1h12f3072", 9, "l0h1…3072"),
        ("中文路径名称", 12, "中文路径名称"),
        ("中文路径名称", 8, "中文…称"),
        ("中文路径名称", 7, "中…名称"),
    ],
)
def test_a_name_loses_its_middle(text, width, shown):
    assert shorten(text, width) == shown
    assert cell_len(shown) <= width


def test_a_grid_recommends_one_of_its_sub_networks():
    rows = [{"subnet": name, "accuracy": score, "macs": macs} for name, score, macs in
            (("w1.00d1.00", 0.9, 8), ("w0.60d1.00", 0.895, 5), ("w0.30d1.00", 0.7, 2))]  # fmt: skip
    assert recommended(rows) == ["--subnet", "w0.60d1.00"]
    assert recommended(rows[1:]) == recommended([{**rows[0], "accuracy": 0.0}]) == ["--grid"]
