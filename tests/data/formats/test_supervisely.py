import base64
import json
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tests.data.formats._exports import dump, save
from tests.data.formats._read import mask_of, message, read

HEIGHT, WIDTH = 40, 50


def packed(pixels: np.ndarray) -> str:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(zlib.compress(buffer.getvalue())).decode()


def project(root: Path, *objects: Any, name: str = "a.jpg.json", **changed: Any) -> Path:
    save(np.zeros((HEIGHT, WIDTH, 3), np.uint8), root / "ds 0" / "img" / "a.jpg")
    content = {"tags": [], "size": {"height": HEIGHT, "width": WIDTH}, "objects": list(objects)} | changed
    dump(content, root / "ds 0" / "ann" / name)
    return root


def polygon(exterior: Any, *interior: Any, label: Any = "leaf", kind: Any = "polygon") -> dict[str, Any]:
    return {"classTitle": label, "geometryType": kind, "points": {"exterior": exterior, "interior": list(interior)}}


def bitmap(pixels: np.ndarray, x: int, y: int, **changed: Any) -> dict[str, Any]:
    held = {"data": packed(pixels), "origin": [x, y]} | changed
    return {"classTitle": "spot", "geometryType": "bitmap", "bitmap": held}


def test_holes_and_bitmaps_at_any_place_equal_a_decoding_by_hand(tmp_path: Path) -> None:
    """Holes, bitmaps of one channel and of alpha, beyond the edge, without a kind; the last one covers."""
    rng = np.random.default_rng(0)
    parts = [(rng.random((12, 9)) > 0.5, 3, 2), (rng.random((10, 14)) > 0.3, 44, 34),
             (rng.random((6, 6)) > 0.4, -2, -3)]  # fmt: skip
    alpha = np.zeros((*parts[1][0].shape, 4), np.uint8)
    alpha[..., 3] = parts[1][0] * 200  # what is drawn is black, and shown by its alpha alone
    old = bitmap(parts[2][0], *parts[2][1:])
    del old["geometryType"]
    shapes = [polygon([[5, 5], [45, 5], [45, 35], [5, 35]], [[10, 10], [20, 10], [20, 20], [10, 20]]),
              bitmap(parts[0][0].astype(np.uint8), *parts[0][1:]), bitmap(alpha, *parts[1][1:]), old]  # fmt: skip
    wanted = np.zeros((HEIGHT + 20, WIDTH + 20), np.uint8)
    wanted[10 + 5 : 10 + 35, 10 + 5 : 10 + 45] = 1
    wanted[10 + 10 : 10 + 20, 10 + 10 : 10 + 20] = 0
    for entry, (_, x, y) in zip(shapes[1:], parts, strict=True):
        png = cv2.imdecode(np.frombuffer(zlib.decompress(base64.b64decode(entry["bitmap"]["data"])), np.uint8), -1)
        there = png if png.ndim == 2 else png[..., 3]
        wanted[10 + y : 10 + y + len(there), 10 + x : 10 + x + there.shape[1]][there > 0] = 2
    root = project(tmp_path, *shapes)
    dump({"classes": [{"title": "leaf"}, {"title": "spot"}, {"title": "never"}], "projectType": "images"},
         root / "meta.json")  # fmt: skip
    catalogue = read("supervisely", root)
    assert catalogue.classes == ("background", "leaf", "spot")
    np.testing.assert_array_equal(mask_of(catalogue), wanted[10 : 10 + HEIGHT, 10 : 10 + WIDTH])
    told = " ".join(catalogue.not_read)
    assert "2 regions reach beyond their picture" in told
    assert "labels without a region that counts are no classes: never" in told


def test_the_order_of_classes_is_that_of_the_project_and_old_names_are_understood(tmp_path: Path) -> None:
    root = project(tmp_path, polygon([[1, 1], [9, 1], [9, 9]]), polygon([[20, 20], [30, 20], [30, 30]], label="bud"),
                   name="a.json")  # fmt: skip
    assert read("supervisely", root).classes == ("background", "bud", "leaf")
    dump({"classes": [{"title": "leaf"}, {"title": "bud"}]}, root / "meta.json")
    catalogue = read("supervisely", root)
    assert catalogue.classes == ("background", "leaf", "bud")
    assert [record.id for record in catalogue.records] == ["a"]


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    good = np.ones((3, 3), np.uint8)
    faults = {
        "an object should be a map": 7,
        "`classTitle` should be a name": polygon([[1, 1], [9, 1], [9, 9]], label=None),
        "`geometryType` should be polygon": polygon([[1, 1]], kind="cuboid"),
        "corners should be a list": polygon("here"),
        "should have `data` and `origin`": {"classTitle": "x", "geometryType": "bitmap", "bitmap": None},
        "base64 of packed bytes": bitmap(good, 0, 0, data="####"),
        "packed bytes, found others": bitmap(good, 0, 0, data=base64.b64encode(b"no").decode()),
        "is not a picture": bitmap(good, 0, 0, data=base64.b64encode(zlib.compress(b"no")).decode()),
        "corners should be": bitmap(good, 0, 0, origin="0,0"),
    }
    for said, fault in faults.items():
        text = message("supervisely", project(tmp_path, fault))
        assert said in text, text
        assert "a.jpg.json, object 1" in text
    text = message("supervisely", project(tmp_path, *faults.values()))
    assert "9 cannot be read" in text
    dump({"classes": [], "projectType": "videos"}, tmp_path / "meta.json")
    assert "should be of a project of images. Found" in message("supervisely", tmp_path)
    (tmp_path / "ds 0" / "ann" / "a.jpg.json").write_text("{")
    assert "a.jpg.json" in message("supervisely", tmp_path)
    boxes = project(tmp_path / "boxes", polygon([[1, 1], [9, 9]], kind="rectangle"))
    assert "`data.reader.boxes=fill`" in message("supervisely", boxes)
    assert mask_of(read("supervisely", boxes, boxes="fill")).sum() == 64
    assert json.loads((boxes / "ds 0" / "ann" / "a.jpg.json").read_text())["objects"]
