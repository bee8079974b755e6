"""The first page of a TIFF as the numbers that are stored in it, upright.

Pillow and tifffile are imported where a file asks for them: an exported model reads other files without.
"""

from __future__ import annotations

import logging
import lzma
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from cv2.utils import logging as opencv_logging
from numpy.typing import NDArray

from hsl.errors import DataError, UserError, needs

if TYPE_CHECKING:
    import tifffile
    from PIL import Image

# Both report a broken file on stderr, across the progress bar; every refusal is raised below instead.
opencv_logging.setLogLevel(opencv_logging.LOG_LEVEL_SILENT)
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE = 0, 1, 2, 3
"""What the numbers of a page mean (photometric interpretation)."""
LOSSLESS = {1: "none", 2: "CCITT", 3: "CCITT", 4: "CCITT", 5: "LZW", 8: "deflate", 32773: "PackBits",
            32946: "deflate", 34925: "LZMA", 50000: "ZSTD"}  # fmt: skip
"""Compressions that keep every value, by their number in the file."""

_BY_TIFFFILE = (1, 8, 32946, 32773, 34925)  # what it decodes by itself
_BY_PILLOW = (50000,)  # what OpenCV is built without
_WHOLE_BYTES = (8, 16, 32, 64)
_FLOATING_PREDICTOR = 3
_ORIENTATION = 274
_SUBFILE_TYPE, _REDUCED_OR_MASK = 254, 1 | 4
_MOST_OVERVIEWS = 64


@contextmanager
def explained(name: str, how: str = " as TIFF", way_out: str = "Export it anew as PNG.") -> Iterator[None]:
    """Turn what the parser of a damaged file meets into one sentence.

    Raises:
        DataError: The file is damaged, or coded in a way that cannot be read.
    """
    try:
        yield
    # ImportError: a codec that is missing; the others: whatever a damaged file makes the parser meet first
    except (
        struct.error, zlib.error, lzma.LZMAError, LookupError, OSError, SyntaxError, TypeError, ValueError,
        ArithmeticError, ImportError, RuntimeError,
    ) as error:  # fmt: skip
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"`{name}` cannot be read{how}: {reason}. {way_out}") from error


@contextmanager
def first_page(data: bytes | Path, name: str) -> Iterator[tuple[tifffile.TiffFile, Any]]:
    """The file, or that at a place, and its first page, parsed but not decoded.

    Raises:
        DataError: The file is damaged.
    """
    needs("Reading a TIFF", ["tifffile"])
    import tifffile

    with explained(name), tifffile.TiffFile(BytesIO(data) if isinstance(data, bytes) else data) as file:
        yield file, file.pages.first


def num_pages(file: tifffile.TiffFile) -> int:
    """1, or 2 for several; smaller versions of the first page and transparency masks are not counted."""
    if file.is_imagej and int((file.imagej_metadata or {}).get("images", 1)) > 1:
        return 2
    for number in range(1, min(len(file.pages), _MOST_OVERVIEWS)):
        page: Any = file.pages[number]
        if not int(page.tags.valueof(_SUBFILE_TYPE, 0)) & _REDUCED_OR_MASK:
            return 2
    return 1


def stored_numbers(data: bytes, page: Any, name: str) -> NDArray[Any]:
    """The numbers of a page, upright: ``(H, W)``, or ``(H, W, channels)`` with RGB before alpha.

    Numbers of 10, 12 or 14 bits that are packed come as they are, in 16 bits; those of a palette are its indices; where
    white is 0 it stays so.

    Raises:
        DataError: The page is damaged or coded in a way that cannot be read.
    """
    whole = page.bitspersample in _WHOLE_BYTES or (page.bitspersample == 1 and page.samplesperpixel == 1)
    if page.compression in _BY_TIFFFILE and page.predictor != _FLOATING_PREDICTOR and whole:
        return _by_tifffile(page, name)
    if page.compression in _BY_PILLOW or page.bitspersample < 8 or page.photometric == PALETTE:
        return _by_pillow(data, page, name)
    return _by_opencv(data, page, name)


def turned_upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """An array ``(H, W, ...)`` stored in an orientation as EXIF counts them, as it is meant to be seen."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array[::-1] if orientation in (3, 4, 7, 8) else array


def decode_with_opencv(data: bytes, flags: int) -> NDArray[Any] | None:
    """What OpenCV makes of a file; ``None`` if it cannot read it."""
    if not data:
        return None
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def open_with_pillow(data: bytes, kind: str) -> Image.Image:
    """Pillow's picture of a file of a known kind. Not `Image.open`: its limit on pixels would refuse large scans.

    Raises:
        ValueError: It is larger than Pillow allows.
    """
    needs(f"Reading this {kind}", ["PIL"])
    from PIL import Image

    if kind not in Image.OPEN:
        Image.init()
    with quiet_pillow():
        return Image.OPEN[kind][0](BytesIO(data), "")


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Without what Pillow says of entries that it skips; what it cannot read is raised.

    Raises:
        ValueError: A picture is larger than Pillow allows.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error


def _by_tifffile(page: Any, name: str) -> NDArray[Any]:
    if len(page.dataoffsets) != (wanted := int(np.prod(page.chunked))):  # what is missing would be filled with 0
        raise DataError(
            f"`{name}` should have its {page.imagewidth} x {page.imagelength} pixels in {wanted} pieces. Found "
            f"{len(page.dataoffsets)}. Restore the file or remove it."
        )
    array, axes = page.asarray(maxworkers=1), page.axes
    if "S" in axes:
        array = np.moveaxis(array, axes.index("S"), -1)
    if array.ndim not in (2, 3) or sorted(axes) not in (["X", "Y"], ["S", "X", "Y"]):
        raise DataError(f"`{name}` should be one picture of height and width. Found shape {array.shape} ({axes}).")
    return turned_upright(array, int(page.tags.valueof(_ORIENTATION, 1)))


def _by_pillow(data: bytes, page: Any, name: str) -> NDArray[Any]:
    """Pillow turns a TIFF upright, and stretches grey of 2 and 4 bits to 0..255."""
    picture = open_with_pillow(data, "TIFF")
    if picture.mode not in ("1", "L", "P", "I", "F", "I;16", "I;16B", "RGB", "RGBA", "LA"):
        raise DataError(f"`{name}` should be grey or RGB. Found {picture.mode}. Export it anew as PNG.")
    with quiet_pillow():
        array = np.asarray(picture)
    if page.bitspersample in (2, 4) and picture.mode == "L":
        array = array // (255 // (2**page.bitspersample - 1))
    if page.dtype is not None and array.ndim == 2 and array.dtype.kind in "iu":  # unsigned arrives as signed
        array = array.view(page.dtype) if array.dtype.itemsize == page.dtype.itemsize else array
    return array


def _by_opencv(data: bytes, page: Any, name: str) -> NDArray[Any]:
    """OpenCV turns a TIFF upright, and moves numbers of 10, 12 and 14 bits to the upper end of 16."""
    array = decode_with_opencv(data, cv2.IMREAD_UNCHANGED)
    if array is None:
        raise DataError(
            f"`{name}` cannot be read: {page.bitspersample} bits in the compression "
            f"{getattr(page.compression, 'name', page.compression)}. Store it uncompressed, with deflate, or as PNG."
        )
    if array.dtype == np.uint16 and page.bitspersample in (10, 12, 14):
        array = array >> (16 - page.bitspersample)
    if array.ndim == 3 and array.shape[2] >= 3:
        array = array[..., [2, 1, 0, 3][: array.shape[2]]]
    return array
