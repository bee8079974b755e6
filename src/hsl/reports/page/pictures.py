"""Pictures of one prediction: input, truth, prediction, and an overlay with the confidence."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hsl.batch import IGNORE_INDEX
from hsl.channels import code_names
from hsl.files.io import write_atomically
from hsl.reports.plots.palette import code_palette, palette
from hsl.run_folder.pictures import Example, write_index

TEXT = 13  # pixels
SMALL = 384  # pixels: a shorter picture is enlarged
STRONGEST = 0.65  # opacity of a class at full confidence: the picture stays visible


class Predicted(Protocol):
    """One prediction: class indices and top probability, both ``(H, W)`` at the source's size."""

    @property
    def id(self) -> str: ...
    @property
    def miou(self) -> float: ...
    @property
    def prediction(self) -> NDArray[np.uint8]: ...
    @property
    def confidence(self) -> NDArray[np.float32]: ...


def write_examples(
    folder: Path,
    best: Sequence[Predicted],
    worst: Sequence[Predicted],
    original: Callable[[str], tuple[NDArray[np.uint8], NDArray[np.uint8] | None]],
    classes: Sequence[str],
    overlapping: bool = False,
) -> None:
    """Write four views of each picture and, last, ``index.csv``, which tells the report what they show.

    Args:
        folder: made when it is not there.
        best: best first.
        worst: worst first.
        original: id to RGB picture ``uint8 (H, W, 3)`` and true mask ``(H, W)``.
        classes: their names.
        overlapping: whether masks hold the codes of `hsl.channels`.
    """
    examples = []
    for kind, predicted in (("best", best), ("worst", worst)):
        for rank, one in enumerate(predicted, start=1):
            example = Example(kind, rank, one.id, one.miou, float(one.confidence.mean()))
            image, truth = original(one.id)
            write_views(folder, example.stem, image, truth, one.prediction, one.confidence, classes, overlapping)
            examples.append(example)
    write_index(folder, examples)


def write_views(
    folder: Path,
    stem: str,
    image: NDArray[np.uint8],
    truth: NDArray[np.uint8] | None,
    prediction: NDArray[np.uint8],
    confidence: NDArray[np.floating],
    classes: Sequence[str],
    overlapping: bool = False,
    max_side: int = 1024,
) -> None:
    """Write ``<stem>_{input,truth,prediction,overlay}.png``; without a truth its view is left out.

    Truth and prediction are class-index PNGs that carry the class colours, so a program can read them back.

    Args:
        folder: made when it is not there.
        stem: `Example.stem`, or any other.
        image: RGB ``uint8 (H, W, 3)``.
        truth: class indices ``(H, W)``.
        prediction: class indices ``(H, W)``.
        confidence: top probability ``(H, W)`` in [0, 1].
        classes: their names.
        overlapping: whether masks hold the codes of `hsl.channels`.
        max_side: larger pictures are shrunk to it, masks without mixing classes.
    """
    colours = colours_of(classes, overlapping)
    views = {"input": Image.fromarray(image), "prediction": mask_picture(prediction, colours)}
    if truth is not None:
        views["truth"] = mask_picture(truth, colours)
    for picture in views.values():
        if max(picture.size) > max_side:
            way = Image.Resampling.NEAREST if picture.mode == "P" else Image.Resampling.BOX
            picture.thumbnail((max_side, max_side), way)
    views["overlay"] = Image.fromarray(overlay(image, prediction, confidence, classes, truth, max_side, overlapping))
    for view, picture in views.items():
        buffer = io.BytesIO()
        picture.save(buffer, format="png", compress_level=4)  # the best level takes ten times as long
        write_atomically(folder / f"{stem}_{view}.png", buffer.getvalue())


def write_class_map(path: Path, classes: NDArray[np.uint8], colours: NDArray[np.uint8] | None = None) -> None:
    """Write class indices ``(H, W)`` as a PNG whose pixels are the indices and whose palette shows their colours."""
    buffer = io.BytesIO()
    mask_picture(classes, colours).save(buffer, format="png", compress_level=1)
    write_atomically(path, buffer.getvalue())


def mask_picture(mask: NDArray[np.uint8], colours: NDArray[np.uint8] | None = None) -> Image.Image:
    """Class indices ``(H, W)`` as a picture whose pixels stay indices; viewers show colours (default: `palette`)."""
    picture = Image.fromarray(mask.astype(np.uint8)).convert("L")
    picture.putpalette((palette() if colours is None else colours).tobytes())
    return picture


def colours_of(classes: Sequence[str], overlapping: bool) -> NDArray[np.uint8]:
    """Colours ``uint8 (256, 3)`` of the values of a mask: class indices, or the codes of overlapping channels."""
    return code_palette(len(classes) - 1) if overlapping else palette()


