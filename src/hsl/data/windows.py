"""Parts of pictures that are larger than memory."""

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from hsl.config import DataError
from hsl.data.records import FileSource, Source

TIFF = (".tif", ".tiff")
LARGE = 2**28
"""Pixels times three from which a TIFF is read by windows; smaller pictures are decoded once, as a whole."""

_MEANINGS = (1, 2, 6)  # grey with black at 0, RGB, YCbCr (which arrives as RGB); not palettes or inverted grey
_UPRIGHT = 1
_ORIENTATION = 274

Read = Callable[[int, int, int, int], NDArray[np.uint8]]
"""``read(y, x, height, width)``: that part of a picture or mask; smaller where it reaches over the end."""


def read_window(path: Path, y: int, x: int, height: int, width: int) -> NDArray[Any]:
    """A part of a picture as it is stored; the rest of the file stays on the disk.

    Args:
        path: A TIFF (tiles and strips that the window touches are decoded, an uncompressed one is mapped; of several
            pages the first) or ``.npy`` of shape ``(H, W)`` or ``(H, W, channels)``.
        y: First row.
        x: First column.
        height: Rows; fewer come where the picture ends.
        width: Columns; likewise.

    Returns:
        ``(height, width)`` or ``(height, width, channels)`` of the stored type.

    Raises:
        DataError: The file cannot be read, or not by windows.
    """
    window = {"Y": slice(y, y + height), "X": slice(x, x + width), "S": slice(None)}
    with _explained(path):
        if path.suffix.lower() == ".npy":
            return np.array(np.load(path, mmap_mode="r")[window["Y"], window["X"]])
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            _check(path, page)
            place = tuple(window[axis] for axis in page.axes)
            if page.is_memmappable:
                part = np.array(tifffile.memmap(path, page=0, mode="r")[place])
            else:
                with page.aszarr() as store:
                    part = np.asarray(zarr.open_array(store, mode="r")[place])
            return np.moveaxis(part, page.axes.index("S"), -1) if "S" in page.axes else part


def open_windows(source: Source, decode: Callable[[bytes, str], NDArray[np.uint8]]) -> tuple[tuple[int, int], Read]:
    """Height and width of a picture or mask, and a function that reads its parts.

    Both ways give the same pixels: a window goes through ``decode`` as a small TIFF of its own.

    Args:
        source: Where it lies. A TIFF file of `LARGE` or more is read by windows.
        decode: ``decode(bytes, name)``, such as ``decode_image``.

    Raises:
        DataError: It cannot be read.
    """
    if isinstance(source, FileSource) and source.path.suffix.lower() in TIFF:
        path = source.path
        with _explained(path), tifffile.TiffFile(path) as file:
            height, width = file.pages.first.imagelength, file.pages.first.imagewidth
        if 3 * height * width >= LARGE:
            return (height, width), lambda *window: decode(_as_tiff(read_window(path, *window)), str(path))
    whole = decode(source.read(), source.name)
    shape = (whole.shape[0], whole.shape[1])
    return shape, lambda y, x, height, width: whole[y : y + height, x : x + width]


def _as_tiff(window: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    colours = window.ndim == 3 and window.shape[2] >= 3
    if window.ndim == 3:  # an alpha channel is dropped, as it would be
        window = window[..., :3] if colours else window[..., 0]
    tifffile.imwrite(buffer, window, photometric="rgb" if colours else "minisblack")
    return buffer.getvalue()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    # a damaged file shows as whichever of these the parser meets first; ValueError: also a codec that is missing
    except (tifffile.TiffFileError, struct.error, LookupError, OSError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"`{path}` cannot be read by windows: {error}. Store it as TIFF in tiles, uncompressed or with deflate."
        ) from error


def _check(path: Path, page: Any) -> None:
    upright = page.tags.valueof(_ORIENTATION, _UPRIGHT) == _UPRIGHT
    if page.axes not in ("YX", "YXS", "SYX") or page.photometric not in _MEANINGS or not upright:
        raise DataError(
            f"`{path}` should be upright grey or RGB to be read by windows. Found axes {page.axes}, photometric "
            f"{page.photometric!r}, orientation {page.tags.valueof(_ORIENTATION, _UPRIGHT)}. Export it anew."
        )
