"""Parts of pictures that are larger than memory."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from hsl.data.bands.geo_tags import NODATA_TAG, missing, nodata_tag, read_nodata
from hsl.data.files.headers import MAX_MEGAPIXELS
from hsl.data.files.records import FileSource, Source
from hsl.data.files.tiff_pages import LOSSLESS, explained, num_pages
from hsl.errors import DataError
from hsl.files.io import check_regular

TIFF = (".tif", ".tiff")
LARGE = 2**28
"""Pixels times three from which a TIFF is read by windows; smaller pictures are decoded once, as a whole."""

_ROWS = 256  # read at a time where all of them are
_WAY_OUT = "Store it as TIFF in tiles, uncompressed or with deflate."
_MEANINGS = (1, 2, 6)  # grey with black at 0, RGB, YCbCr (which arrives as RGB); not palettes or inverted grey
_UPRIGHT = 1
_ORIENTATION = 274

Read = Callable[[int, int, int, int], NDArray[np.uint8]]
"""``read(y, x, height, width)``: that part of a picture or mask; smaller where it reaches over the end."""
MissingIn = Callable[[int, int, int, int], NDArray[np.bool_]]
"""The same: which of its pixels have no measurement."""


def read_window(path: Path, y: int, x: int, height: int, width: int, pages: int = 1) -> NDArray[Any]:
    """A part of a picture as it is stored; the rest of the file stays on the disk.

    Args:
        path: A TIFF: tiles and strips that the window touches are decoded, an uncompressed one is mapped.
        y: First row.
        x: First column.
        height: Rows; fewer come where the picture ends.
        width: Columns; likewise.
        pages: How many are read, as channels; else the first is the picture.

    Returns:
        ``(height, width)`` or ``(height, width, channels)`` of the stored type.

    Raises:
        DataError: The file cannot be read, or not by windows.
    """
    window = {"Y": slice(y, y + height), "X": slice(x, x + width), "S": slice(None)}
    with _opened(path) as (file, _):
        parts = [_part(path, file.pages[number], number, window) for number in range(pages)]
    return parts[0] if pages == 1 else np.stack(parts, axis=-1)


def _part(path: Path, page: Any, number: int, window: dict[str, slice]) -> NDArray[Any]:
    _check(path, page)
    place = tuple(window[axis] for axis in page.axes)
    if page.is_memmappable:
        part = np.array(tifffile.memmap(path, page=number, mode="r")[place])
    else:
        with page.aszarr() as store:
            part = np.asarray(zarr.open_array(store, mode="r")[place])
    return np.moveaxis(part, page.axes.index("S"), -1) if "S" in page.axes else part


def size_of_large(source: Source) -> tuple[int, int] | None:
    """Height and width of a picture or mask that is read by windows, a TIFF file of `LARGE` or more; else ``None``.

    Raises:
        DataError: It is a TIFF that cannot be read.
    """
    if not isinstance(source, FileSource) or source.path.suffix.lower() not in TIFF:
        return None
    with _opened(source.path) as (_, page):
        height, width = page.imagelength, page.imagewidth
    return (height, width) if 3 * height * width >= LARGE else None


def largest_number(path: Path) -> int:
    """The largest number of a TIFF of 16 bits, strip by strip; 0 of any other. Any in the upper half ends the search.

    Raises:
        DataError: It cannot be read, or not by windows.
    """
    with _opened(path) as (_, page):
        height, width, dtype = page.imagelength, page.imagewidth, page.dtype
    found = 0
    for top in range(0, height if dtype == np.uint16 else 0, _ROWS):
        found = max(found, int(read_window(path, top, 0, _ROWS, width).max()))
        if found > np.iinfo(np.int16).max:
            break
    return found


def open_windows(
    source: Source,
    decode: Callable[[bytes, str], NDArray[np.uint8]],
    *,
    exact: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
    channels: int | None = None,
) -> tuple[tuple[int, int], Read]:
    """Height and width of a picture or mask, and a function that reads its parts.

    Both ways give the same pixels: a window goes through ``decode`` as a small TIFF of its own.

    Args:
        source: Where it lies, see `size_of_large`.
        decode: ``decode(bytes, name)``, such as ``decode_image``.
        exact: Whether every number counts, as in a mask: it has one page and a lossless coding.
        max_megapixels: Of a tile or strip, which has to be decoded as a whole.
        channels: How many named bands it has; ``None``: grey or colours, perhaps with alpha.

    Raises:
        DataError: It cannot be read.
    """
    if size_of_large(source) is not None and isinstance(source, FileSource):
        return open_scene(source.path, decode, exact=exact, max_megapixels=max_megapixels, channels=channels)
    whole = decode(source.read(), source.name)
    shape = (whole.shape[0], whole.shape[1])
    return shape, lambda y, x, height, width: whole[y : y + height, x : x + width]


def open_scene(
    path: Path,
    decode: Callable[[bytes, str], NDArray[np.uint8]],
    *,
    exact: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
    channels: int | None = None,
) -> tuple[tuple[int, int], Read]:
    """As `open_windows`, of a TIFF of any size.

    Raises:
        DataError: It cannot be read.
    """
    with _opened(path) as (file, page):
        several = channels is not None and page.samplesperpixel == 1 and len(file.pages) == channels
        pages = len(file.pages) if several else 1
        for number in range(pages):
            each: Any = file.pages[number]
            _check(path, each)
            _check_coding(path, file, each, exact, max_megapixels)
            if each.shape != page.shape:
                raise DataError(f"`{path}` should have pages of one size. Found {page.shape} and {each.shape}. "
                                "Export it anew.")  # fmt: skip
        size, nodata = (page.imagelength, page.imagewidth), page.tags.valueof(NODATA_TAG)
    named = channels is not None

    def read(y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        return decode(_as_tiff(read_window(path, y, x, height, width, pages), named, nodata), str(path))

    return size, read


def open_missing(path: Path) -> MissingIn | None:
    """What tells where a TIFF of any size has no measurement, part by part; ``None`` of one that names no such value.

    Raises:
        DataError: It cannot be read.
    """
    nodata = read_nodata(path, str(path))
    return None if nodata is None else lambda *window: missing(read_window(path, *window), nodata)


def _as_tiff(window: NDArray[Any], named: bool, nodata: str | None) -> bytes:
    buffer = io.BytesIO()
    colours = not named and window.ndim == 3 and window.shape[2] >= 3
    if window.ndim == 3 and not named:  # an alpha channel is dropped, as it would be
        window = window[..., :3] if colours else window[..., 0]
    extra = [] if nodata is None else [nodata_tag(nodata)]
    tifffile.imwrite(
        buffer, window, photometric="rgb" if colours else "minisblack", planarconfig="contig", extratags=extra
    )
    return buffer.getvalue()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[tifffile.TiffFile, Any]]:
    with explained(str(path), " by windows", _WAY_OUT):
        check_regular(path)
        with tifffile.TiffFile(path) as file:
            yield file, file.pages.first


def _check_coding(path: Path, file: tifffile.TiffFile, page: Any, exact: bool, max_megapixels: float) -> None:
    if len(page.dataoffsets) != (wanted := int(np.prod(page.chunked))):  # what is missing would be filled with 0
        raise DataError(
            f"`{path}` should have its {page.imagewidth} x {page.imagelength} pixels in {wanted} pieces. Found "
            f"{len(page.dataoffsets)}. Restore the file or remove it."
        )
    pixels = page.tilewidth * page.tilelength if page.is_tiled else page.imagewidth * page.rowsperstrip
    if not page.is_memmappable and pixels > max_megapixels * 1e6:
        raise DataError(
            f"`{path}` should be stored in pieces of at most {max_megapixels:g} megapixels, which are decoded as a "
            f"whole. Found {pixels / 1e6:.4g}. {_WAY_OUT}"
        )
    if exact and (page.compression not in LOSSLESS or num_pages(file) > 1):
        raise DataError(
            f"`{path}` should be one mask of a lossless coding. Found {'several pages' if num_pages(file) > 1 else ''}"
            f"{'' if page.compression in LOSSLESS else getattr(page.compression, 'name', page.compression)}. {_WAY_OUT}"
        )


def _check(path: Path, page: Any) -> None:
    upright = page.tags.valueof(_ORIENTATION, _UPRIGHT) == _UPRIGHT
    if page.axes not in ("YX", "YXS", "SYX") or page.photometric not in _MEANINGS or not upright:
        raise DataError(
            f"`{path}` should be upright grey or RGB to be read by windows. Found axes {page.axes}, photometric "
            f"{page.photometric!r}, orientation {page.tags.valueof(_ORIENTATION, _UPRIGHT)}. Export it anew."
        )
