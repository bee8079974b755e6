import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from hsl.data.files.records import Catalogue
from hsl.data.formats.artefact import read_artefact
from hsl.data.formats.channels import read_channels
from hsl.data.formats.coco import read_coco
from hsl.data.formats.coralscapes import read_coralscapes
from hsl.data.formats.cvat import read_cvat
from hsl.data.formats.folder import read_folder
from hsl.data.formats.geotiff import read_geotiff
from hsl.data.formats.mask_guess import guess
from hsl.data.formats.patterns import list_files
from hsl.data.formats.placement import placements, unclear
from hsl.data.formats.recognise import looks_like, recognise
from hsl.data.formats.severstal import read_severstal
from hsl.data.formats.supervisely import read_supervisely
from hsl.data.formats.voc import read_voc
from hsl.data.formats.yolo import read_yolo
from hsl.errors import DataError


def lay(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


LABELME = json.dumps(
    {"version": "5", "flags": {}, "shapes": [], "imagePath": "a.jpg", "imageHeight": 4, "imageWidth": 4}
)
COCO = json.dumps({"info": {}, "images": [], "annotations": [], "categories": []})
FOLDERS = {
    "labelme": {"a.jpg": "", "a.json": LABELME},
    "coco": {"train/a.jpg": "", "annotations/instances_train.json": COCO},
    "label_studio": {"a.jpg": "", "export.json": json.dumps([{"id": 1, "annotations": [], "data": {}}])},
    "cvat": {"images/a.jpg": "", "annotations.xml": "<?xml version='1.0'?>\n<annotations><version>1.1</version>"},
    "yolo": {"images/a.jpg": "", "labels/a.txt": "0 0.1 0.2 0.3 0.4 0.5 0.6\n"},
    "supervisely": {"meta.json": "{}", "ds/img/a.jpg": "", "ds/ann/a.jpg.json": json.dumps({"objects": []})},
    "voc": {"JPEGImages/a.jpg": "", "SegmentationClass/a.png": "", "ImageSets/Segmentation/train.txt": "a"},
    "cityscapes": {"leftImg8bit/train/x/a_leftImg8bit.png": "", "gtFine/train/x/a_gtFine_labelIds.png": ""},
    "coralscapes": {"leftImg8bit/train/x/a_leftImg8bit.png": "", "gtFine/train/x/a_gtFine.png": ""},
    "severstal": {"train.csv": "ImageId", "train_images/a.jpg": ""},
    "hf": {"data/train-0.parquet": ""},
    "channels": {"dataset.yaml": "channels: [a, b]", "images/a.png": "", "masks/a.png": ""},
    "folder": {"imgs/a.jpg": "", "gt/a_mask.png": ""},
}


READERS = [read_voc, read_channels, read_severstal, read_coco, read_yolo, read_cvat, read_artefact, read_coralscapes,
           read_supervisely]  # fmt: skip


@pytest.mark.parametrize("option", FOLDERS)
def test_each_kind_of_folder_is_recognised(tmp_path: Path, option: str) -> None:
    sights = recognise(lay(tmp_path, FOLDERS[option]))
    assert sights[0].option == option
    assert "1 picture file" in sights[0].what or option in (
        "cityscapes",
        "coralscapes",
        "channels",
        "folder",
        "voc",
        "hf",
    )
    if option != "folder":
        assert f"`data={option}`" in looks_like(tmp_path, "folder")
        with pytest.raises(DataError, match=f"(?s)This looks like .*`data={option}`"):
            read_folder(tmp_path, images="nowhere/{id}")


@pytest.mark.parametrize("reader", READERS)
def test_each_reader_says_what_lies_there(reader: Callable[..., Catalogue], tmp_path: Path) -> None:
    lay(tmp_path, FOLDERS["labelme"])
    with pytest.raises(DataError, match=r"This looks like LabelMe JSON .*`data=labelme`"):
        reader(tmp_path)


def test_nothing_and_several(tmp_path: Path) -> None:
    assert recognise(tmp_path) == []
    assert looks_like(tmp_path, "folder") == looks_like(tmp_path / "no", "folder") == ""
    lay(tmp_path, FOLDERS["labelme"] | FOLDERS["coco"] | FOLDERS["folder"])
    assert {"labelme", "coco", "folder"} <= {sight.option for sight in recognise(tmp_path)}
    for broken in (b"", b"\xff\xfe{", b"[" * 9999, b"{}"):
        assert recognise(lay(tmp_path / "x", {"a.json": broken, "data.yaml": broken})) == []


@pytest.mark.parametrize(
    ("files", "images", "masks", "pairs"),
    [
        (["train/images/a.jpg", "train/masks/a.png", "val/images/a.jpg", "val/masks/a.png"],
         "{split}/images/{id}.jpg", "{split}/masks/{id}.png", 2),
        (["images/x/1.jpg", "images/y/1.jpg", "masks/x/1.png", "masks/y/1.png"],
         "images/{folder}/{id}.jpg", "masks/{folder}/{id}.png", 2),
        (["a.jpg", "b.jpg", "a_mask.png", "b_mask.png"], "{id}", "{id}_mask.png", 2),
        (["i/a.jpg", "i/b.JPEG", "GT/a_segmentation.png", "GT/b_segmentation.png"],
         "i/{id}.jpg", "GT/{id}_segmentation.png", 2),
        (["images/a.jpg", "images/b.jpg", "masks/x/a.png", "masks/y/a.png", "masks/x/b.png"],
         "images/{id}.jpg", "masks/{class}/{id}.png", 2),
        (["n/images/training/1.jpg", "n/annotations/training/1.png", "n/images/test/2.jpg", "n/annotations/test/2.png"],
         "n/images/{split}/{id}.jpg", "n/annotations/{split}/{id}.png", 2),
        (["images/a.png", "masks/a.mat"], "images/{id}.png", "masks/{id}.mat", 1),
        (["training/images/21_training.tif", "training/mask/21_training_mask.gif", "training/1st_manual/21_manual1.gif",
          "test/images/01_test.tif", "test/mask/01_test_mask.gif", "test/1st_manual/01_manual1.gif"],
         "{split}/images/{id}_*.tif", "{split}/1st_manual/{id}_manual1.gif", 2),
        (["p/s1_view.jpg", "p/s2_view.jpg", "p/s1_label.png", "p/s2_label.png"], "p/{id}_*.jpg", "p/{id}_label.png", 2),
    ],
)  # fmt: skip
def test_patterns_are_guessed_whatever_the_order(files: list[str], images: str, masks: str, pairs: int) -> None:
    for order in (files, files[::-1]):
        found = placements(order)[0]
        assert (found.images, found.masks, found.pairs) == (images, masks, pairs)
    assert placements(["images/a.jpg", "more/b.png"]) == []


def test_a_part_of_a_name_that_fits_several_pictures_is_no_id() -> None:
    files = ["i/21_left.jpg", "i/21_right.jpg", "m/21_manual1.gif"]
    assert placements(files) == []
    assert "pictures `i/{id}_*.jpg`, but that fits several of one id, as `i/21_left.jpg` and `i/21_ri" in unclear(files)
    assert unclear(["i/21_left.jpg", "i/22_left.jpg"]) == unclear([]) == ""


def test_what_nearly_fits_is_said() -> None:
    """Folders without a word for masks, in any script; upper and lower case."""
    for one, other in (("A", "B"), ("写真", "マスク"), ("マスク", "写真")):
        said = unclear([f"{one}/ひび 1.jpg", f"{one}/b.jpg", f"{other}/ひび 1.png", f"{other}/b.png"])
        assert f"'data.reader.images={one}/{{id}}.jpg' 'data.reader.masks={other}/{{id}}" in said
    said = unclear(["images/a.JPG", "images/b.JPG", "masks/A.PNG", "masks/B.PNG"])
    assert "differ in upper and lower case, as `images/a.JPG` and `masks/A.PNG`. Rename" in said
    assert unclear(["images/a.jpg", "masks/b.png", "more/c.png"]) == ""
    (alone, *_) = placements(["a.png", "b.png", "c.png", "a_label.png", "b_label.png"])
    assert (alone.pairs, alone.num_images) == (2, 3)


def test_tiffs_that_know_their_place_are_geotiff(tmp_path: Path) -> None:
    place = [(33550, "d", 3, (0.5, 0.5, 0.0), True)]
    for folder in ("scenes", "truth"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            tifffile.imwrite(tmp_path / folder / f"{name}{'_mask' if folder == 'truth' else ''}.tif",
                             np.zeros((4, 4), np.uint8), extratags=place if folder == "scenes" else [])  # fmt: skip
    (one, *_) = recognise(tmp_path)
    assert (one.option, one.what) == ("geotiff", "GeoTIFF, masks for 2 of 4 picture files")
    assert one.placement is not None
    read = read_geotiff(tmp_path, images=one.placement.images, masks=one.placement.masks, classes=["ground", "road"])
    assert [record.id for record in read.records] == ["a", "b"]
    (tmp_path / "scenes").rename(tmp_path / "images")
    (tmp_path / "truth").rename(tmp_path / "masks")
    (tmp_path / "dataset.yaml").write_text("classes: [ground, road]")
    assert recognise(tmp_path)[0].option == "geotiff"
    for path in (tmp_path / "images").iterdir():
        tifffile.imwrite(path, np.zeros((4, 4), np.uint8))
    assert recognise(tmp_path)[0].option == "folder"


@pytest.mark.parametrize(
    ("array", "settings"),
    [
        (np.array([[0, 255]]), {"classes": ["background", "foreground"],
                                "values": {0: "background", 255: "foreground"}}),
        (np.array([[0, 1, 2, 255]]), {"classes": ["background", "class_1", "class_2"]}),
        (np.array([[7, 90, 200]]), {"classes": ["background", "class_1", "class_2"],
                                    "values": {7: "background", 90: "class_1", 200: "class_2"}}),
        (np.array([[[0, 0, 0], [9, 0, 0]]]), {"classes": ["background", "foreground"],
                                              "palette": {"background": [0, 0, 0], "foreground": [9, 0, 0]}}),
        (np.arange(200)[None], {"classes": ["background", "foreground"],
                                "values": {0: "background", 255: "foreground"}, "nearest": True}),
    ],
)  # fmt: skip
def test_what_masks_hold_is_guessed_and_reads_them(tmp_path: Path, array: np.ndarray, settings: dict) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.fromarray(array.astype(np.uint8)).save(tmp_path / folder / "a.png")
    found = guess([tmp_path / "masks" / "a.png"])
    assert found.settings == settings
    assert read_folder(tmp_path, **found.settings).classes == tuple(settings["classes"])
    (tmp_path / "masks" / "a.png").write_bytes(b"")
    assert guess([tmp_path / "masks" / "a.png"]).unread


@pytest.mark.skipif(sys.platform != "linux", reason="measured on Linux")
def test_many_files_take_one_pass(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for i in range(2000):
            (tmp_path / folder / f"{i}.png").touch()
    start = time.perf_counter()
    listing = list_files(tmp_path)
    assert recognise(tmp_path, listing)[0].placement is not None
    assert time.perf_counter() - start < 5
