import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile

from hsl.data.files.decode_masks import decode_mask
from hsl.data.files.decoding import Decoding
from hsl.data.files.scan import scan
from hsl.data.formats.folder import read_folder
from hsl.data.formats.geotiff import read_geotiff
from hsl.data.patches import export as patch_export
from hsl.data.patches import windows
from hsl.data.patches.export import PatchSet, write_patch_set
from hsl.data.patches.patch_sampling import PatchSampling
from hsl.data.splits.folds import kfold
from hsl.errors import DataError
from hsl.files.output_folder import MARKER, OutputFolder

SAMPLING = PatchSampling(size=24, min_distance=15, foreground=["crack"], renew="epoch", max_per_picture=None)
CLASSES = ("clean", "crack", "stain")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(6):
        shape = (70 + 4 * number, 90) if number else (20, 30)
        mask = np.zeros(shape, np.uint8)
        mask[:40, 5:70] = 1
        mask[-6:] = 2
        mask[:2] = 255
        image = np.random.default_rng(number).integers(0, 255, (*shape, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"images/p{number}.png"), image)
        cv2.imwrite(str(folder / f"masks/p{number}.png"), mask)
    (folder / "labels.csv").write_text("id,group,site\n" + "".join(f"p{n},g{n // 2},s{n}\n" for n in range(6)))
    (folder / "splits.csv").write_text(
        "id,split\n" + "".join(f"p{n},{'val' if n > 3 else 'train'}\n" for n in range(6))
    )
    (folder / "dataset.yaml").write_text("classes: [clean, crack, stain]\n")
    return folder


def no_plot(counts: Any, classes: Any, path: Path) -> None:
    path.write_bytes(b"plot")


