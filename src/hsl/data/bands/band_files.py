"""Pictures of named bands from TIFF, NPY and PNG."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.data.bands.bands import Bands, Range
from hsl.data.bands.geo_tags import missing, read_nodata
from hsl.data.bands.npy import NPY, read_npy
from hsl.data.files.decode import RANGE_KEY, to_uint8
from hsl.data.files.headers import broken, check_size, read_header
from hsl.data.files.tiff_pages import decode_with_opencv, first_page, stored_numbers, turned_upright
from hsl.errors import DataError

_UNCHANGED = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION


def read_bands(
    data: bytes, name: str, bands: Bands, value_range: Range, max_megapixels: float, key: str = RANGE_KEY
) -> NDArray[np.uint8]:
    """Decode a picture to all its bands.

    Numbers of 8 bits stay as they are unless the band has a range; others are brought to 0 ... 255 by the range of the
    band, else by ``value_range``, else by 0 ... 65535 where they have 16 bits. Pixels without measurement become 0.

    Args:
        data: the file. TIFF: samples of the first page, or a page of one sample for each band. NPY: ``(H, W, C)`` or
            ``(C, H, W)``. PNG and others: as OpenCV reads them, red first.
        name: what an error calls it.
        bands: what it should hold.
        value_range: of bands without one of their own.
        max_megapixels: a larger picture is refused before it is decoded.
        key: the key that sets ``value_range``.

    Returns:
        ``uint8 (H, W, C)``, contiguous.

    Raises:
        DataError: the file is damaged or too large, holds another number of bands, or numbers without a range.
    """
    numbers = _numbers(data, name, len(bands.names), max_megapixels)
    found = 1 if numbers.ndim == 2 else numbers.shape[2]
    if found != len(bands.names):
        way = "or correct `bands` in dataset.yaml" if key == RANGE_KEY else "or choose a model of other channels"
        raise DataError(
            f"`{name}` should have the {len(bands.names)} channels {', '.join(bands.names)}. Found {found}. Give "
            f"pictures with these channels in this order, {way}."
        )
    nodata = read_nodata(data, name)
    gone = None if nodata is None else missing(numbers, nodata)
    if gone is not None:
        numbers = np.where(gone[..., None], numbers.dtype.type(0), numbers)
    image = np.empty(numbers.shape, np.uint8)
    for place, (band, own) in enumerate(zip(bands.names, bands.ranges, strict=True)):
        plane, ends = numbers[..., place], own or value_range
        as_it_is = plane.dtype == np.uint8 and own is None
        image[..., place] = plane if as_it_is else to_uint8(plane, f"{name}, channel {band}", ends, 65535, key)
    if gone is not None:
        image[gone] = 0
    return image


def missing_pixels(data: bytes, name: str, max_megapixels: float) -> NDArray[np.bool_] | None:
    """Where a picture has no measurement in any channel; ``None`` of one that names no such value.

    Raises:
        DataError: the file is damaged.
    """
    nodata = read_nodata(data, name)
    return None if nodata is None else missing(_tiff(data, name, None, max_megapixels), nodata)


def _numbers(data: bytes, name: str, number: int, max_megapixels: float) -> NDArray[Any]:
    if data.startswith(NPY):
        check_size(read_header(data, name), name, max_megapixels)
        return read_npy(data, name, number)
    header = read_header(data, name)
    if header.kind == "TIFF":
        return _tiff(data, name, number, max_megapixels)
    check_size(header, name, max_megapixels)
    image = decode_with_opencv(data, _UNCHANGED)
    if image is None:
        raise broken(data, name)
    if image.ndim == 3:
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    return turned_upright(image, header.orientation)


def _tiff(data: bytes, name: str, number: int | None, max_megapixels: float) -> NDArray[Any]:
    check_size(read_header(data, name), name, max_megapixels)
    with first_page(data, name) as (file, page):
        if page.samplesperpixel == 1 and number is not None and len(file.pages) == number:
            pages = [stored_numbers(data, file.pages[place], name) for place in range(number)]
            if len({each.shape for each in pages}) > 1:
                raise DataError(f"`{name}` should have pages of one size. Found {[each.shape for each in pages]}. "
                                "Export it anew.")  # fmt: skip
            return np.stack(pages, axis=-1)
        return stored_numbers(data, page, name)
