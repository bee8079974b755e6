import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from hsl.data.bands.band_files import read_bands
from hsl.data.bands.bands import Bands
from hsl.data.files.decode import decode_image
from hsl.data.files.decode_masks import decode_mask
from hsl.data.files.records import Catalogue, FileSource
from hsl.data.patches import centres as patch_centres
from hsl.data.patches import cut_statistics as patch_statistics
from hsl.data.patches import windows
from hsl.data.patches.centres import poisson_disk
from hsl.data.patches.cut_statistics import PictureCounts, class_table, covered_pixels, neighbour_distances, summary
from hsl.data.patches.windows import open_missing, open_scene, open_windows, read_window
from hsl.errors import DataError

PICTURE = np.random.default_rng(0).integers(0, 255, (150, 210, 3), dtype=np.uint8)
KINDS: dict[str, dict[str, Any]] = {
    "mapped": {},
    "tiles": {"tile": (64, 64)},
    "deflated tiles": {"tile": (64, 64), "compression": "zlib"},
    "deflated strips": {"rowsperstrip": 16, "compression": "zlib"},
    "planes": {"planarconfig": "separate"},
    "planes in tiles": {"planarconfig": "separate", "tile": (64, 64)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [(0, 0, 150, 210), (30, 70, 64, 1), (140, 200, 50, 50)])
def test_window_of_a_tiff(tmp_path: Path, kind: str, window: tuple[int, int, int, int]) -> None:
    pixels = PICTURE.transpose(2, 0, 1) if "planes" in kind else PICTURE
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", **KINDS[kind])
    y, x, height, width = window
    part = read_window(tmp_path / "a.tif", *window)
    np.testing.assert_array_equal(part, PICTURE[y : y + height, x : x + width])


@pytest.mark.parametrize("pixels", [PICTURE, PICTURE[..., 0], PICTURE.astype(np.uint16) * 200], ids=["8", "grey", "16"])
def test_windows_decode_as_the_whole_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: Any) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(64, 64), photometric="rgb" if pixels.ndim == 3 else "minisblack")
    source = FileSource(tmp_path / "a.tif")
    shape, whole = open_windows(source, decode_image)
    monkeypatch.setattr(windows, "LARGE", 1)
    same_shape, by_windows = open_windows(source, decode_image)
    assert shape == same_shape == (150, 210)
    np.testing.assert_array_equal(by_windows(20, 100, 70, 500), whole(20, 100, 70, 500))
    assert by_windows(20, 100, 70, 500).shape == (70, 110, 3)


def test_channels_by_windows(tmp_path: Path) -> None:
    """Interleaved, in planes and a page each; pixels without measurement are 0, as in the whole."""
    pixels = np.random.default_rng(1).integers(0, 4000, (150, 210, 5), dtype=np.uint16)
    pixels[20:40, 30:50] = 9
    bands = Bands.of(list("abcde"), [(0, 3000)] * 5)
    decode = lambda data, name: read_bands(data, name, bands, None, 1)  # noqa: E731
    ways: dict[str, dict[str, Any]] = {way: {"planarconfig": way} for way in ("contig", "separate")} | {"pages": {}}
    for name, how in ways.items():
        path, stored = tmp_path / f"{name}.tif", pixels if name == "contig" else pixels.transpose(2, 0, 1)
        extra = [(42113, "s", 2, "9", True)]
        with tifffile.TiffWriter(path) as file:
            for part in stored if name == "pages" else [stored]:
                file.write(part, photometric="minisblack", tile=(64, 64), extratags=extra, compression="zlib",
                           metadata=None, **how)  # fmt: skip
        whole = decode(path.read_bytes(), name)
        shape, read = open_scene(path, decode, channels=5)
        assert shape == (150, 210)
        np.testing.assert_array_equal(read(10, 20, 70, 500), whole[10:80, 20:])
        assert (whole[20:40, 30:50] == 0).all()
        gone = open_missing(path)
        assert gone is not None
        assert gone(0, 0, 150, 210)[20:40, 30:50].all()
    _, read = open_scene(path, decode, channels=4)
    with pytest.raises(DataError, match=r"should have the 5 channels .* Found 1"):
        read(0, 0, 9, 9)


