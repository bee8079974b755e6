"""What pseudo-labels look like: images of each tier, classes per tier, and what rounds of refinement change."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hsl.batch import IGNORE_INDEX
from hsl.files.io import write_atomically
from hsl.reports.page.pictures import overlay
from hsl.reports.plots.palette import palette
from hsl.reports.plots.run_plots import BLUE, GREEN, GREY, ORANGE, STYLE, save_figure

COLUMNS, SIDE, GAP, LINE = 3, 320, 12, 20
TIER_COLOURS = {"A": GREEN, "B": ORANGE, "C": GREY}
LINES = {
    "miou": ("mean IoU with the round before", BLUE, "o-"),
    "agreement": ("mean IoU with the first labels", ORANGE, "s--"),
    "quality": ("mean quality", GREEN, "^:"),
}


class Labelled(NamedTuple):
    """A picture with its label: RGB ``uint8 (H, W, 3)``, mask and confidence ``(H, W)``, and what to write above."""

    caption: str
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    confidence: NDArray[np.floating]


def label_sheet(path: Path, title: str, shown: Sequence[Labelled], classes: Sequence[str]) -> None:
    """Draw pictures beside their labels, three to a row.

    Args:
        path: the PNG.
        title: above all.
        shown: at least one.
        classes: names of the dense classes; background stays clear, uncertain pixels are light grey.
    """
    tiles = [_tile(one, classes) for one in shown]
    rows = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    width = COLUMNS * (2 * SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, 2 * (GAP + LINE) + sum(max(t.height for t in row) + GAP for row in rows)), "white")
    draw, font = ImageDraw.Draw(sheet), _font(15)
    draw.text((GAP, GAP), title, fill="#1b1f24", font=font)
    _legend(draw, (GAP, GAP + LINE + GAP // 2), classes)
    top = 2 * (GAP + LINE)
    for row in rows:
        for column, tile in enumerate(row):
            sheet.paste(tile, (GAP + column * (2 * SIDE + GAP), top))
        top += max(tile.height for tile in row) + GAP
    buffer = io.BytesIO()
    sheet.save(buffer, format="png", compress_level=4)
    write_atomically(path, buffer.getvalue())


def tier_plot(path: Path, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Stacked bars: pictures of each class in the tiers A, B and C.

    Args:
        path: the file; its suffix chooses the format.
        counts: by image class, by tier; a tier without pictures may be left out.
    """
    names, rows = list(counts), np.arange(len(counts))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 1.3 + 0.3 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        left = np.zeros(len(names))
        widest = max(sum(tiers.values()) for tiers in counts.values())
        for tier, colour in TIER_COLOURS.items():
            numbers = np.array([counts[name].get(tier, 0) for name in names])
            bars = axes.barh(rows, numbers, 0.7, left=left, color=colour, label=f"tier {tier}: {numbers.sum()}")
            texts = [
                str(number) if number > widest / 30 else "" for number in numbers
            ]  # in narrower bars it cannot stand
            axes.bar_label(bars, texts, label_type="center", color="white", fontsize=8)
            left += numbers
        axes.set_yticks(rows, names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("training pictures")
        axes.xaxis.grid(True)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside lower center", ncols=len(TIER_COLOURS))
        save_figure(figure, path)


def _tile(one: Labelled, classes: Sequence[str]) -> Image.Image:
    """Caption, picture, overlay; the legend below each overlay is cut off, the sheet has one for all."""
    sure = np.where(one.mask == IGNORE_INDEX, 1.0, one.confidence)  # so that what is uncertain can be seen
    drawn = overlay(one.image, one.mask, sure, classes, max_side=2 * SIDE)
    height, width = one.mask.shape
    drawn = drawn[: max(1, round(drawn.shape[1] * height / width))]
    size = (SIDE, max(1, min(2 * SIDE, round(SIDE * height / width))))
    tile = Image.new("RGB", (2 * SIDE, LINE + size[1]), "white")
    ImageDraw.Draw(tile).text((0, 1), one.caption, fill="#57606a", font=_font(13))
    for place, picture in enumerate((one.image, drawn)):
        tile.paste(Image.fromarray(picture).resize(size, Image.Resampling.BOX), (place * SIDE, LINE))
    return tile


def _legend(draw: ImageDraw.ImageDraw, place: tuple[int, int], classes: Sequence[str]) -> None:
    left, top = place
    entries = [*enumerate(classes[1:], start=1), (IGNORE_INDEX, "uncertain")]
    for index, name in entries:
        box = (left, top + 2, left + 13, top + 15)
        draw.rectangle(box, fill=tuple(palette()[index].tolist()), outline="#999999")
        draw.text((left + 20, top), name, fill="#1b1f24", font=_font(13))
        left += int(20 + _font(13).getlength(name) + 2 * GAP)


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def drift_plot(path: Path, rounds: pd.DataFrame, converged_below: float = 0.15, title: str = "") -> None:
    """Draw the share of changed pixels, and beside it how alike the labels are and what quality they have.

    Args:
        path: the file; its suffix chooses the format.
        rounds: a row for each round, the first for the labels before any refinement: ``round``, ``drift`` (changed
            pixels / pixels), ``miou``, ``agreement``, ``quality``; the first row has a quality only, the rest is NaN.
        converged_below: share of the pixels, drawn as a line.
        title: above the plot.
    """
    numbers = rounds["round"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        _drift(left, rounds[numbers > numbers.min()], converged_below)
        for name, (text, colour, style) in LINES.items():
            right.plot(numbers, rounds[name], style, color=colour, label=text, markersize=5)
        right.set(ylim=(0, 1.03))
        right.yaxis.grid(True)
        for axes in (left, right):
            axes.set(xlabel="round of refinement", xlim=(numbers.min() - 0.3, numbers.max() + 0.3))
            axes.set_xticks(numbers)
        figure.legend(loc="outside lower center", ncols=1 + len(LINES), columnspacing=1.0, handlelength=1.8)
        figure.suptitle(title, fontsize=10)
        save_figure(figure, path)


def _drift(axes: Axes, rounds: pd.DataFrame, converged_below: float) -> None:
    number, percent, bound = rounds["round"], 100 * rounds["drift"], 100 * converged_below
    label = f"converged below {bound:g} %"
    axes.axhline(bound, color=GREY, linestyle=(0, (4, 3)), linewidth=1, label=label)
    axes.plot(number, percent, "o-", color=BLUE, markersize=5)
    for place, value in zip(number, percent, strict=True):
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # the dashed line may run through it
        axes.annotate(f"{value:.1f}", (place, value), (6, 4), textcoords="offset points", bbox=box)
    axes.set(ylim=(0, 1.2 * max(bound, percent.max())), ylabel="changed pixels (%)")
