"""GeoTIFF: the class map of each picture, tiled and compressed, where the picture lies on earth."""

from collections.abc import Sequence
from math import inf
from pathlib import Path

import numpy as np

from hsl.batch import IGNORE_INDEX
from hsl.data.bands.band_files import missing_pixels
from hsl.data.bands.geo_tags import NODATA_TAG, read_geo_tags
from hsl.data.writers.regions import Segmented
from hsl.files.io import read_regular

TILE = (256, 256)
_ASCII = 2


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
        import tifffile

        data, name = read_regular(segmented.picture), str(segmented.picture)
        tags, gone = read_geo_tags(data, name), missing_pixels(data, name, inf)
        if not tags:
            self.without.append(segmented.id)
        self._folder.mkdir(parents=True, exist_ok=True)
        nodata = str(IGNORE_INDEX)
        extra = [*(tag.as_extra() for tag in tags), (NODATA_TAG, _ASCII, len(nodata) + 1, nodata, True)]
        (layer,) = segmented.layers
        if gone is not None and gone.shape == layer.shape:
            layer = np.where(gone, np.uint8(IGNORE_INDEX), layer)
        tifffile.imwrite(
            self._folder / f"{segmented.id}.tif", layer, tile=TILE, compression="zlib", photometric="minisblack",
            extratags=extra, metadata=None,
        )  # fmt: skip

    def close(self) -> None:
        """Nothing is left to do."""
