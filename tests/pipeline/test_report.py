"""The report of a real run, looked at in a real browser: on a desk, on a phone, on paper, in both languages."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from commands import run_command
from PIL import Image
from report_folder import write_baselines, write_search

import dynabert_paddle as db
from dynabert_paddle.reporting.chart import BLUE, GREEN, ORANGE, PINK, RED, SKY

pytestmark = pytest.mark.full

PHONE = 390

# Looks at the page from inside, as a user's eye and finger would, and tells the page around it.
MEASURE_PAGE = """
const seen = {};
const shown = (node) => node.getBoundingClientRect();
const scale = (text) => shown(text.ownerSVGElement).width / text.ownerSVGElement.viewBox.baseVal.width;
const size = (text) => parseFloat(getComputedStyle(text).fontSize) * scale(text);
const isCut = (text) => {
  const inside = shown(text), around = shown(text.ownerSVGElement);
  return inside.left < around.left - 1 || inside.right > around.right + 1
    || inside.top < around.top - 1 || inside.bottom > around.bottom + 1;
};
for (const language of ["en", "zh"]) {
  document.querySelector(`label[for=${language}]`).click();
  const words = [...document.querySelectorAll("svg text")].filter((text) => text.getClientRects().length);
  const blocks = [...document.querySelectorAll("h1, h2, h3, p, svg, figure, dd, summary, nav")];
  document.querySelector(".mark").dispatchEvent(new MouseEvent("click", { bubbles: true }));
  seen[language] = {
    heading: document.querySelector("h1").innerText,
    title: document.title,
    places: ["heads", "kept", "neurons"].map((name) => shown(document.getElementById(name))),
    labels: words.map((text) => text.textContent),
    width: innerWidth,
    scroll: document.documentElement.scrollWidth,
    wide: blocks.filter((node) => shown(node).right > innerWidth).length,
    smallest: Math.min(...words.map(size)),
    cut: words.filter(isCut).map((text) => text.textContent),
    tip: document.getElementById("tip").innerText,
  };
}
document.body.click();
seen.closed = document.getElementById("tip").hidden;
parent.postMessage(JSON.stringify(seen), "*");
"""
FRAME = """<!DOCTYPE html><body style="margin:0">
<iframe src="{page}" style="display:block;width:{width}px;height:{height}px;border:0"></iframe>
<pre id="seen"></pre><script>
addEventListener("message", (event) => {{ document.getElementById("seen").textContent = event.data; }});
</script></body>"""


@pytest.fixture(scope="module")
def folder(chain, tmp_path_factory):
    """A small real run; the search and the baselines are made up."""
    folder = shutil.copytree(chain, tmp_path_factory.mktemp("report") / "run")
    write_search(folder / "depth")
    write_baselines(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return db.report(folder, visualdl=False)


@pytest.fixture
def chromium(browser, tmp_path):
    """Run the browser without a network; what it prints, and no error of the page's."""

    def run(*flags):
        command = [
            browser,
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-pdf-header-footer"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9", "--virtual-time-budget=2000"),
            *("--enable-logging=stderr", "--v=0", f"--user-data-dir={tmp_path / 'profile'}", *flags),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert "CONSOLE" not in done.stderr, done.stderr
        return done.stdout

    return run


def test_the_command_names_the_files_it_wrote(folder, capsys):
    done = run_command(capsys, "report", folder, "--language", "zh")
    assert done.code == 0 and done.out == ""
    assert done.err.splitlines()[:2] == [f"wrote {folder / 'report.html'}", f"wrote {folder / 'vdl_report'}"]
    assert list((folder / "vdl_report").iterdir())
    done = run_command(capsys, "report", folder, "--no_visualdl", "--output_file", folder / "other.html")
    assert done.err.splitlines()[0] == f"wrote {folder / 'other.html'}"
    done = run_command(capsys, "report", folder / "depthh")
    assert done.code == 1 and f"Did you mean '{folder / 'depth'}'?" in done.err