def write(root: Path, output: Path, sampling: PatchSampling = SAMPLING, **changed: Any) -> PatchSet:
    given: dict[str, Any] = {"groups": "group", "seed": 0, "workers": 1, "plot": no_plot}
    with OutputFolder(output, "patches") as folder:
        return write_patch_set(read_folder(root), sampling, folder.work, **(given | changed))


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MARKER]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_patches_of_named_channels(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TIFFs of 8 bits that say what the source says, by windows too; pixels without measurement are 255."""
    page = (
        "classes: [clean, crack, stain]\nshown: [e, a, b]\nbands: {a: [0, 3000], b: null, c: null, d: null, e: null}\n"
    )
    (root / "dataset.yaml").write_text(page + "value_range: [0, 4000]\n")
    for path in sorted((root / "images").iterdir()):
        height, width = cv2.imread(str(path)).shape[:2]
        pixels = np.random.default_rng(height).integers(1, 5000, (height, width, 5), dtype=np.uint16)
        pixels[10:20, 10:20] = 0
        tifffile.imwrite(path.with_suffix(".tif"), pixels, photometric="minisblack", planarconfig="contig",
                         tile=(32, 32), compression="zlib", extratags=[(42113, "s", 2, "0", True)])  # fmt: skip
        path.unlink()
    with OutputFolder(tmp_path / "whole", "patches") as folder:
        write_patch_set(read_geotiff(root), SAMPLING, folder.work, groups=None, seed=0, workers=1, plot=no_plot)
    made, source = read_folder(tmp_path / "whole"), read_geotiff(root)
    assert made.bands is not None
    assert source.bands is not None
    assert (made.bands.names, made.bands.shown, made.bands.ranges) == (source.bands.names, (4, 0, 1), (None,) * 5)
    whole = {record.id: Decoding.of(source)(record) for record in source.records}
    rows = pd.read_csv(tmp_path / "whole" / "labels.csv").set_index("id")
    for record in made.records:
        row, patch = rows.loc[record.id], Decoding.of(made)(record)
        there = whole[row["source"]].image[row.y : row.y + 24, row.x : row.x + 24]
        np.testing.assert_array_equal(patch.image[: there.shape[0], : there.shape[1]], there)
        mask = whole[row["source"]].mask
        assert mask is not None
        assert patch.mask is not None
        part = mask[row.y : row.y + 24, row.x : row.x + 24]
        np.testing.assert_array_equal(patch.mask[: part.shape[0], : part.shape[1]], part)
        assert (mask[10:20, 10:20] == 255).all()
    monkeypatch.setattr(windows, "LARGE", 1)
    monkeypatch.setattr(patch_export, "LARGE", 1)
    with OutputFolder(tmp_path / "windows", "patches") as folder:
        write_patch_set(read_geotiff(root), SAMPLING, folder.work, groups=None, seed=0, workers=1, plot=no_plot)
    assert contents(tmp_path / "windows") == contents(tmp_path / "whole")


def test_patches_are_a_folder_data_set(root: Path, tmp_path: Path) -> None:
    result = write(root, tmp_path / "patches")
    catalogue = read_folder(tmp_path / "patches")
    assert catalogue.classes == CLASSES
    assert len(catalogue.records) == result.summary["patches"] > 20
    sources = {record.id: record for record in read_folder(root).records}
    for record in catalogue.records:
        at = record.attributes
        source = sources[at["source"]]
        assert at["group"] == source.attributes["group"]
        assert at["site"] == source.attributes["site"]
        assert record.split == source.split
        y, x = int(at["y"]), int(at["x"])
        for kind in ("images", "masks"):
            whole = cv2.imread(str(root / kind / f"{source.id}.png"), cv2.IMREAD_UNCHANGED)
            part = cv2.imread(str(tmp_path / "patches" / kind / f"{record.id}.png"), cv2.IMREAD_UNCHANGED)
            assert part.shape[:2] == (24, 24)
            expected = whole[y : y + 24, x : x + 24]
            np.testing.assert_array_equal(part[: expected.shape[0], : expected.shape[1]], expected)
    assert not list(tmp_path.glob(".patches*")), "no temporary folder is left"


def test_statistics(root: Path, tmp_path: Path) -> None:
    result = write(root, tmp_path / "patches")
    masks = {part: [cv2.imread(str(path), -1) for path in sorted((folder / "masks").iterdir())]
             for part, folder in (("before", root), ("after", tmp_path / "patches"))}  # fmt: skip
    for part, found in masks.items():
        counts = sum(np.bincount(mask.ravel(), minlength=256) for mask in found)[:3]
        assert result.classes[f"pixels_{part}"].tolist() == counts.tolist()
    assert result.summary["pictures"] == 6
    assert result.summary["distance_min"] >= 15
    assert 0.9 < result.summary["coverage"] <= 1
    stored = tmp_path / "patches" / "statistics"
    pd.testing.assert_frame_equal(pd.read_csv(stored / "class_shares.csv"), result.classes)
    assert (stored / "class_shares.png").read_bytes() == b"plot"
    assert pd.read_csv(stored / "pictures.csv")["patches"].sum() == result.summary["patches"]


def test_workers_change_nothing(root: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        write(root, tmp_path / f"w{workers}", workers=workers)
    assert contents(tmp_path / "w1") == contents(tmp_path / "w2")


def test_seed_decides(root: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write(root, tmp_path / name, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") != contents(tmp_path / "c")


def test_folds_of_the_patches_keep_pictures_whole(root: Path, tmp_path: Path) -> None:
    write(root, tmp_path / "patches")
    catalogue = read_folder(tmp_path / "patches")
    split = kfold(
        catalogue, scan(catalogue, None, 1),
        num_folds=2, groups="group", stratify=None, test_from="fraction", test_fraction=0.0, seed=0,
    )  # fmt: skip
    source = {record.id: record.attributes["source"] for record in catalogue.records}
    for fold in split.folds:
        assert not {source[name] for name in fold.train} & {source[name] for name in fold.val}


def test_each_picture_its_own_group(root: Path, tmp_path: Path) -> None:
    write(root, tmp_path / "patches", groups=None)
    assert all(r.attributes["group"] == r.attributes["source"] for r in read_folder(tmp_path / "patches").records)
    with pytest.raises(DataError, match="should have the attribute `reef`"):
        write(root, tmp_path / "more", groups="reef")


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_half_written(root: Path, tmp_path: Path, workers: int) -> None:
    (root / "images/p3.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    with pytest.raises(DataError, match=r"p3\.png"):
        write(root, tmp_path / "sub" / "patches", workers=workers)
    assert not list((tmp_path / "sub").iterdir())


def test_pictures_without_foreground(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shape = cv2.imread(str(root / "masks/p2.png"), -1).shape
    cv2.imwrite(str(root / "masks/p2.png"), np.full(shape, 255, np.uint8))
    with caplog.at_level(logging.WARNING):
        result = write(root, tmp_path / "patches")
    assert "Pictures without foreground give no patch: p2." in caplog.text
    assert result.summary["pictures_without_patch"] == 1
    for path in (root / "masks").iterdir():
        cv2.imwrite(str(path), np.zeros_like(cv2.imread(str(path), -1)))
    with pytest.raises(DataError, match="None of 6 does"):
        write(root, tmp_path / "none")


def test_mask_that_does_not_fit(root: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(root / "masks/p2.png"), np.ones((5, 5), np.uint8))
    with pytest.raises(DataError, match="should be of one size"):
        write(root, tmp_path / "patches")
    cv2.imwrite(str(root / "masks/p2.png"), np.full(cv2.imread(str(root / "images/p2.png")).shape[:2], 3, np.uint8))
    with pytest.raises(DataError, match=r"The mask of `p2` should hold indices of the 3 classes\. Found 3"):
        write(root, tmp_path / "patches")


def test_large_pictures_give_the_same(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("images", "masks"):
        for path in list((root / kind).iterdir()):
            pixels = cv2.imread(str(path), -1)
            photometric = "rgb" if pixels.ndim == 3 else "minisblack"
            pixels = pixels[..., ::-1] if pixels.ndim == 3 else pixels
            tifffile.imwrite(
                path.with_suffix(".tif"), pixels, tile=(32, 32), compression="zlib", photometric=photometric
            )
            path.unlink()
    write(root, tmp_path / "whole")
    monkeypatch.setattr(windows, "LARGE", 1)
    monkeypatch.setattr(patch_export, "LARGE", 1)
    monkeypatch.setattr(patch_export, "STRIP", 17)
    write(root, tmp_path / "windows")
    assert contents(tmp_path / "whole") == contents(tmp_path / "windows")


@pytest.mark.slow
def test_peak_memory_of_a_large_picture(tmp_path: Path) -> None:
    """A picture of 108 MB with its mask of 36 MB, in tiles."""
    root = tmp_path / "large"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    side = 6144
    mask = np.ones((side, side), np.uint8)
    tifffile.imwrite(root / "masks/a.tif", mask, tile=(256, 256), compression="zlib")
    image = np.zeros((side, side, 3), np.uint8)
    tifffile.imwrite(root / "images/a.tif", image, tile=(256, 256), compression="zlib", photometric="rgb")
    (root / "dataset.yaml").write_text("classes: [clean, crack]\n")
    program = """
import sys, pathlib, tracemalloc
from hsl.data.patches import export as patch_export
from hsl.data.patches import windows
from hsl.data.formats.folder import read_folder
from hsl.data.patches.patch_sampling import PatchSampling
windows.LARGE = patch_export.LARGE = 1
sampling = PatchSampling(256, 1500, None, "fixed", None)
tracemalloc.start()
patch_export.write_patch_set(read_folder(sys.argv[1]), sampling, pathlib.Path(sys.argv[2]),
                             groups=None, seed=0, workers=1, plot=lambda *_: None)
print(tracemalloc.get_traced_memory()[1])
"""
    command = [sys.executable, "-c", program, str(root), str(tmp_path / "patches")]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert len(list((tmp_path / "patches/images").iterdir())) > 8
    assert peak < 0.35 * image.nbytes, f"{peak / 1e6:.0f} MB"
    assert decode_mask((next((tmp_path / "patches/masks").iterdir())).read_bytes(), "a").all()
