"""A chart as SVG: its words in both languages, its values on hover, the same for the same data."""

import re
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest

from dynabert_paddle.reporting.chart import STYLE, Chart
from dynabert_paddle.reporting.labels import Text, verbatim

pytestmark = pytest.mark.reference

SVG = "{http://www.w3.org/2000/svg}"


def draw():
    chart = Chart("test", Text("Title", "标题"), height=2)
    (axes,) = chart.axes
    (mark,) = axes.plot([1], [2], "o")
    chart.tip(mark, Text("<one> & $two$", "一"))
    chart.label_axes(axes, x=Text("loss <b> $x$", "损失"), y=verbatim("same\x01 \ud800"))
    chart.legend([mark], [Text("mark", "标记")], columns=1)
    return chart


@pytest.fixture
def chart():
    with matplotlib.rc_context(STYLE):
        yield draw()


def texts(root, **attributes):
    return [
        "".join(node.itertext())
        for node in root.iter(f"{SVG}text")
        if all(node.get(key) == value for key, value in attributes.items())
    ]


def test_texts_are_present_once_in_each_language(chart):
    root = ET.fromstring(chart.svg())
    assert texts(root, lang="en") == ["loss <b> $x$", "mark"]
    assert texts(root, lang="zh") == ["损失", "标记"]
    assert "same " in texts(root)


def test_a_mark_shows_its_values(chart):
    root = ET.fromstring(chart.svg())
    (mark,) = (node for node in root.iter() if node.get("class") == "mark")
    assert mark[0].tag == f"{SVG}title"
    assert mark[0].text == "<one> & $two$" and mark[0].get("data-zh") == "一"
    assert mark.find(f".//{SVG}use") is not None or mark.find(f".//{SVG}path") is not None


def test_the_picture_is_labelled_by_its_text_alternative(chart):
    root = ET.fromstring(chart.svg())
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "test-title test-finding"
    assert root.get("viewBox") and not root.get("width")


def test_the_svg_has_no_metadata_fonts_or_unused_ids(chart):
    svg = chart.svg()
    assert not re.search("metadata|dc:|font-family|<style", svg)
    ids = re.findall(r' id="([^"]+)"', svg)
    assert len(ids) == len(set(ids))
    assert all(f"#{name}" in svg for name in ids)


def test_it_is_the_same_each_time(chart):
    assert chart.svg() == draw().svg()


def test_the_image_has_the_figure_in_colours(chart):
    image = chart.image()
    assert image.dtype == np.uint8 and image.shape[2] == 3
    assert image.shape[1] > 600
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10
