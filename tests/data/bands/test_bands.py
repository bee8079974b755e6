"""Pictures of named channels: what is read, from which files, and what of it is shown, changed and normalised."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from hsl.data.bands.band_files import read_bands
from hsl.data.bands.bands import Bands, BandStatistics, histograms_of, statistics_of
from hsl.data.formats.description import read_description
from hsl.data.formats.findings import Findings
from hsl.data.loading.resizing import resize
from hsl.data.loading.transforms import training_transform
from hsl.errors import DataError

NAMES = ["red", "green", "blue", "nir", "depth"]
RNG = np.random.default_rng(0)


def read(path: Path, bands: Bands, **given: Any) -> np.ndarray:
    settings = {"value_range": None, "max_megapixels": 300.0, **given}
    return read_bands(path.read_bytes(), path.name, bands, **settings)


def test_the_same_bands_come_from_every_kind_of_file(tmp_path: Path) -> None:
    five = RNG.integers(0, 256, (9, 13, 5)).astype(np.uint8)
    last_first = np.ascontiguousarray(np.moveaxis(five, -1, 0))
    tifffile.imwrite(tmp_path / "a.tif", five, photometric="minisblack", planarconfig="contig", compression="zlib")
    tifffile.imwrite(tmp_path / "b.tif", last_first, photometric="minisblack", planarconfig="separate")
    tifffile.imwrite(tmp_path / "c.tif", last_first, photometric="minisblack")  # a page each
    tifffile.imwrite(tmp_path / "d.tif", five, photometric="rgb", extrasamples=[0, 0], tile=(16, 16))
    np.save(tmp_path / "e.npy", five)
    np.save(tmp_path / "f.npy", last_first)
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(read(path, Bands.of(NAMES)), five, err_msg=path.name)
    four = np.ascontiguousarray(five[..., :4])
    cv2.imwrite(str(tmp_path / "four.png"), four[..., [2, 1, 0, 3]])
    np.testing.assert_array_equal(read(tmp_path / "four.png", Bands.of(NAMES[:4])), four)


def test_each_band_has_its_range(tmp_path: Path) -> None:
    deep = RNG.integers(0, 4000, (8, 9, 3)).astype(np.uint16)
    np.save(tmp_path / "a.npy", deep)
    bands = Bands.of(["a", "b", "c"], [(0.0, 2000.0), None, (1000.0, 3000.0)])
    found = read(tmp_path / "a.npy", bands, value_range=(0.0, 4000.0))
    for place, (low, high) in enumerate([(0, 2000), (0, 4000), (1000, 3000)]):
        expected = np.rint(np.clip((deep[..., place].astype(np.float64) - low) * 255 / (high - low), 0, 255))
        assert np.abs(found[..., place] - expected).max() <= 1  # ties
        assert (found[..., place] == expected).mean() > 0.95
    np.testing.assert_array_equal(read(tmp_path / "a.npy", Bands.of(["a", "b", "c"])), np.rint(deep / 257))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((7, 6, 3), np.uint8), r"the 5 channels red, green, blue, nir, depth. Found 3. .* correct `bands`"),
        (np.zeros((5, 6), np.uint8), "the 5 channels .* Found 1"),
        (np.zeros((5, 6, 5), np.float32), r"channel red` holds float32 numbers"),
        (np.full((5, 6, 5), "x"), "should be numbers"),
        (np.zeros((2000, 2000, 5), np.uint8), "at most 3 megapixels"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, said: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=said):
        read(tmp_path / "a.npy", Bands.of(NAMES), max_megapixels=3.0)


def test_damaged_files_are_told(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 6, 5), np.uint8))
    whole = (tmp_path / "a.npy").read_bytes()
    for number in (7, 60, len(whole) - 1):
        (tmp_path / "a.npy").write_bytes(whole[:number])
        with pytest.raises(DataError, match="npy"):
            read(tmp_path / "a.npy", Bands.of(NAMES))


def test_pixels_without_measurement_are_black(tmp_path: Path) -> None:
    numbers = RNG.normal(10, 1, (6, 7, 2)).astype(np.float32)
    numbers[2:4, 3] = -9999
    numbers[0, 0, 1] = -9999  # one band alone is a measurement of the other
    tifffile.imwrite(
        tmp_path / "a.tif", numbers, photometric="minisblack", planarconfig="contig",
        extratags=[(42113, 2, 6, "-9999", True)],
    )  # fmt: skip
    found = read(tmp_path / "a.tif", Bands.of(["a", "b"]), value_range=(0.0, 20.0))
    assert (found[2:4, 3] == 0).all()
    assert found[5].min() > 0


def test_statistics_are_those_of_all_pixels() -> None:
    pictures = [RNG.integers(0, 256, (8, 9, 3)).astype(np.uint8), np.zeros((5, 5, 3), np.uint8)]
    pictures[0][..., 2] = 0
    found = statistics_of(Bands.of(["a", "b", "c"]), sum(map(histograms_of, pictures)))
    pixels = np.concatenate([each.reshape(-1, 3) for each in pictures]) / 255
    np.testing.assert_allclose(found.mean, pixels.mean(0), atol=1e-12)
    np.testing.assert_allclose(found.std[:2], pixels.std(0)[:2], atol=1e-12)
    assert found.std[2] == 1  # a band that never varies says nothing
    assert BandStatistics.read(found.as_json()) == found


def test_colour_changes_in_what_is_colour_and_all_bands_move_together() -> None:
    parts: dict[str, Any] = dict.fromkeys(["flips", "rot90", "resized_crop", "rotation", "colour", "blur"])
    strong = {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.2, "probability": 1.0}
    image = RNG.integers(0, 256, (16, 16, 6)).astype(np.uint8)
    image[..., 5] = image[..., 0]
    plain = training_transform((16, 16), **{**parts, "colour": strong})
    some, _ = plain.of_bands((3, 2, 1))(image, {}, (1, 2))
    assert (some[..., [0, 4, 5]] == image[..., [0, 4, 5]]).all()
    assert all((some[..., band] != image[..., band]).any() for band in (1, 2, 3))
    alone, _ = plain(np.ascontiguousarray(image[..., [3, 2, 1]]), {}, (1, 2))
    np.testing.assert_array_equal(some[..., [3, 2, 1]], alone)
    none, _ = plain.of_bands(())(image, {}, (1, 2))
    np.testing.assert_array_equal(none, image)
    turning = {"flips": {"horizontal": 0.5, "vertical": 0.5},
               "rotation": {"degrees": 40, "fill": 0, "probability": 1.0},
               "resized_crop": {"scale": [0.3, 0.6], "ratio": [0.8, 1.2], "probability": 1.0},
               "blur": {"sigma": [0.5, 1], "probability": 1.0}}  # fmt: skip
    moving = training_transform((24, 20), **{**parts, **turning}).of_bands(())
    moved, _ = moving(image, {"a": image[..., 0]}, (3, 4))
    assert moved.shape == (24, 20, 6)
    np.testing.assert_array_equal(moved[..., 5], moved[..., 0])


@pytest.mark.parametrize("size", [(10, 12), (40, 50), (10, 50)])
def test_resizing_treats_all_bands_alike(size: tuple[int, int]) -> None:
    image = RNG.integers(0, 256, (23, 31, 9)).astype(np.uint8)
    found = resize(image, size)
    for band in range(9):
        np.testing.assert_array_equal(found[..., band], resize(np.ascontiguousarray(image[..., band]), size))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("bands: [a]", "should name 2 to 16 different channels. Found"),
        ("bands: [a, a]", "2 to 16 different"),
        ("bands: red", "2 to 16 different"),
        ("bands: [1, 2]", "2 to 16 different"),
        ("bands: {a: [3, 1], b: null}", r"range of `a` in .* black < white"),
        ("bands: [red, nir]\nshown: [red, nir]", "should list three channels"),
        ("bands: [red, nir, blue]\nshown: [red, nirr, blue]", r"Found `nirr`. Did you mean `nir`\?"),
        ("shown: [a, b, c]", "should stand beside `bands`"),
    ],
)
def test_descriptions_that_are_refused(lines: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "dataset.yaml").write_text(f"classes: [a, b]\n{lines}\n")
    findings = Findings()
    read_description(tmp_path / "dataset.yaml", findings)
    with pytest.raises(DataError, match=said):
        findings.raise_if_any(tmp_path)


def test_a_description_of_bands(tmp_path: Path) -> None:
    text = "classes: [a, b]\nbands: {nir: [0, 6000], red: [0, 3000], swir: null}\nshown: [swir, nir, red]\n"
    (tmp_path / "dataset.yaml").write_text(text)
    bands = read_description(tmp_path / "dataset.yaml", Findings()).bands
    assert bands == Bands(("nir", "red", "swir"), ((0.0, 6000.0), (0.0, 3000.0), None), (2, 0, 1))
    assert Bands.read(bands.as_json()) == bands
    assert not bands.colours
