"""README.md and README_cn.md say the same: what is not prose is compared, section by section."""

import re
from collections import Counter
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README_cn.md")}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def sections(text):
    """Each heading, with its level, and what stands below it; code blocks put aside: a comment in one is no heading."""
    parts = re.split(r"^(#+ .*)$", BLOCK.sub("", text), flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def differences(find):
    """What `find` finds more often in a section of one README than in the other's, by the section's heading."""
    found = [[(heading, Counter(find(body))) for heading, body in sections(text)] for text in TEXTS.values()]
    return {
        heading: dict(own - others)
        for ours, theirs in (found, found[::-1])
        for (heading, own), (_, others) in zip(ours, theirs, strict=False)
        if own - others
    }


def code(text):
    """Every code block's language and lines; comments, which are translated, are left out."""
    uncommented = ((language, re.sub(r"[ \t]*#.*", "", block)) for language, block in BLOCK.findall(text))
    return [(language, [line for line in block.splitlines() if line.strip()]) for language, block in uncommented]


def table_shapes(body):
    """The number of cells of every row of a table."""
    return [line.count("|") for line in body.splitlines() if line.startswith("|")]


def links(body):
    """Where links lead; the two READMEs link each other."""
    return [target for target in re.findall(r"\]\(([^)]+)\)", body) if target not in TEXTS]


def numbers(body):
    """Numbers in the prose."""
    return re.findall(r"\d[\d.]*(?:e-?\d+)?(?<!\.)", re.sub(r"`[^`]*`|\]\([^)]*\)", "", body))


def test_the_headings_are_of_the_same_levels():
    english, chinese = ([heading for heading, _ in sections(text)] for text in TEXTS.values())
    levels = [[heading.index(" ") for heading in headings] for headings in (english, chinese)]
    assert levels[0] == levels[1], list(zip_longest(english, chinese))


def test_the_code_blocks_are_the_same():
    english, chinese = map(code, TEXTS.values())
    assert english == chinese


@pytest.mark.parametrize(
    "find",
    [lambda body: re.findall(r"`([^`]+)`", body), links, table_shapes, numbers],
    ids=["inline code", "links", "tables", "numbers"],
)
def test_every_section_names_the_same(find):
    assert differences(find) == {}


def test_each_readme_links_the_other_at_its_top():
    for name, other in zip(TEXTS, reversed(TEXTS), strict=True):
        assert f"]({other})" in TEXTS[name].split("\n## ")[0], name


def test_the_chinese_readme_is_chinese():
    assert all(re.search(r"[\u4e00-\u9fff]", body) for _, body in sections(TEXTS["README_cn.md"]) if body.strip())
