"""GeoTIFF: a folder of scenes or tiles with masks on the same grid; pixels without measurement do not count."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tifffile

from hsl.config.ranges import PositiveFloat
from hsl.data.bands.geo_tags import GEO_TAGS, NODATA_TAG
from hsl.data.files.headers import MAX_MEGAPIXELS
from hsl.data.files.records import Catalogue, FileSource, MeasuredMask, Record, Source
from hsl.data.files.tiff_pages import explained
from hsl.data.formats.findings import Findings
from hsl.data.formats.folder import read_folder

_SUFFIXES = (".tif", ".tiff")
_PLACE = (33550, 33922, 34264)
"""Tags that say where on earth a grid lies; the others say in which coordinates, in more ways than one."""


def read_geotiff(
    root: str | Path,
    masks_optional: bool = False,
    images: str = "images/{id}",
    masks: str = "masks/{id}",
    classes: Sequence[str] | None = None,
    palette: Mapping[str, Any] | None = None,
    values: Mapping[int, str] | None = None,
    max_megapixels: PositiveFloat = MAX_MEGAPIXELS,
) -> Catalogue:
    """Read a folder as `hsl.data.formats.folder.read_folder` does, and what its TIFFs say of their place. No decoding.

    Pixels whose every channel has the nodata value of the picture (tag 42113, GDAL_NODATA) do not count, whatever the
    mask says of them.

    Args:
        root: The folder.
        masks_optional: As in `read_folder`, and so are the following.
        images: Where pictures lie.
        masks: Where masks lie, as TIFF, PNG or what else `read_folder` takes.
        classes: Names of the classes.
        palette: Class to colours.
        values: Numbers to classes.
        max_megapixels: A larger file of one class is refused.

    Returns:
        The catalogue, sorted by id.

    Raises:
        DataError: See `read_folder`; or a picture is no TIFF, or a mask lies elsewhere on earth than its picture.
    """
    catalogue = read_folder(
        root, masks_optional=masks_optional, images=images, masks=masks, classes=classes, palette=palette,
        values=values, max_megapixels=max_megapixels,
    )  # fmt: skip
    findings = Findings()
    others = [record.image.name for record in catalogue.records if not _is_tiff(record.image)]
    findings.add_names(others, "Pictures of `data=geotiff` should be TIFF. Not so are", "Read them with `data=folder`.")
    findings.raise_if_any(Path(root))
    records, elsewhere = [], []
    for record in catalogue.records:
        tags = _tags(record.image)
        if record.mask is not None and _is_tiff(record.mask) and _apart(tags, _tags(record.mask)):
            elsewhere.append(f"{record.mask.name} ({record.image.name})")
        records.append(_measured(record) if NODATA_TAG in tags else record)
    findings.add_names(
        elsewhere, "A mask should lie where its picture lies, by the geo tags of both. Not so are", "Export them anew."
    )
    findings.raise_if_any(Path(root))
    return replace(catalogue, records=tuple(records))


def _measured(record: Record) -> Record:
    return record if record.mask is None else replace(record, mask=MeasuredMask(record.mask, record.image))


def _is_tiff(source: Source) -> bool:
    return isinstance(source, FileSource) and source.path.suffix.lower() in _SUFFIXES


def _tags(source: Source) -> dict[int, Any]:
    """The tags of place and nodata, from the head of the file."""
    with explained(source.name), tifffile.TiffFile(source.name) as file:
        tags = file.pages.first.tags
        return {code: tags.valueof(code) for code in (*GEO_TAGS, NODATA_TAG) if code in tags}


def _apart(picture: Mapping[int, Any], mask: Mapping[int, Any]) -> bool:
    """Whether both know a place, and not the same."""
    one, other = ({code: tags[code] for code in _PLACE if code in tags} for tags in (picture, mask))
    return bool(one) and bool(other) and one != other
