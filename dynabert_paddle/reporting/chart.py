"""One chart: drawn once by matplotlib, shown in the page as SVG with values on hover, and in VisualDL as an image."""

from __future__ import annotations

import copy
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text as Words
from matplotlib.ticker import MaxNLocator

from dynabert_paddle.reporting.labels import Text, verbatim

# Inches. A phone 390 pixels wide shows this on 340 of them, so that 9 points are 10 pixels there.
WIDTH = 4.2

STYLE = {
    "font.size": 9,
    "axes.labelsize": 10,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "text.parse_math": False,  # a dollar in somebody's metric is a dollar
    "svg.fonttype": "none",  # text stays text: searchable, and Chinese is the browser's to draw
    "svg.hashsalt": "dynabert",
}
# Okabe and Ito's, which the colour-blind can tell apart.
BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    "#222222",
)
COLORS = (BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_SVG = "{http://www.w3.org/2000/svg}"
_REFERENCE = re.compile(r"#([\w-]+)")
_FONT_FAMILY = re.compile(r"font-family: [^;]*;? ?")
ET.register_namespace("", "http://www.w3.org/2000/svg")
ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")


@dataclass(frozen=True)
class Table:
    """The figures behind a chart.

    Args:
        columns: headings.
        rows: cells.
    """

    columns: tuple[Text, ...]
    rows: tuple[tuple[Text | str, ...], ...]


class Chart:
    """A chart with its words in both languages.

    Args:
        name: short, unlike any other chart's.
        title: above it.
        height: in inches.
        rows: plots one above the other.
    """

    def __init__(self, name: str, title: Text, *, height: float, rows: int = 1) -> None:
        self.name = name
        self.title = title
        self.finding = verbatim("")
        self.note: Text | None = None
        self.table: Table | None = None
        self.figure = Figure(figsize=(WIDTH, height), layout="constrained", dpi=150)
        FigureCanvasAgg(self.figure)
        self.axes = self.figure.subplots(rows, squeeze=False, sharex=True)[:, 0]
        self._words: dict[str, Text] = {}
        self._tips: dict[str, Text] = {}
        self._names: dict[str, str] = {}

    def write(self, words: Words, text: Text) -> None:
        """Set the text of a title or label in both languages."""
        words.set_text("".join(char for char in text.en if char.isprintable()))  # XML allows no others
        gid = self._id(len(self._words), "w")
        words.set_gid(gid)
        self._words[gid] = text

    def name_axis(self, axis: Axis, positions: Sequence[float], names: Sequence[str], *, rotation: float = 0) -> None:
        """Name the places of an axis by words from data, with room for characters that the browser draws wide.

        Matplotlib has no font for many of them, and would give each the room of a stand-in, which is narrower.

        Args:
            axis: the axis.
            positions: where the names stand.
            names: as many.
            rotation: of the names, in degrees.
        """
        names = ["".join(char for char in name if char.isprintable()) for name in names]  # XML allows no others
        as_wide = ["".join("W" if east_asian_width(char) in "WF" else char for char in name) for name in names]
        axis.set_ticks(list(positions), as_wide, rotation=rotation)
        for words, name in zip(axis.get_ticklabels(), names, strict=True):
            gid = self._id(len(self._names), "n")
            words.set_gid(gid)
            self._names[gid] = name

    def tip(self, artist: Artist, text: Text) -> None:
        """Set the text that is shown when the pointer is over a mark."""
        gid = self._id(len(self._tips), "m")
        artist.set_gid(gid)
        self._tips[gid] = text

    def label_axes(self, axes: Axes, *, x: Text | None = None, y: Text | None = None) -> None:
        """Label the axes of a plot."""
        if x:
            self.write(axes.xaxis.label, x)
            axes.xaxis.set_major_locator(MaxNLocator(6))
        if y:
            self.write(axes.yaxis.label, y)

    def legend(
        self, handles: Sequence[Artist], texts: Sequence[Text], *, columns: int, axes: Axes | None = None
    ) -> None:
        """Add a legend.

        Args:
            handles: one mark of each kind.
            texts: their labels.
            columns: number of columns.
            axes: the plot to put the legend above; by default it is below the figure.
        """
        # Inside a plot it would hide marks.
        place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1)} if axes else {"loc": "outside lower center"}
        legend = (axes or self.figure).legend(
            handles, [text.en for text in texts], ncols=columns, columnspacing=1.2, handletextpad=0.5, **place
        )
        for words, text in zip(legend.get_texts(), texts, strict=True):
            self.write(words, text)

    def image(self) -> np.ndarray:
        """Draw the figure, in English.

        Returns:
            Its pixels, `[height, width, 3]` of uint8.
        """
        canvas = FigureCanvasAgg(self.figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()

    def svg(self) -> str:
        """Draw the figure for the page.

        Returns:
            An SVG element, the same for the same data.
        """
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        root = ET.fromstring(buffer.getvalue())
        for useless in (root.find(f"{_SVG}metadata"), root.find(f"{_SVG}defs")):
            if useless is not None:
                root.remove(useless)
        for key in ("width", "height", "version"):
            root.attrib.pop(key, None)
        root.set("role", "img")
        root.set("aria-labelledby", f"{self.name}-title {self.name}-finding")
        for words in root.iter(f"{_SVG}text"):
            words.set("style", _FONT_FAMILY.sub("", words.get("style", "")))  # the page chooses the font
        for element in list(root.iter()):
            self._add_words(element)
        self._keep_ids(root)
        return ET.tostring(root, encoding="unicode")

    def _id(self, number: int, kind: str) -> str:
        return f"{self.name}-{kind}{number}"

    def _add_words(self, element: ET.Element) -> None:
        """Put tips into marks, and a Chinese twin beside each English text."""
        gid = element.get("id", "")
        if gid in self._names:
            (words,) = element.iter(f"{_SVG}text")
            words.text = self._names[gid]
        if gid in self._tips:
            tip = self._tips[gid]
            title = ET.Element(f"{_SVG}title", {"data-zh": tip.zh})
            title.text = tip.en
            element.insert(0, title)
            element.set("class", "mark")
        if gid in self._words and self._words[gid].zh != self._words[gid].en:
            (english,) = element.iter(f"{_SVG}text")
            parent = next(node for node in element.iter() if english in node)
            chinese = copy.deepcopy(english)
            english.set("lang", "en")
            chinese.set("lang", "zh")
            chinese.text = self._words[gid].zh
            parent.append(chinese)

    def _keep_ids(self, root: ET.Element) -> None:
        """Drop the ids that nothing refers to: ids of several charts in one page would collide."""
        used = {name for node in root.iter() for value in node.attrib.values() for name in _REFERENCE.findall(value)}
        for element in root.iter():
            if element.get("id") not in used:
                element.attrib.pop("id", None)
