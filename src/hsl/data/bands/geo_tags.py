"""Where on earth a TIFF lies, and which of its numbers are no measurement: the tags that say so, as they are stored.

Nothing is computed with them: they are carried from a picture to what is made of it, value by value. Source: OGC
19-008r4, "OGC GeoTIFF Standard"; GDAL's tag for missing values.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.data.files.tiff_pages import first_page
from hsl.errors import DataError

GEO_TAGS = {
    33550: "ModelPixelScale", 33922: "ModelTiepoint", 34264: "ModelTransformation", 34735: "GeoKeyDirectory",
    34736: "GeoDoubleParams", 34737: "GeoAsciiParams",
}  # fmt: skip
NODATA_TAG = 42113
_ORIENTATION = 274
_ASCII = 2
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True, slots=True)
class GeoTag:
    """A tag as `tifffile` reads and writes it: number, type, count and value."""

    code: int
    dtype: int
    count: int
    value: Any

    def as_extra(self) -> tuple[int, int, int, Any, bool]:
        """For `tifffile.imwrite(extratags=)`."""
        return self.code, self.dtype, self.count, self.value, True


def nodata_tag(value: str) -> tuple[int, int, int, str, bool]:
    """The tag of the value that means "no measurement", for `tifffile.imwrite(extratags=)`."""
    return NODATA_TAG, _ASCII, len(value) + 1, value, True


def read_geo_tags(data: bytes | Path, name: str) -> tuple[GeoTag, ...]:
    """The geo tags of the first page of a picture, by number; empty of one that is no TIFF or has none.

    Args:
        data: the file, or where it lies if it is a TIFF.
        name: what an error calls it.

    Raises:
        DataError: the file is damaged, or its rows are stored turned, so that the tags are of another grid.
    """
    if isinstance(data, bytes) and not data.startswith(_TIFF):
        return ()
    with first_page(data, name) as (_, page):
        tags = page.tags
        found = [
            GeoTag(tag.code, int(tag.dtype), tag.count, tag.value) for tag in tags.values() if tag.code in GEO_TAGS
        ]
        if found and int(tags.valueof(_ORIENTATION, 1)) != 1:
            raise DataError(
                f"`{name}` should be stored upright to keep its position. Found the orientation "
                f"{tags.valueof(_ORIENTATION)}. Export it upright."
            )
    return tuple(sorted(found, key=lambda tag: tag.code))


def read_nodata(data: bytes | Path, name: str) -> float | None:
    """The number that means "no measurement" (GDAL_NODATA); ``None`` of a picture that says none.

    Raises:
        DataError: the file is damaged, or the tag is no number.
    """
    if isinstance(data, bytes) and not data.startswith(_TIFF):
        return None
    with first_page(data, name) as (_, page):
        text = page.tags.valueof(NODATA_TAG)
    if text is None:
        return None
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        raise DataError(f"`{name}` should have a number as its nodata value. Found `{text}`. Export it anew.") from None


def missing(numbers: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """Pixels without measurement: those of which every channel has the value.

    Args:
        numbers: ``(H, W)`` or ``(H, W, C)``, as stored.
        nodata: the value; it may be NaN.

    Example:
        >>> missing(np.array([[0, 7]]), 0).tolist()
        [[True, False]]
    """
    there = np.isnan(numbers) if np.isnan(nodata) else numbers == numbers.dtype.type(nodata)
    return np.asarray(there if numbers.ndim == 2 else there.all(axis=2))
