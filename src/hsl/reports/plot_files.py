"""A plot of the report: drawn once, shown inside the page, saved as PDF, PNG and SVG with its data as CSV."""

import csv
import io
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from hsl.files import write_atomically
from hsl.reports.palette import SERIES
from hsl.reports.plots import STYLE

INK, SOFT, LINE = "#1b1f24", "#57606a", "#d8dde3"
REPORT_STYLE: Any = STYLE | {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.hashsalt": "hsl",  # the same data give the same file
    "hatch.linewidth": 0.7,
}
# On the page these colours follow its light and dark scheme.
_VARIABLES = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)},
}
_DROPPED = re.compile(r"<\?xml[^>]*\?>|<!DOCTYPE[^>]*>|<metadata>.*?</metadata>| xmlns(:xlink)?=\"[^\"]*\"", re.DOTALL)
_STAMPS: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "ModDate": None},
    "png": {"Software": None},
}


@dataclass(frozen=True)
class Plot:
    """A figure and its data.

    Attributes:
        name: what its files are called.
        caption: what is shown, for a reader who has not seen the code.
        figure: drawn under ``REPORT_STYLE``.
        columns: heads of the data.
        rows: the numbers drawn; None where there is none.
        on_card: keep the colours and lay the plot on a white card, for colour maps that mean white = 0.
    """

    name: str
    caption: str
    figure: Figure
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]
    on_card: bool = False

    @property
    def svg(self) -> str:
        """An ``<svg>`` element to stand inside HTML: no outside reference, no id that a second plot also has."""
        text = _DROPPED.sub("", _render(self.figure, "svg").decode())
        used = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", text))

        def rename(match: re.Match[str]) -> str:
            return f' id="{self.name}-{match[1]}"' if match[1] in used else ""

        text = re.sub(r' id="([^"]*)"', rename, text)
        text = re.sub(r"(href=\"#|url\(#)", rf"\g<1>{self.name}-", text)
        for colour, variable in {} if self.on_card else _VARIABLES.items():
            text = text.replace(colour, variable)
        size = re.search(r'width="([\d.]+)pt"', text)
        # On a narrow screen the plot is scrolled, not shrunk until nobody can read it.
        width = 4 * float(size[1]) / 3 if size else 0
        style = f"width:{width:.0f}px;min-width:{min(width, 544):.0f}px"
        head = (
            f'<svg role="img" aria-label="{self.name.replace("_", " ")}, data in plots/{self.name}.csv" style="{style}"'
        )
        return text.replace("<svg", head, 1).strip()

    def csv(self) -> str:
        """The data at full precision."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([["" if cell is None else cell for cell in row] for row in self.rows])
        return text.getvalue()


def save_plots(plots: Sequence[Plot], folder: Path) -> None:
    """Write ``NAME.pdf``, ``NAME.png``, ``NAME.svg`` and ``NAME.csv`` of every plot."""
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells every table of every font that it embeds
    for plot in plots:
        for kind in _STAMPS:
            write_atomically(folder / f"{plot.name}.{kind}", _render(plot.figure, kind, facecolor="white"))
        write_atomically(folder / f"{plot.name}.csv", plot.csv().encode())


def _render(figure: Figure, kind: str, facecolor: str = "none") -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context(REPORT_STYLE):
        figure.savefig(buffer, format=kind, dpi=160, facecolor=facecolor, metadata=_STAMPS[kind])
    return buffer.getvalue()
