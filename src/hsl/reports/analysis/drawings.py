"""What an analysis draws: heat maps over images, sheets of them, and curves of attention and activations over runs."""

import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from hsl.files.io import write_atomically
from hsl.reports.analysis.numbers import ClassAttention, StageActivations
from hsl.reports.plots.run_plots import STYLE, save_figure
from hsl.reports.plots.score_plots import name_rows, series_style, short

SIDE, GAP, LINE, LEFT = 168, 10, 17, 150  # pixels; LEFT: room for the name of a row
INK, SOFT = "#1b1f24", "#57606a"
STRONGEST = 0.75  # opacity of the heat where it is 1: the picture stays visible
COLOURS = "inferno"
Picture = NDArray[np.uint8]


class Tile(NamedTuple):
    """A picture RGB ``uint8 (H, W, 3)``, or none, with the lines below it."""

    image: Picture | None
    lines: Sequence[str] = ()


def thumbnail(image: Picture) -> Picture:
    """A picture as large as a tile: its longer side has ``SIDE`` pixels."""
    return np.asarray(ImageOps.contain(Image.fromarray(image), (SIDE, SIDE)))


def heat_map(cam: NDArray[np.floating]) -> Picture:
    """A heat map ``(H, W)`` in [0, 1] in colours, from dark to bright, as large as a tile."""
    table = np.asarray(matplotlib.colormaps[COLOURS](np.arange(256), bytes=True))[:, :3]
    return thumbnail(table[(255 * cam).round().clip(0, 255).astype(np.uint8)])


def heat_overlay(image: Picture, cam: NDArray[np.floating]) -> Picture:
    """A heat map over a picture: clear at 0, ``STRONGEST`` at 1.

    Args:
        image: RGB ``uint8 (H, W, 3)``; its colours are taken back by half, so that the heat's stand out.
        cam: ``(h, w)`` in [0, 1]; brought to the size of the picture bilinearly.
    """
    height, width = image.shape[:2]
    heat = cv2.resize(cam.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    colours = np.asarray(matplotlib.colormaps[COLOURS](heat))[..., :3] * 255
    grey = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    faded = 0.5 * image + 0.5 * grey[..., None]
    alpha = (STRONGEST * heat)[..., None]
    return np.asarray(faded * (1 - alpha) + colours * alpha).round().clip(0, 255).astype(np.uint8)


def tile_sheet(
    path: Path,
    title: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Tile]]],
    *,
    heat_scale: bool = True,
) -> None:
    """Draw rows of tiles as a PNG.

    Args:
        path: the file.
        title: above all.
        columns: names over the columns; as many as the longest row has tiles.
        rows: name of the row and its tiles; where every name is empty they take no room.
        heat_scale: whether the sheet explains the colours of `heat_map`.
    """
    left = GAP + (LEFT if any(name for name, _ in rows) else 0)
    heights = [_height(tiles) for _, tiles in rows]
    top = GAP + 2 * LINE + GAP + (LINE if any(columns) else 0)
    width = max(left + len(columns) * (SIDE + GAP), 4 * SIDE)
    sheet = Image.new("RGB", (width, top + sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    _write(draw, (GAP, GAP), title, width - 2 * GAP, INK)
    if heat_scale:
        _draw_scale(sheet, draw, (GAP, GAP + LINE + 4))
    for place, name in enumerate(columns):
        _write(draw, (left + place * (SIDE + GAP), top - LINE), name, SIDE, INK)
    for (name, tiles), height in zip(rows, heights, strict=True):
        _write(draw, (GAP, top + 2), name, LEFT - GAP, INK)
        for place, tile in enumerate(tiles):
            _paste(sheet, draw, (left + place * (SIDE + GAP), top), tile)
        top += height
    buffer = io.BytesIO()
    sheet.save(buffer, format="png", compress_level=4)
    write_atomically(path, buffer.getvalue())


def _height(tiles: Sequence[Tile]) -> int:
    """Of a row: its highest picture with the lines below."""
    return GAP + max((_size(tile)[1] + LINE * len(tile.lines) for tile in tiles), default=LINE)


def _size(tile: Tile) -> tuple[int, int]:
    if tile.image is None:
        return SIDE, LINE
    height, width = tile.image.shape[:2]
    scale = SIDE / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _paste(sheet: Image.Image, draw: ImageDraw.ImageDraw, place: tuple[int, int], tile: Tile) -> None:
    left, top = place
    size = _size(tile)
    if tile.image is None:
        _write(draw, place, "none", SIDE, SOFT)
    else:
        sheet.paste(Image.fromarray(tile.image).resize(size, Image.Resampling.BICUBIC), place)
    for number, line in enumerate(tile.lines):
        _write(draw, (left, top + size[1] + 1 + number * LINE), line, SIDE, SOFT)


def _draw_scale(sheet: Image.Image, draw: ImageDraw.ImageDraw, place: tuple[int, int]) -> None:
    left, top = place
    ramp = np.tile(np.arange(100, dtype=np.float32) / 99, (10, 1))
    colours = (np.asarray(matplotlib.colormaps[COLOURS](ramp))[..., :3] * 255).round().astype(np.uint8)
    draw.text((left, top - 2), "activation 0", fill=SOFT, font=_font())
    start = left + int(_font().getlength("activation 0")) + 6
    sheet.paste(Image.fromarray(colours), (start, top + 1))
    draw.text((start + 106, top - 2), "1", fill=SOFT, font=_font())


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int, colour: str) -> None:
    """One line; a long one loses its middle, because names differ at their ends."""
    shown = text
    for length in range(len(text) - 1, 2, -1):
        if _font().getlength(shown) <= width:
            break
        shown = f"{text[: length // 3]}…{text[len(text) - length + length // 3 :]}"
    draw.text(place, shown, fill=colour, font=_font())


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 12)


