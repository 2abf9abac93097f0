"""Progress of an evaluation: a bar on a terminal, lines elsewhere, nothing on stdout."""

import io
import logging

from rich.console import Console

import dynabert_paddle as db
from dynabert_paddle.training import evaluate, progress


def test_lines_come_at_most_every_few_seconds(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO), progress.show_progress("evaluate", 100, seconds=10) as report:
        for done in range(0, 101, 10):
            now[0] += 4
            report(done)
    assert [record.message for record in caplog.records] == [f"evaluate {done}/100" for done in (20, 50, 80, 100)]


def test_the_grid_has_a_bar_on_a_terminal(finetuned, tiny_data, monkeypatch, capsys):
    terminal = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=terminal, force_terminal=True, width=80))
    supernet = db.Supernet.from_pretrained(finetuned)
    task = db.load_task("custom", data_dir=tiny_data)
    rows = evaluate.evaluate_grid(supernet, task, supernet.search_space(width_mults=[1, 0.5]), batch_size=16)
    assert len(rows) == 6
    shown = terminal.getvalue()
    assert "evaluate" in shown and "42/42" in shown
    assert capsys.readouterr().out == ""


def test_every_batch_is_reported(finetuned, tiny_data):
    supernet, done = db.Supernet.from_pretrained(finetuned), []
    features = evaluate.tokenize_examples(db.load_task("custom", data_dir=tiny_data).dev, supernet)
    evaluate.predict_logits(supernet, features, [supernet.full], batch_size=16, report=done.append)
    assert done[-1] == len(features) == 42
    assert done == sorted(set(done)) and len(done) >= 3