@pytest.mark.parametrize("width", [PHONE, 1200])
def test_the_whole_page_is_visible_in_both_languages(page, chromium, tmp_path, width):
    text = page.read_text(encoding="utf-8")
    inside, around = tmp_path / "page.html", tmp_path / "around.html"
    inside.write_text(text.replace("</body>", f"<script>{MEASURE_PAGE}</script></body>"), encoding="utf-8")
    around.write_text(FRAME.format(page=inside.as_uri(), width=width, height=2000), encoding="utf-8")
    dom = chromium("--window-size=1300,2000", "--dump-dom", around.as_uri())
    seen = json.loads(re.search(r'<pre id="seen">(.+?)</pre>', dom)[1].replace("&amp;", "&").replace("&lt;", "<"))
    assert seen["en"]["heading"] == "DynaBERT report: run"
    assert re.fullmatch("DynaBERT 报告.run", seen["zh"]["heading"])
    assert all(seen[language]["title"] == seen[language]["heading"] for language in ("en", "zh"))
    assert {"full model", "step", "layer", "width multiplier"} <= set(seen["en"]["labels"])
    assert {"完整模型", "步", "层", "宽度系数"} <= set(seen["zh"]["labels"])
    assert len(seen["en"]["labels"]) == len(seen["zh"]["labels"]) > 200
    assert re.fullmatch(r"w1.00d1.00: accuracy .+", seen["en"]["tip"]) and seen["zh"]["tip"] == seen["en"]["tip"]
    assert seen["closed"]
    for language in ("en", "zh"):
        assert seen[language]["width"] == width
        assert seen[language]["scroll"] == width and seen[language]["wide"] == 0, "the page is wider than its window"
        assert seen[language]["smallest"] >= 9, "words too small to read"
        assert seen[language]["cut"] == []
        heads, kept, neurons = seen[language]["places"]
        assert neurons["left"] == heads["left"] and neurons["top"] > heads["bottom"]
        if width == PHONE:
            assert heads["bottom"] < kept["top"] and kept["bottom"] < neurons["top"]
        else:
            assert kept["left"] > heads["right"] and kept["top"] == heads["top"] and kept["bottom"] > neurons["top"]


def colors(image):
    return {tuple(color) for color in np.unique(image.reshape(-1, 3), axis=0)}


@pytest.mark.parametrize("width", [PHONE, 1200])
def test_a_screenshot_shows_every_colour_of_the_charts(page, chromium, tmp_path, width):
    around, shot = tmp_path / "around.html", tmp_path / "shot.png"
    height = 9000 if width == PHONE else 5000
    around.write_text(FRAME.format(page=page.as_uri(), width=width, height=height), encoding="utf-8")
    chromium(f"--window-size=1300,{height}", f"--screenshot={shot}", around.as_uri())
    image = np.asarray(Image.open(shot).convert("RGB"))[:, :width]
    wanted = {tuple(bytes.fromhex(color[1:])) for color in (BLUE, RED, GREEN, PINK, ORANGE, SKY)}
    assert wanted <= colors(image)
    ink = (image.min(axis=2) < 128).mean(axis=1) > 0
    assert ink.sum() > 0.3 * width / PHONE * 1000, "the page is nearly blank"
    assert image[:200].min() < 60 and (image[0] == 255).all(), "dark words on white"


def test_a_print_fills_a_few_pages_of_a4(page, chromium, tmp_path):
    pdf = tmp_path / "page.pdf"
    chromium(f"--print-to-pdf={pdf}", page.as_uri())
    content = pdf.read_bytes()
    pages = len(re.findall(rb"/Type /Page\b", content))
    assert 3 <= pages <= 12
    assert set(re.findall(rb"/MediaBox \[0 0 (\d+)[.\d]* (\d+)", content)) == {(b"594", b"841")}, "A4"