def overlay(
    image: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    confidence: NDArray[np.floating],
    classes: Sequence[str],
    truth: NDArray[np.uint8] | None = None,
    max_side: int = 1024,
    overlapping: bool = False,
) -> NDArray[np.uint8]:
    """The predicted classes over the picture, with a legend below.

    A predicted class is filled with its colour, the more opaque the surer the model: from clear at the
    confidence of a guess, 1/C (of overlapping channels 1/2), to ``STRONGEST`` at 1. Background stays clear. The truth
    is drawn as outlines in the class colours. A small picture is enlarged by a whole factor, so that the legend fits.
    """
    size = _display_size(prediction.shape, max_side)
    shown = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    sure = np.asarray(Image.fromarray(confidence.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    filled, colours = _resize(prediction, size), colours_of(classes, overlapping)
    alpha = (STRONGEST * (filled > 0) * _certainty(sure, 2 if overlapping else len(classes)))[..., None]
    canvas = _faded(shown) * (1 - alpha) + colours[filled] * alpha
    if truth is not None:
        outlined = _resize(truth, size)
        edge = _outline(outlined)
        canvas[edge] = colours[outlined[edge]]
    used = set(np.unique(prediction)) | (set(np.unique(truth)) if truth is not None else set())
    picture = Image.fromarray(canvas.round().clip(0, 255).astype(np.uint8))
    names = code_names(classes) if overlapping else classes
    entries = [(int(value), "ignored" if value == IGNORE_INDEX else names[value]) for value in sorted(used)]
    return np.asarray(_with_legend(picture, entries, colours, truth is not None))


def _display_size(shape: tuple[int, ...], max_side: int) -> tuple[int, int]:
    """Width and height."""
    height, width = shape
    longer = max(height, width)
    scale = min(1.0, max_side / longer) if longer >= SMALL else -(-SMALL // longer)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _certainty(confidence: NDArray[np.float32], num_classes: int) -> NDArray[np.float32]:
    guess = 1 / max(2, num_classes)
    return ((confidence - guess) / (1 - guess)).clip(0, 1)


def _faded(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Half of the colour taken out, so that the class colours are the only strong ones."""
    grey = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return 0.5 * image + 0.5 * grey[..., None]


def _outline(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels of a class that touch another class: 2 pixels thick, 1 where the picture is small."""
    edge = np.zeros(mask.shape, dtype=bool)
    for step in range(1, 3 if max(mask.shape) >= SMALL else 2):
        padded = np.pad(mask, step, mode="edge")
        for down, right in ((0, step), (2 * step, step), (step, 0), (step, 2 * step)):
            edge |= padded[down : down + mask.shape[0], right : right + mask.shape[1]] != mask
    edge &= (mask > 0) & (mask != IGNORE_INDEX)
    return edge


def _resize(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))


def _with_legend(
    picture: Image.Image, used: Sequence[tuple[int, str]], colours: NDArray[np.uint8], outlines: bool
) -> Image.Image:
    """The picture and below it the values that are ``used``, with their names."""
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", TEXT)
    entries = [*used, (-1, "fill: prediction, opacity: confidence")]
    if outlines:
        entries.append((-2, "outline: truth"))
    rows: list[list[tuple[int, int, str]]] = [[]]
    x = TEXT // 2
    for index, name in entries:
        needed = int(2.2 * TEXT + font.getlength(name))
        if rows[-1] and x + needed > picture.width:
            rows.append([])
            x = TEXT // 2
        rows[-1].append((x, index, name))
        x += needed + TEXT // 2
    canvas = Image.new("RGB", (picture.width, picture.height + int(TEXT * (1.6 * len(rows) + 0.8))), "white")
    canvas.paste(picture)
    draw = ImageDraw.Draw(canvas)
    for number, row in enumerate(rows):
        top = picture.height + int(TEXT * (0.6 + 1.6 * number))
        for left, index, name in row:
            _swatch(canvas, draw, (left, top), index, colours)
            draw.text((left + int(1.6 * TEXT), top - 2), name, fill="#222222", font=font)
    return canvas


def _swatch(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, place: tuple[int, int], index: int, colours: NDArray[np.uint8]
) -> None:
    left, top = place
    box = (left, top, left + TEXT, top + TEXT)
    if index == -1:  # clear to opaque
        ramp = np.linspace(255, 255 * (1 - STRONGEST), TEXT).astype(np.uint8)
        canvas.paste(Image.fromarray(np.tile(ramp, (TEXT, 1))), (left, top))
    elif index == -2:
        draw.rectangle(box, outline="#222222", width=2)
    else:
        draw.rectangle(box, fill=tuple(colours[index].tolist()), outline="#999999")
