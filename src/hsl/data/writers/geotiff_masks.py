"""GeoTIFF: the class map of each picture, tiled and compressed, where the picture lies on earth."""

from collections.abc import Sequence
from pathlib import Path

from hsl.batch import IGNORE_INDEX
from hsl.data.bands.geo_tags import NODATA_TAG, read_geo_tags
from hsl.data.writers.regions import Segmented
from hsl.files.io import read_regular

TILE = (256, 256)
_ASCII = 2


class GeotiffFiles:
    """Writes ``masks/<id>.tif``: class indices, with the geo tags of the picture; 255 is its nodata value.

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

        tags = read_geo_tags(read_regular(segmented.picture), str(segmented.picture))
        if not tags:
            self.without.append(segmented.id)
        self._folder.mkdir(parents=True, exist_ok=True)
        nodata = str(IGNORE_INDEX)
        extra = [*(tag.as_extra() for tag in tags), (NODATA_TAG, _ASCII, len(nodata) + 1, nodata, True)]
        (layer,) = segmented.layers
        tifffile.imwrite(
            self._folder / f"{segmented.id}.tif", layer, tile=TILE, compression="zlib", photometric="minisblack",
            extratags=extra, metadata=None,
        )  # fmt: skip

    def close(self) -> None:
        """Nothing is left to do."""
