"""A scene that is predicted part by part has the class map of the same picture predicted as a whole."""

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.typing import NDArray
from omegaconf import DictConfig
from PIL import Image
from tests.conftest import composed

from hsl.data.bands.geo_tags import read_geo_tags
from hsl.data.writers.geotiff_masks import write_scene
from hsl.errors import DataError
from hsl.verbs.predict import scenes
from hsl.verbs.predict.predict import predict
from hsl.verbs.train.train import train

SMALL = [
    "encoder=generic", "encoder.name=tu-test_resnet", "encoder.weights=null", "decoder.channels=[8,8,8,8,8]",
    "metrics=none", "callbacks.evaluation.num_examples=0", "callbacks.tta_evaluation=null", "trainer.max_epochs=1",
    "+trainer.limit_train_batches=2",
]  # fmt: skip
SLIDING = ["inference=sliding_window", "inference.window=64", "inference.stride=43", "evaluation_size=source"]
PLACE = [(33550, "d", 3, (0.5, 0.5, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 4e6, 0.0), True)]
TILES: dict[str, Any] = {"tile": (64, 64), "compression": "zlib"}
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*")


@pytest.fixture(scope="module")
def trained(module_tiny: Callable[..., DictConfig]) -> Path:
    """A run of seconds; not to be changed."""
    cfg = module_tiny(*SMALL)
    train(cfg)
    return next(Path(cfg.output_root).glob("*/fold0/*"))


def pixels_of(height: int, width: int) -> NDArray[np.uint8]:
    """Blobs, so that the classes vary."""
    rng = np.random.default_rng(height)
    small = Image.fromarray(rng.integers(0, 255, (height // 20 + 2, width // 20 + 2, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def call(run: Path, pictures: Path, out: Path, *words: str) -> pd.DataFrame:
    predict(composed([f"run={run}", f"input={pictures}", f"output={out}", *SLIDING, *words], "predict"))
    return pd.read_csv(out / "areas.csv").set_index("id").sort_index()


def test_by_windows_as_a_whole(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several sizes and codings, and widths of what is done at once; position and areas stay."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    sizes = {"a": (131, 97), "b": (40, 300), "c": (300, 30), "d": (128, 128)}
    for (name, size), how in zip(sizes.items(), [TILES, {}, {"rowsperstrip": 16}, TILES], strict=True):
        extra = PLACE if name != "b" else []
        tifffile.imwrite(pictures / f"{name}.tif", pixels_of(*size), photometric="rgb", extratags=extra, **how)
    whole = call(trained, pictures, tmp_path / "whole")
    capsys.readouterr()
    for num_bytes, form in ((1, "png"), (2**28, "geotiff")):
        monkeypatch.setattr(scenes, "LOGITS", num_bytes)
        out = tmp_path / f"out{num_bytes}"
        parts = call(trained, pictures, out, "max_megapixels=0.005", f"format={form}")
        said = capsys.readouterr().out
        assert "4 pictures of more than 0.005 megapixels were done by windows, without overlays" in said
        assert "1 of them have no position on earth" in said
        pd.testing.assert_frame_equal(parts, whole, rtol=1e-4)
        assert {path.name for path in out.rglob("*") if path.is_file() and path.name[0] != "."} == {
            "areas.csv", *(f"{name}.tif" for name in sizes)
        }  # fmt: skip
        for name in sizes:
            made = tifffile.imread(out / "masks" / f"{name}.tif")
            np.testing.assert_array_equal(made, np.asarray(Image.open(tmp_path / "whole" / "masks" / f"{name}.png")))
            tags = [read_geo_tags(path, name) for path in (pictures / f"{name}.tif", out / "masks" / f"{name}.tif")]
            assert tags[0] == tags[1]
            assert len(tags[0]) == (0 if name == "b" else 2)
    assert len(np.unique(made)) > 1


def test_numbers_of_16_bits_and_pixels_without_measurement(trained: Path, tmp_path: Path) -> None:
    """The range and the brightest number are those of the whole scene; nodata is 255 in the map."""
    (tmp_path / "pictures").mkdir()
    pixels = pixels_of(200, 300).astype(np.uint16) * 257
    pixels[:90] = pixels[:90] // 200  # a dark part is dark, and no picture of 8 bits
    pixels[150:, 200:] = 7
    tifffile.imwrite(
        tmp_path / "pictures" / "a.tif", pixels, photometric="rgb", extratags=[(42113, "s", 2, "7", True)], **TILES
    )
    call(trained, tmp_path / "pictures", tmp_path / "whole", "format=geotiff")
    call(trained, tmp_path / "pictures", tmp_path / "parts", "max_megapixels=0.01")
    whole, parts = (tifffile.imread(tmp_path / out / "masks" / "a.tif") for out in ("whole", "parts"))
    np.testing.assert_array_equal(parts, whole)
    assert (parts[150:, 200:] == 255).all()
    assert (parts == 255).sum() == 50 * 100


def test_what_a_scene_does_not_go_with_is_told_and_the_rest_is_done(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    tifffile.imwrite(tmp_path / "pictures" / "a.tif", pixels_of(200, 300), photometric="rgb", **TILES)
    tifffile.imwrite(tmp_path / "pictures" / "turned.tif", pixels_of(200, 300), photometric="rgb",
                     extratags=[(274, "H", 1, 6, True)], **TILES)  # fmt: skip
    Image.fromarray(pixels_of(40, 40)).save(tmp_path / "pictures" / "small.png")
    cases = [
        ([], "max_megapixels=0.01",
         r"2 of 3 .*a.tif` has more than the 0.01 .* Add `inference=sliding_window evaluation_size=source`, or raise"),
        ([*SLIDING, "format=coco"], "max_megapixels=0.01",
         "2 of 3 .*not done with `format=coco`. Set `format=geotiff`"),
        (SLIDING, "max_megapixels=0.01", r"1 of 3 pictures could not .*turned.tif` should be upright"),
        (SLIDING, "max_megapixels=0.003", r"2 of 3 .*a.tif` should be stored in pieces of at most 0.003 megapixels"),
    ]  # fmt: skip
    for number, (words, limit, sentence) in enumerate(cases):
        places = [f"run={trained}", f"input={tmp_path / 'pictures'}", f"output={tmp_path / f'out{number}'}"]
        with pytest.raises(DataError, match=sentence):
            predict(composed([*places, *words, limit], "predict"))
        assert "small" in (tmp_path / f"out{number}" / "areas.csv").read_text()


def test_a_full_disk_leaves_nothing(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pictures").mkdir()
    tifffile.imwrite(tmp_path / "pictures" / "a.tif", pixels_of(200, 300), photometric="rgb", **TILES)

    def full(*arguments: Any) -> None:
        write_scene(*arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scenes, "write_scene", full)
    with pytest.raises(OSError, match="No space left"):
        call(trained, tmp_path / "pictures", tmp_path / "out", "max_megapixels=0.01")
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").rglob("*.tif"))
    assert [path.name for path in tmp_path.iterdir() if path.name != "out"] == ["pictures"]


def test_peak_memory_of_writing_is_that_of_a_row_of_tiles(tmp_path: Path) -> None:
    """A map of 144 MB."""
    program = """
import resource, sys, pathlib
import numpy as np
from hsl.data.writers.geotiff_masks import write_scene
rows = lambda first, end: np.zeros((end - first, 12000), np.uint8)
write_scene(pathlib.Path(sys.argv[1]) / "small.tif", (256, 12000), rows, [])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_scene(pathlib.Path(sys.argv[1]) / "a.tif", (12000, 12000), rows, [])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < 60_000, f"{grown} kB"
