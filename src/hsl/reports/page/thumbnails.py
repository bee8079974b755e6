"""Small pictures inside the page: inputs, masks, boundary errors and boxes, as data URIs."""

import base64
import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hsl.batch import IGNORE_INDEX
from hsl.data.files.decode_masks import decode_mask
from hsl.errors import DataError
from hsl.files.io import read_bytes
from hsl.metrics.pixels.contours import contour_errors, dilated
from hsl.reports.page.pictures import mask_picture

SIDE = 320  # pixels of the longer side
HIT, MISSED, SPURIOUS = "#56b4e9", "#d55e00", "#f0e442"  # Okabe and Ito 2008
BOX, HALO = "#ff4fd8", "#ffffff"  # no class has this pink
Box = tuple[int, int, int, int]  # top, left, bottom, right; the last two exclusive
Picture = NDArray[np.uint8]


_BROKEN = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)  # what Pillow raises


def read_photo(path: Path) -> Picture | None:
    """RGB ``uint8 (H, W, 3)``; none where the file is absent or broken: the page shows a gap there."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except _BROKEN:
        return None


def read_classes(path: Path) -> Picture | None:
    """Class indices ``uint8 (H, W)``; none where the file is absent, broken or holds no indices."""
    try:
        return decode_mask(read_bytes(path), str(path))
    except DataError:
        return None


def photo(picture: Picture) -> str:
    """A photograph as a small JPEG."""
    return _jpeg(_shrink(picture))


def class_map(classes: Picture, colours: Picture | None = None) -> str:
    """Class indices in the class colours, or these, as a small PNG."""
    return _png(mask_picture(classes, colours).resize(_size(classes.shape), Image.Resampling.NEAREST))


def resized(classes: Picture, shape: tuple[int, ...]) -> Picture:
    """Class indices at another size ``(H, W)``, without mixing classes."""
    height, width = shape[:2]
    return np.asarray(Image.fromarray(classes).resize((width, height), Image.Resampling.NEAREST))


def boundary_errors(prediction: Picture, truth: Picture, num_classes: int, picture: Picture | None) -> str:
    """`contour_errors` drawn over the faded picture: lines stay visible at any size.

    Args:
        prediction: class indices ``(H, W)``.
        truth: the same, with ``IGNORE_INDEX``.
        num_classes: C.
        picture: RGB ``(H, W, 3)`` of any size; none for a plain ground.
    """
    errors = contour_errors(prediction, truth, num_classes)
    width, height = _size(truth.shape)
    radius = max(1, round(max(truth.shape) / max(width, height) / 2)) if max(truth.shape) > SIDE else 0
    canvas = (
        np.full((height, width, 3), 40, dtype=np.uint8) if picture is None else _faded(_shrink(picture, truth.shape))
    )
    for value, colour in ((1, HIT), (2, SPURIOUS), (3, MISSED)):
        mask = dilated(errors == value, radius).astype(np.uint8)
        canvas[resized(mask, (height, width)) > 0] = list(bytes.fromhex(colour[1:]))
    return _jpeg(canvas)


def boxed(picture: Picture, shape: tuple[int, ...], solid: Sequence[Box], dashed: Sequence[Box] = ()) -> str:
    """A small picture with boxes.

    Args:
        picture: RGB ``(h, w, 3)`` or class indices ``(h, w)``, of any size.
        shape: height and width that the boxes refer to.
        solid: boxes with a continuous line.
        dashed: boxes with a broken line.
    """
    is_photo = picture.ndim == 3
    small = _shrink(picture) if is_photo else _colours(picture)
    image = Image.fromarray(small)
    draw = ImageDraw.Draw(image)
    scale = image.height / shape[0], image.width / shape[1]
    for box in solid:
        for grow, width, colour in ((2, 7, HALO), (0, 3, BOX)):
            draw.rectangle(_corners(box, scale, grow), outline=colour, width=width)
    for box in dashed:
        _dashed(draw, _corners(box, scale, 0))
    return _jpeg(np.asarray(image)) if is_photo else _png(image)


def _corners(box: Box, scale: tuple[float, float], grow: int) -> tuple[int, int, int, int]:
    top, left, bottom, right = box
    down, across = scale
    x, y = round(left * across) - 2 - grow, round(top * down) - 2 - grow
    return x, y, max(x + 4, round(right * across) + 1 + grow), max(y + 4, round(bottom * down) + 1 + grow)


def _dashed(draw: ImageDraw.ImageDraw, corners: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = corners
    for colour, width in ((HALO, 5), (BOX, 3)):
        for x in range(x0, x1, 12):
            for y in (y0, y1):
                draw.line((x, y, min(x + 7, x1), y), fill=colour, width=width)
        for y in range(y0, y1, 12):
            for x in (x0, x1):
                draw.line((x, y, x, min(y + 7, y1)), fill=colour, width=width)


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Width and height of the thumbnail."""
    height, width = shape[:2]
    scale = SIDE / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _shrink(picture: Picture, shape: tuple[int, ...] | None = None) -> Picture:
    size = _size(picture.shape if shape is None else shape)
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def _colours(classes: Picture) -> Picture:
    size = _size(classes.shape)
    return np.array(mask_picture(classes).resize(size, Image.Resampling.NEAREST).convert("RGB"))


def _faded(picture: Picture) -> Picture:
    grey = picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    dim: Picture = np.repeat((20 + 0.5 * grey)[..., None], 3, axis=2).astype(np.uint8)
    return dim


def _jpeg(picture: Picture) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="jpeg", quality=76, subsampling=0)
    return _data_uri(buffer.getvalue(), "jpeg")


def _png(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True)
    return _data_uri(buffer.getvalue(), "png")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def classes_in(mask: Picture, num_classes: int) -> list[int]:
    """The classes that a mask holds, ignored pixels left out."""
    present = np.unique(mask)
    return [int(index) for index in present if index != IGNORE_INDEX and index < num_classes]
