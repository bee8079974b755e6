"""A plot of the report: drawn once, shown inside the page, saved in the formats asked for with its data as CSV."""

import csv
import io
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from hsl.errors import ConfigError
from hsl.files.cells import neutral
from hsl.files.io import write_atomically
from hsl.reports.plots.palette import SERIES
from hsl.reports.plots.run_plots import STYLE

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
FORMATS = (*_STAMPS, "tiff")
DPI = 160
MIN_DPI, MAX_DPI = 50, 2400
LARGEST_SIDE = 2**16 - 1  # pixels that matplotlib draws


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

    @cached_property
    def svg_file(self) -> str:
        """The SVG file, drawn once for the folder and for the page."""
        return _render(self.figure, "svg").decode()

    @property
    def svg(self) -> str:
        """An ``<svg>`` element to stand inside HTML: no outside reference, no id that a second plot also has."""
        text = _DROPPED.sub("", self.svg_file).replace('style="fill: #ffffff"', 'style="fill: none"', 1)
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
        writer.writerow(map(neutral, self.columns))
        writer.writerows([["" if cell is None else neutral(cell) for cell in row] for row in self.rows])
        return text.getvalue()


def check_plot_files(dpi: Any, formats: Any) -> tuple[str, ...]:
    """The formats, each once, or why they cannot be written.

    Raises:
        ConfigError: a format is unknown, none is given, or the resolution is out of its range.
    """
    given = [formats] if isinstance(formats, str) else list(formats or ())
    if not given or (unknown := [name for name in given if name not in FORMATS]):
        found = ", ".join(map(str, unknown)) if given else "none"
        raise ConfigError(
            f"`formats` should be one or more of {', '.join(FORMATS)}. Found `{found}`. Choose among them."
        )
    if isinstance(dpi, bool) or not isinstance(dpi, int) or not MIN_DPI <= dpi <= MAX_DPI:
        raise ConfigError(
            f"`dpi` should be a whole number in [{MIN_DPI}, {MAX_DPI}]. Found `dpi = {dpi}`. Choose another."
        )
    return tuple(dict.fromkeys(given))


def save_plots(plots: Sequence[Plot], folder: Path, dpi: int = DPI, formats: Sequence[str] = ("png", "svg")) -> None:
    """Write every plot in all formats, and its data as ``NAME.csv``.

    Args:
        plots: with different names.
        folder: of the files.
        dpi: pixels to an inch of PNG and TIFF, and of what is made of pixels inside PDF and SVG.
        formats: of `FORMATS`; TIFF is RGB without transparency, compressed by LZW.

    Raises:
        ConfigError: see `check_plot_files`, or a plot has more pixels at this resolution than can be drawn.
    """
    formats = check_plot_files(dpi, formats)
    for plot in plots:
        side = max(plot.figure.get_size_inches())
        if dpi * side > LARGEST_SIDE and {"png", "tiff"} & set(formats):
            raise ConfigError(
                f"`dpi` should be at most {int(LARGEST_SIDE / side)} for the plot `{plot.name}` of {side:.0f} inches. "
                f"Found `dpi = {dpi}`. Lower it, or leave png and tiff out of `formats`."
            )
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells every table of every font that it embeds
    for plot in plots:
        for kind in formats:
            write_atomically(folder / f"{plot.name}.{kind}", _content(plot, kind, dpi))
        write_atomically(folder / f"{plot.name}.csv", plot.csv().encode())


def _content(plot: Plot, kind: str, dpi: int) -> bytes:
    if kind == "svg" and dpi == DPI:
        return plot.svg_file.encode()
    return _tiff(plot.figure, dpi) if kind == "tiff" else _render(plot.figure, kind, dpi)


def _render(figure: Figure, kind: str, dpi: int = DPI) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context(REPORT_STYLE):
        figure.savefig(buffer, format=kind, dpi=dpi, facecolor="white", metadata=_STAMPS[kind])
    return buffer.getvalue()


def _tiff(figure: Figure, dpi: int) -> bytes:
    """As a journal takes it; matplotlib's own has an alpha channel."""
    buffer, before = io.BytesIO(), (figure.dpi, figure.get_facecolor())
    with matplotlib.rc_context(REPORT_STYLE):
        figure.set_dpi(dpi)
        figure.set_facecolor("white")
        canvas: Any = FigureCanvasAgg(figure)  # its methods have no types
        canvas.draw()
        pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        figure.set_dpi(before[0])
        figure.set_facecolor(before[1])
    pixels.save(buffer, "TIFF", compression="tiff_lzw", dpi=(dpi, dpi))
    return buffer.getvalue()
