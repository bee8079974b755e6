"""GeoTIFF: nodata does not count, a mask lies where its picture lies, and a prediction comes back as a mask."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from hsl.data.files.decoding import Decoding
from hsl.data.files.scan import scan
from hsl.data.formats.geotiff import read_geotiff
from hsl.data.writers.geotiff_masks import GeotiffFiles
from hsl.data.writers.regions import Segmented
from hsl.errors import DataError

PLACE = [(33550, 12, 3, (10.0, 10.0, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 4e5, 5e6, 0.0), True)]
MOVED = [PLACE[0], (33922, 12, 6, (0.0, 0.0, 0.0, 4e5, 5e6 + 10, 0.0), True)]


def nodata(value: str) -> tuple[int, int, int, str, bool]:
    return (42113, 2, len(value) + 1, value, True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "dataset.yaml").write_text("classes: [ground, field]\nbands: [a, b]\nvalue_range: [0, 1]\n")
    for name, gone in (("float", np.nan), ("whole", -1.0)):
        numbers = rng.random((40, 30, 2)).astype(np.float32)
        numbers[:7, :, :] = gone
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", numbers, photometric="minisblack",
                         planarconfig="contig", extratags=[*PLACE, nodata(f"{gone:g}")])  # fmt: skip
        mask = rng.integers(0, 2, (40, 30)).astype(np.uint8)
        tifffile.imwrite(tmp_path / "masks" / f"{name}.tif", mask, photometric="minisblack", extratags=PLACE)
    return tmp_path


def test_pixels_without_measurement_do_not_count(root: Path) -> None:
    catalogue = read_geotiff(root)
    for record in catalogue.records:
        stored = tifffile.imread(root / "masks" / f"{record.id}.tif")
        stored[:7] = 255
        picture = Decoding.of(catalogue)(record)
        assert picture.mask is not None
        np.testing.assert_array_equal(picture.mask, stored)
        assert (picture.image[:7] == 0).all()
        assert picture.image[7:].mean() > 100
    counts = scan(catalogue, None, 1).class_counts
    assert counts[:, 255].tolist() == [7 * 30] * 2
    assert counts[:, :2].sum() == 2 * 33 * 30


def test_a_prediction_comes_back_as_a_mask_of_the_same_place(root: Path, tmp_path: Path) -> None:
    tool = GeotiffFiles(tmp_path / "out", ("ground", "field"))
    said = np.random.default_rng(1).integers(0, 2, (40, 30)).astype(np.uint8)
    for name in ("float", "whole"):
        tool.add(Segmented(name, root / "images" / f"{name}.tif", [said]))
    for name in ("float", "whole"):
        (root / "masks" / f"{name}.tif").write_bytes((tmp_path / "out" / "masks" / f"{name}.tif").read_bytes())
    catalogue = read_geotiff(root)
    for record in catalogue.records:
        mask = Decoding.of(catalogue)(record).mask
        assert mask is not None
        np.testing.assert_array_equal(mask[7:], said[7:])
        assert (mask[:7] == 255).all()


def test_masks_elsewhere_and_other_pictures_are_told_together(root: Path) -> None:
    for name in ("float", "whole"):
        mask = tifffile.imread(root / "masks" / f"{name}.tif")
        tifffile.imwrite(root / "masks" / f"{name}.tif", mask, photometric="minisblack", extratags=MOVED)
    with pytest.raises(DataError, match=r"should lie where its picture lies.*float\.tif.*whole\.tif"):
        read_geotiff(root)
    (root / "images" / "float.tif").rename(root / "images" / "float.png")
    with pytest.raises(DataError, match=r"should be TIFF.*float\.png.*data=folder"):
        read_geotiff(root)
