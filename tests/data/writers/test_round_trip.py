"""A class map, the file of a tool, and the reader of that tool: the same class map."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy import ndimage

from hsl.data.files.decoding import Decoding
from hsl.data.formats.coco import read_coco
from hsl.data.formats.cvat import read_cvat
from hsl.data.formats.label_studio import read_label_studio
from hsl.data.formats.labelme import read_labelme
from hsl.data.formats.yolo import read_yolo
from hsl.data.writers.coco_json import CocoFile
from hsl.data.writers.cvat_xml import CvatFile
from hsl.data.writers.label_studio_json import LabelStudioFile
from hsl.data.writers.labelme_json import LabelmeFiles
from hsl.data.writers.regions import Segmented
from hsl.data.writers.yolo_text import YoloFiles

CLASSES = ("background", "crack", "Größe 2", "stain")


def drawn(seed: int) -> np.ndarray:
    """Noise of all scales: holes in holes, single pixels, diagonals."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(30, 60, 2)
    rough, smooth = (ndimage.gaussian_filter(rng.random((height, width)), sigma) for sigma in (0.6, 3))
    rough[:, width // 2 :] = smooth[:, width // 2 :]
    mask = np.digitize(rough, np.quantile(rough, [0.4, 0.6, 0.8])).astype(np.uint8)
    np.fill_diagonal(mask, 3)
    return mask


def accepted(root: Path) -> None:
    """What Label Studio exports once somebody has submitted the predictions as they are."""
    path = root / "label_studio.json"
    tasks = json.loads(path.read_text(encoding="utf8"))
    for task in tasks:
        task["annotations"] = task.pop("predictions")
    path.write_text(json.dumps(tasks))


def untouched(root: Path) -> None:
    """The file comes back as it is."""


@pytest.mark.parametrize(
    ("writer", "read", "tool"),
    [
        (lambda root: LabelmeFiles(root, CLASSES, root), read_labelme, untouched),
        (lambda root: CocoFile(root, CLASSES), read_coco, untouched),
        (lambda root: CvatFile(root, CLASSES), read_cvat, untouched),
        (lambda root: LabelStudioFile(root, CLASSES), read_label_studio, accepted),
        (lambda root: YoloFiles(root, CLASSES), read_yolo, untouched),
    ],
    ids=["labelme", "coco", "cvat", "label_studio", "yolo"],
)
def test_a_prediction_comes_back_as_a_label(
    writer: Callable[[Path], Any], read: Callable[[Path], Any], tool: Callable[[Path], None], tmp_path: Path
) -> None:
    maps = {f"p{seed}": drawn(seed) for seed in range(4)}
    written = writer(tmp_path)
    (tmp_path / "images").mkdir()
    for name, mask in maps.items():
        picture = tmp_path / "images" / f"{name}.png"
        cv2.imwrite(str(picture), np.zeros((*mask.shape, 3), np.uint8))
        written.add(Segmented(name, picture, [mask]))
    written.close()
    tool(tmp_path)
    catalogue = read(tmp_path)
    assert sorted(catalogue.classes) == sorted(CLASSES)
    numbers = np.array([CLASSES.index(name) for name in catalogue.classes])
    decoding = Decoding.of(catalogue)
    again = {record.id.split("/")[-1]: numbers[decoding.mask(record.mask)] for record in catalogue.records}
    assert len(again) == len(maps)
    for (name, mask), (other, found) in zip(maps.items(), sorted(again.items()), strict=True):
        assert other.endswith(name)
        np.testing.assert_array_equal(found, mask)
