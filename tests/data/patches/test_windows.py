import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from hsl.data.files.decode import decode_image
from hsl.data.files.decode_masks import decode_mask
from hsl.data.files.records import FileSource
from hsl.data.patches import windows
from hsl.data.patches.windows import open_windows, read_window
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
