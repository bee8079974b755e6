"""GeoTIFF: the class map of each picture, tiled and compressed, where the picture lies on earth."""

from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX
from hsl.data.bands.band_files import missing_pixels
from hsl.data.bands.geo_tags import GeoTag, nodata_tag, read_geo_tags
from hsl.data.writers.regions import Segmented
from hsl.files.io import read_regular

TILE = (256, 256)


class GeotiffFiles:
    """Writes ``masks/<id>.tif``: class indices, with the geo tags of the picture; 255 where it has no measurement.

    Args:
        folder: where it is written.
        classes: names, for nobody: a TIFF of indices holds none.

    Attributes:
        without: ids of pictures that have no position.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        del classes
        self._folder = folder / "masks"
        self.without: list[str] = []

    def add(self, segmented: Segmented) -> None:
        """Write the map of a picture.

        Raises:
            DataError: the picture is stored turned.
        """
        data, name = read_regular(segmented.picture), str(segmented.picture)
        tags, gone = read_geo_tags(data, name), missing_pixels(data, name, inf)
        if not tags:
            self.without.append(segmented.id)
        (layer,) = segmented.layers
        if gone is not None and gone.shape == layer.shape:
            layer = np.where(gone, np.uint8(IGNORE_INDEX), layer)
        _write(self._folder / f"{segmented.id}.tif", tags, data=layer)

    def close(self) -> None:
        """Nothing is left to do."""


def write_scene(
    path: Path, shape: tuple[int, int], rows: Callable[[int, int], NDArray[np.uint8]], tags: Sequence[GeoTag]
) -> None:
    """Write a class map that is larger than memory, tile by tile.

    Args:
        path: of the file.
        shape: height and width.
        rows: ``rows(first, end)``: those of the map, ``uint8 (end - first, W)``.
        tags: of the picture.
    """
    _write(path, tags, data=_tiles(shape, rows), shape=shape, dtype=np.uint8)


def _tiles(shape: tuple[int, int], rows: Callable[[int, int], NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    tall, wide = TILE
    for top in range(0, shape[0], tall):
        band = rows(top, min(shape[0], top + tall))
        band = np.pad(band, ((0, tall - len(band)), (0, -shape[1] % wide)))
        for left in range(0, shape[1], wide):
            yield np.ascontiguousarray(band[:, left : left + wide])


def _write(path: Path, tags: Sequence[GeoTag], **content: Any) -> None:
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    extra = [*(tag.as_extra() for tag in tags), nodata_tag(str(IGNORE_INDEX))]
    tifffile.imwrite(
        path, tile=TILE, compression="zlib", photometric="minisblack", extratags=extra, metadata=None, **content
    )
