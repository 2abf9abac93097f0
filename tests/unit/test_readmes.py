"""The README and the guides in English and Chinese say the same: all but the prose is compared, section by section.

What the documents name is there: folders, files, modules and their members.
"""

import re
from collections import Counter
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path

import pytest

import dynabert_paddle

ROOT = Path(__file__).parents[2]
# Each English document with its Chinese twin.
PAIRS = [
    (path.with_name(path.name.replace("_cn", "")), path) for path in (*ROOT.glob("*_cn.md"), *ROOT.glob("docs/*_cn.md"))
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
each_pair = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].name)


def read(pair):
    """The two texts of a pair."""
    return [path.read_text(encoding="utf-8") for path in pair]


def sections(text):
    """Each heading, with its level, and its text; code blocks are left out: a comment in one is no heading."""
    parts = re.split(r"^(#+ .*)$", BLOCK.sub("", text), flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def differences(pair, find):
    """By heading: what `find` finds more often in a section of one document than in the same section of its twin."""
    found = [[(heading, Counter(find(body))) for heading, body in sections(text)] for text in read(pair)]
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
    """Link targets, a Chinese document's as its English twin's; the links between twins are left out."""
    targets = [re.sub(r"_cn\.md(#.*)?$", ".md", target) for target in re.findall(r"\]\(([^)]+)\)", body)]
    guides = {english.name for english, _ in PAIRS}
    plain = [re.sub(r"#.*", "", target) if target.split("#")[0] in guides else target for target in targets]
    return [target for target in plain if target not in ("README.md",)]


def numbers(body):
    """Numbers in the prose."""
    return re.findall(r"\d[\d.]*(?:e-?\d+)?(?<!\.)", re.sub(r"`[^`]*`|\]\([^)]*\)", "", body))


@each_pair
def test_the_headings_are_of_the_same_levels(pair):
    english, chinese = ([heading for heading, _ in sections(text)] for text in read(pair))
    levels = [[heading.index(" ") for heading in headings] for headings in (english, chinese)]
    assert levels[0] == levels[1], list(zip_longest(english, chinese))


@each_pair
def test_the_code_blocks_are_the_same(pair):
    english, chinese = map(code, read(pair))
    assert english == chinese


@each_pair
@pytest.mark.parametrize(
    "find",
    [lambda body: re.findall(r"`([^`]+)`", body), links, table_shapes, numbers],
    ids=["inline code", "links", "tables", "numbers"],
)
def test_every_section_names_the_same(pair, find):
    assert differences(pair, find) == {}


@each_pair
def test_each_document_links_its_twin_at_its_top(pair):
    for text, twin in zip(read(pair), reversed(pair), strict=True):
        assert f"]({twin.name})" in text.split("\n## ")[0], twin.name


@each_pair
def test_the_chinese_document_is_chinese(pair):
    chinese = read(pair)[1]
    assert all(re.search(r"[\u4e00-\u9fff]", body) for _, body in sections(chinese) if body.strip())


def test_the_readme_and_the_guides_of_users_have_a_chinese_twin():
    guides = (
        "commands",
        "tasks",
        "embeddings",
        "general",
        "search",
        "compression",
        "export",
        "serving",
        "long_runs",
        "installing",
    )
    assert {pair[0].name for pair in PAIRS} == {"README.md", *(f"{name}.md" for name in guides)}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1000


def test_the_file_tree_of_the_readme_has_every_folder():
    (tree,) = (
        block for _, block in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")) if "tests/" in block
    )
    names = re.findall(r"^( *)(\w+)/", tree, flags=re.MULTILINE)
    rooms = {path.parent.name for path in ROOT.glob("dynabert_paddle/*/__init__.py")}
    assert {name for indent, name in names if indent} == rooms
    assert all((ROOT / name).is_dir() for indent, name in names if not indent)


DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("scripts/*/README.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_of_the_repository_that_a_document_names_is_there(path):
    folders = "configs|docs|dynabert_paddle|notebooks|requirements|scripts|tests"
    text = path.read_text(encoding="utf-8")
    named = re.findall(rf"(?<![\w./-])((?:{folders})/[\w./-]+\.(?:ipynb|json|md|py|sh|svg|txt|yaml))\b", text)
    assert not [name for name in named if not (ROOT / name).exists()]


MAPS = [ROOT / "docs" / name for name in ("paper.md", "architecture.md", "performance.md")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_linked_file_is_there(path):
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))]
    missing = [target for target in targets if "://" not in target and not (path.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("path", [path for path in MAPS if path.exists()], ids=lambda path: path.name)
def test_every_name_of_the_package_that_a_map_of_the_code_has_is_there(path):
    """Files such as `training/loop.py`, and dotted names such as `supernet.elastic.run_layer`, resolve."""
    names = re.findall(r"`([\w./]+)(?:\(\))?`", BLOCK.sub("", path.read_text(encoding="utf-8")))
    files = [name for name in names if "/" in name and not name.startswith("/")]
    roots = [ROOT, ROOT / "dynabert_paddle"]
    missing = [name for name in files if not any((root / name).exists() for root in roots)]
    missing += [name for name in names if "/" not in name and is_of_package(name) and not resolves(name)]
    assert not missing


def test_the_reference_of_the_python_api_has_every_public_name():
    """Each public name once, from the module where it lives."""
    entries = re.findall(r"^::: dynabert_paddle\.([\w.]+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    public = [name for name in dynabert_paddle.__all__ if not name.startswith("__")]
    assert sorted(entry.rpartition(".")[2] for entry in entries) == sorted(public)
    assert all(resolves(entry) for entry in entries)


def is_of_package(name):
    """Whether a dotted name starts with a room or a module of the package."""
    top = name.removeprefix("dynabert_paddle.").partition(".")
    package = ROOT / "dynabert_paddle"
    return bool(top[2]) and ((package / top[0]).is_dir() or (package / f"{top[0]}.py").exists()) and top[2] != "py"


def resolves(name):
    """Whether a dotted name is a module, or is defined at the top of one or in one of its classes."""
    module, members = f"dynabert_paddle.{name.removeprefix('dynabert_paddle.')}", []
    while (spec := find(module)) is None:
        module, _, member = module.rpartition(".")
        members.insert(0, member)
    source = Path(spec.origin).read_text(encoding="utf-8")
    return all(
        re.search(rf"^\s*(?:def|class) {member}\b|^\s*{member}\b.*[:=]", source, re.MULTILINE) for member in members
    )


def find(module):
    try:
        return find_spec(module)
    except ModuleNotFoundError:
        return None
