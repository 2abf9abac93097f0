"""Every sentence of the page is there in both languages."""

import ast
import re
import string
from pathlib import Path

import pytest

from dynabert_paddle import reporting
from dynabert_paddle.reporting.labels import CHINESE, Text, join, quantity, say, verbatim

FOLDER = Path(reporting.__file__).parent


def sentences():
    """What the sources and the template say."""
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "say":
                first = node.args[0]
                yield from (part.value for part in ast.walk(first) if isinstance(part, ast.Constant))
    yield from re.findall(r'say\("([^"]+)"', (FOLDER / "templates" / "report.html").read_text(encoding="utf-8"))


def names(sentence):
    return sorted(name for _, name, _, _ in string.Formatter().parse(sentence) if name)


def test_exactly_the_used_sentences_are_translated():
    assert {text for text in sentences() if isinstance(text, str)} == set(CHINESE)


@pytest.mark.parametrize("sentence", CHINESE)
def test_a_translation_is_chinese_and_has_the_same_values(sentence):
    assert re.search("[\u4e00-\u9fff]", CHINESE[sentence])
    assert set(names(CHINESE[sentence])) == set(names(sentence))


def test_a_value_is_in_the_language_of_its_sentence():
    text = say("{metric} on {split}", metric="accuracy", split=say("the dev set"))
    assert text == Text("accuracy on the dev set", "验证集上的 accuracy")


def test_values_are_not_sentences():
    assert say("layer {layer}", layer="{x}").en == "layer {x}"


def test_both_languages_are_in_the_page_escaped():
    assert Text("a < b", "c").__html__() == '<span lang="en">a &lt; b</span><span lang="zh">c</span>'
    assert verbatim("<b>").__html__() == "&lt;b&gt;"


def test_sentences_follow_each_other():
    assert join(Text("A.", "甲。"), Text("B.", "乙。")) == Text("A. B.", "甲。乙。")


@pytest.mark.parametrize(
    ("value", "unit", "shown"), [(16_511_047, "M", "16.51 M"), (597_688_320, "G", "0.598 G"), (3.2, "ms", "3.20 ms")]
)
def test_a_cost_has_its_unit(value, unit, shown):
    assert quantity(value, unit) == shown
    assert quantity(None, unit) == ""
