"""What the README promises: its commands exist, its Python runs, and the quick start reaches its figures."""

import json
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
NAMES = ("commands", "tasks", "search", "export", "serving", "long_runs", "installing")
GUIDES = [README, *((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in NAMES)]


def blocks(language):
    """The README's code blocks of one language."""
    return blocks_of(README, language)


def blocks_of(text, language):
    """The code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_readme_lists_exactly_the_existing_verbs():
    from dynabert_paddle.cli.main import app

    verbs = {command.name for command in app.registered_commands}
    assert set(re.findall(r"^\| `dynabert (\w+)", COMMANDS, flags=re.MULTILINE)) == verbs


def test_every_file_that_the_readme_names_is_there():
    named = re.findall(r"\]\(([^)#]+)\)", README)
    named += re.findall(r"(?:bash|python) (scripts/\S+?\.\w+)", "\n".join(GUIDES))
    missing = [name for name in named if not name.startswith("http") and not (ROOT / name).exists()]
    assert not missing


def test_the_grid_in_the_readme_meets_the_stated_accuracy():
    (grid,) = (block for block in blocks("text") if "w1.00d1.00" in block)
    rows = {row.split()[0]: row.split() for row in grid.splitlines() if row.strip().startswith("w")}
    assert len(rows) == 12
    assert float(rows["w1.00d1.00"][1]) >= 0.97
    assert float(rows["w0.25d0.50"][1]) >= 0.93


def test_the_flags_of_the_readme_are_known(dynabert):
    for command in re.findall(r"^dynabert .*", "\n".join(blocks_of("\n".join(GUIDES), "bash")), flags=re.MULTILINE):
        verb, *words = shlex.split(command, comments=True)[1:]
        done = dynabert(verb, "--help")
        assert done.code == 0, command
        assert all(word in done.out for word in words if word.startswith("--")), command


def test_the_config_of_the_readme_is_valid(tmp_path):
    from dynabert_paddle.config.loading import load_config

    (config,) = blocks("yaml")
    path = tmp_path / "mine.yaml"
    path.write_text(config, encoding="utf-8")
    loaded = load_config(path)
    assert (loaded.task.name, loaded.width.learning_rate, loaded.depth.num_train_epochs) == ("custom", 5e-5, 3)


@pytest.mark.full
def test_the_python_of_the_readme_and_of_the_guides_runs_twice(tmp_path, monkeypatch, tiny_folder, tiny_data, capsys):
    """As it stands, but for a backbone and data that take seconds."""
    import dynabert_paddle as db

    def run(code, name):
        code = code.replace('"minilm-l6"', repr(str(tiny_folder)))
        code = code.replace('db.load_task("snips")', f'db.load_task("custom", data_dir={str(tiny_data)!r})')
        exec(compile(code, name, "exec"), {})
        return capsys.readouterr().out.splitlines()

    monkeypatch.chdir(tmp_path)
    (example,) = blocks("python")
    (chinese,) = blocks_of((ROOT / "README_cn.md").read_text(encoding="utf-8"), "python")
    for code in (example, chinese):  # the second finds what the first has left
        assert len([line for line in run(code, "README.md") if line.startswith("w")]) == 12
    db.export("out/depth", "out/adaptive", subnets=["w1.00d1.00", "w0.25d0.50"])  # as the guide to serving has it
    guides = [code for path in sorted((ROOT / "docs").glob("*.md")) for code in blocks_of(path.read_text(), "python")]
    assert len(guides) >= 2
    for code in guides * 2:
        run(code, "docs")
    small = db.load_model("out/small")
    assert small.full.heads == (2, 2)
    assert small.full.neurons == (24, 24)


@pytest.mark.full
@pytest.mark.timeout(1500)
def test_the_quick_start_reaches_its_figures(quickstart):
    """Accuracy of at least 0.97 for the full model and 0.93 for the smallest sub-network."""
    printed = json.loads((quickstart / "printed.json").read_text(encoding="utf-8"))
    rows = {row["subnet"]: row for row in printed["rows"]}
    assert len(rows) == 12
    assert rows["w1.00d1.00"]["accuracy"] >= 0.97
    assert rows["w0.25d0.50"]["accuracy"] >= 0.93
    assert json.loads((quickstart / "out" / "grid.json").read_text())["rows"] == list(rows.values())
