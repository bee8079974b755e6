"""What pseudo-labels look like: a sheet of pictures per tier, and how many pictures of each class are in which tier."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hsl.batch import IGNORE_INDEX
from hsl.files.io import write_atomically
from hsl.reports.page.pictures import overlay
from hsl.reports.plots.palette import palette
from hsl.reports.plots.run_plots import GREEN, GREY, ORANGE, STYLE, save_figure

COLUMNS, SIDE, GAP, LINE = 3, 320, 12, 20
TIER_COLOURS = {"A": GREEN, "B": ORANGE, "C": GREY}


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