def test_mask_by_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = PICTURE[..., 0] % 5
    tifffile.imwrite(tmp_path / "a.tif", mask, tile=(64, 64), compression="zlib")
    monkeypatch.setattr(windows, "LARGE", 1)
    _, read = open_windows(FileSource(tmp_path / "a.tif"), decode_mask)
    np.testing.assert_array_equal(read(60, 60, 10, 20), mask[60:70, 60:80])


@pytest.mark.parametrize("content", [b"", b"II*\0 and then nothing", b"\x89PNG\r\n\x1a\n"])
def test_broken_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tif` cannot be read by windows"):
        read_window(path, 0, 0, 1, 1)
    with pytest.raises(DataError, match=r"a\.tif"):
        open_windows(FileSource(path), decode_image)
    with pytest.raises(DataError, match=r"b\.tif"):
        read_window(tmp_path / "b.tif", 0, 0, 1, 1)


def test_what_has_another_meaning_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PICTURE[..., 0], photometric="miniswhite")
    with pytest.raises(DataError, match="should be upright grey or RGB"):
        read_window(tmp_path / "a.tif", 0, 0, 1, 1)


def test_peak_memory_is_that_of_the_window(tmp_path: Path) -> None:
    """108 MB in tiles, 12 windows: a fraction of it is ever in memory."""
    pixels = np.zeros((6144, 6144, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(256, 256), photometric="rgb", compression="zlib")
    program = """
import resource, sys, pathlib
from hsl.data.patches.windows import read_window
path = pathlib.Path(sys.argv[1])
read_window(path, 0, 0, 1, 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for y in range(0, 5500, 500):
    read_window(path, y, y, 512, 512)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "a.tif")]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < 30_000, f"{grown} kB"


def check(mask: NDArray[np.bool_], radius: float, centres: NDArray[np.int64]) -> None:
    """Inside, apart and maximal, each pixel against each centre."""
    assert centres.shape == (len(centres), 2)
    assert centres.dtype == np.int64
    assert mask[tuple(centres.T)].all()
    apart = ((centres[:, None] - centres) ** 2).sum(-1)
    assert (apart[~np.eye(len(centres), dtype=bool)] >= radius**2).all()
    pixels = np.argwhere(mask)
    if len(pixels):
        nearest = ((pixels[:, None] - centres) ** 2).sum(-1).min(axis=1, initial=10**9)
        assert (nearest < radius**2).all(), "there is room for another centre"


@settings(max_examples=100, deadline=None)
@given(
    mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)),
    radius=st.floats(1, 60),
    seed=st.integers(0, 2**32),
)
def test_inside_apart_and_maximal(mask: NDArray[np.bool_], radius: float, seed: int) -> None:
    check(mask, radius, poisson_disk(mask, radius, seed))


@pytest.mark.parametrize("density", [0.003, 0.03, 0.5, 1.0])
@pytest.mark.parametrize("radius", [1, 1.4, 2, 5, 17.3, 60, 95.5])
def test_dense_and_scattered_foreground(density: float, radius: float) -> None:
    mask = np.random.default_rng(0).random((37, 53)) < density
    check(mask, radius, poisson_disk(mask, radius, 1))


def test_squares_larger_than_are_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_centres, "GATHERED", 2)
    monkeypatch.setattr(patch_centres, "CHUNK", 7)
    mask = np.random.default_rng(0).random((97, 130)) < 0.02
    check(mask, 20, poisson_disk(mask, 20, 1))


def test_components_that_growth_cannot_reach() -> None:
    mask = np.zeros((300, 300), bool)
    mask[::150, ::150] = True
    mask[-1, -1] = True
    centres = poisson_disk(mask, 10)
    assert sorted(map(tuple, centres.tolist())) == [(0, 0), (0, 150), (150, 0), (150, 150), (299, 299)]


def test_packing_is_that_of_a_maximal_sample() -> None:
    """Discs of diameter r dropped at random until none fits cover 0.547 of the plane (random sequential addition)."""
    counts = [len(poisson_disk(np.ones((1200, 1200), bool), 20, seed)) for seed in range(3)]
    covered = np.array(counts) * np.pi * 10**2 / 1210**2
    np.testing.assert_allclose(covered, 0.547, atol=0.02)


def test_radius_of_one_takes_every_pixel() -> None:
    assert len(poisson_disk(np.ones((7, 9), bool), 1)) == 63


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 5)])
def test_no_foreground(shape: tuple[int, int]) -> None:
    assert poisson_disk(np.zeros(shape, bool), 3).shape == (0, 2)


def test_single_pixel() -> None:
    assert poisson_disk(np.ones((1, 1), bool), 300).tolist() == [[0, 0]]


def test_seed_decides() -> None:
    mask = np.ones((200, 200), bool)
    same = [poisson_disk(mask, 20, (3, 5)) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert not np.array_equal(same[0], poisson_disk(mask, 20, (3, 6)))


def test_centres_do_not_keep_to_a_grid() -> None:
    rows = [tuple(poisson_disk(np.ones((9, 9), bool), 100, seed)[0].tolist()) for seed in range(400)]
    assert len(set(rows)) > 60, "every pixel should be drawn as the only centre"


@pytest.mark.parametrize("radius", [0.5, 0, -1, float("nan"), float("inf")])
def test_wrong_radius(radius: float) -> None:
    with pytest.raises(ValueError, match=r"`radius` should be at least 1\. Found"):
        poisson_disk(np.ones((3, 3), bool), radius)


@pytest.mark.parametrize("mask", [np.ones((3, 3), np.uint8), np.ones(3, bool)])
def test_wrong_mask(mask: Any) -> None:
    with pytest.raises(ValueError, match="`mask` should be bool"):
        poisson_disk(mask, 3)


def counts(before: list[int], after: list[int], centres: list[list[int]], covered: int = 0) -> PictureCounts:
    padded = [np.array([*values, *[0] * (255 - len(values)), 9]) for values in (before, after)]
    places = np.array(centres, np.int64).reshape(-1, 2)
    return PictureCounts("p", (9, 9), *padded, foreground=before[1], covered=covered, centres=places, corners=places)


@pytest.mark.parametrize("strip", [1, 7, 512])
def test_covered_pixels_against_a_whole_map(monkeypatch: pytest.MonkeyPatch, strip: int) -> None:
    monkeypatch.setattr(patch_statistics, "STRIP", strip)
    random = np.random.default_rng(0)
    foreground = random.random((50, 40)) < 0.4
    corners = random.integers(0, 30, (6, 2))
    covered = np.zeros(foreground.shape, bool)
    for y, x in corners:
        covered[y : y + 12, x : x + 12] = True
    assert covered_pixels(foreground, corners, 12) == (covered & foreground).sum()
    assert covered_pixels(foreground, corners[:0], 12) == 0


def test_neighbour_distances() -> None:
    assert neighbour_distances(np.array([[0, 0], [3, 4], [3, 5]])).tolist() == [5, 1, 1]
    assert neighbour_distances(np.array([[0, 0]])).size == 0


def test_class_table() -> None:
    found = [counts([60, 20, 0], [5, 15, 0], []), counts([20, 0, 0], [0, 0, 0], [])]
    table = class_table(found, Catalogue("tiles", (), ("a", "b", "c")))
    assert table["pixels_before"].tolist() == [80, 20, 0]
    np.testing.assert_allclose(table["share_before"], [0.8, 0.2, 0])
    np.testing.assert_allclose(table["share_after"], [0.25, 0.75, 0])
    np.testing.assert_allclose(table["ratio"], [0.3125, 3.75, np.nan])


def test_summary() -> None:
    found = summary([counts([0, 10], [0, 5], [[0, 0], [0, 3]], 5), counts([0, 30], [0, 5], [], 15)])
    assert found == {
        "pictures": 2,
        "pictures_without_patch": 1,
        "patches": 2,
        "coverage": 0.5,
        "distance_min": 3.0,
        "distance_median": 3.0,
    }
    alone = summary([counts([9, 0], [0, 0], [])])
    assert np.isnan([alone["coverage"], alone["distance_min"], alone["distance_median"]]).all()