def attention_plot(path: Path, found: Mapping[str, Mapping[str, ClassAttention]]) -> None:
    """Bars by class, one for each run; a black line marks what an even heat map would have.

    Args:
        path: the file; its suffix chooses the format.
        found: by run, by class; the classes of all runs are the same.
    """
    classes, thick = list(next(iter(found.values()))), 0.8 / len(found)
    with matplotlib.rc_context(STYLE):
        height = 1.3 + len(classes) * max(0.34, 0.16 * len(found))
        figure = Figure(figsize=(6.4, height), layout="constrained")
        axes = figure.add_subplot()
        for place, (run, by_class) in enumerate(found.items()):
            known = [row for row, name in enumerate(classes) if by_class[name].share is not None]
            y = np.array(known) + thick * (place + 0.5) - 0.4
            shares = np.array([by_class[classes[row]].share for row in known], dtype=float)
            areas = np.array([by_class[classes[row]].area for row in known], dtype=float)
            axes.barh(y, shares, 0.9 * thick, color=series_style(place)["color"], label=short(run))
            label = "the same everywhere (chance)" if place == 0 else "_"  # once in the legend
            axes.vlines(areas, y - thick / 2, y + thick / 2, color="black", linewidth=1.6, label=label)
        name_rows(axes, classes)
        axes.set(xlim=(0, 1), xlabel="share of the attention that lies inside the foreground")
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.xaxis.grid(True)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
        save_figure(figure, path)


def stage_plot(path: Path, found: Mapping[str, Mapping[int, StageActivations]]) -> None:
    """Mean, standard deviation and dead channels over the stages, one line for each run.

    Args:
        path: the file; its suffix chooses the format.
        found: by run, by stride.
    """
    strides = sorted({stride for stages in found.values() for stride in stages})
    titles = ("mean", "standard deviation", "share of dead channels")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 3.2), layout="constrained")
        panels = figure.subplots(1, len(titles))
        for place, (run, stages) in enumerate(found.items()):
            x = [strides.index(stride) for stride in stages]
            for axes, values in zip(panels, _curves(stages), strict=True):
                axes.plot(x, values, markersize=4, label=short(run), **series_style(place))
        for axes, title in zip(panels, titles, strict=True):
            axes.set(title=title, xlabel="stride of the stage")
            axes.set_xticks(range(len(strides)), [str(stride) for stride in strides])
            axes.grid(True)
        for axes in panels[:2]:
            axes.set_yscale("symlog", linthresh=0.1)  # encoders differ by orders of magnitude
        panels[2].set_ylim(-0.02, 1.02)
        panels[2].yaxis.set_major_formatter(PercentFormatter(1))
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
        save_figure(figure, path)


def _curves(stages: Mapping[int, StageActivations]) -> Sequence[list[float]]:
    found = stages.values()
    return [one.mean for one in found], [one.std for one in found], [one.dead_share for one in found]
