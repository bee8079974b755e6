"""Tiny exports of annotation tools, all of the same drawn scenes, and the masks that they should become."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.path import Path as Outline
from PIL import Image

HEIGHT, WIDTH = 48, 64
LABELS = ("crack", "hole")
CLASSES = ("background", *LABELS)
COLOURS = {"background": (0, 0, 0), "crack": (250, 50, 83), "hole": (51, 221, 255)}


@dataclass(frozen=True)
class Scene:
    """A picture and its objects, the larger first: label and corners."""

    name: str
    split: str
    image: np.ndarray
    objects: tuple[tuple[str, np.ndarray], ...]

    def mask(self, labels: tuple[str, ...] = LABELS) -> np.ndarray:
        """What should be read: a later object covers an earlier one."""
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        for label, ring in self.objects:
            mask[inside(ring)] = labels.index(label) + 1
        return mask


def inside(ring: np.ndarray) -> np.ndarray:
    """The pixels whose centre lies in a polygon, as Matplotlib has it; no centre lies on an edge of these."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    points = np.stack([columns.ravel(), rows.ravel()], axis=1)
    return Outline(ring).contains_points(points).reshape(HEIGHT, WIDTH)


def scenes(number: int = 6) -> list[Scene]:
    """Each with a large crack and a small hole that lies in part on it; the last has no object."""
    made = []
    for i in range(number):
        rng = np.random.default_rng(i)
        x, y = rng.integers(8, 30), rng.integers(8, 20)
        crack = np.array([(x, y), (x + 26, y + 3), (x + 20, y + 18), (x + 2, y + 14)]) + 0.25
        hole = np.array([(x + 9, y - 4), (x + 17, y - 4), (x + 17, y + 6), (x + 9, y + 6)]) + 0.125
        objects = (("crack", crack), ("hole", hole)) if i < number - 1 else ()
        image = rng.integers(90, 130, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        for label, ring in objects:
            image[inside(ring)] = np.array(COLOURS[label]) // 2 + rng.integers(0, 40, 3)
        made.append(Scene(f"part{i:02d}", "val" if i % 3 == 2 else "train", image, objects))
    return made


def save(image: np.ndarray, path: Path) -> Path:
    """A picture as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def dump(content: Any, path: Path) -> Path:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf8")
    return path


def labelme(root: Path, drawn: list[Scene]) -> None:
    """JSON beside each picture, which it holds too; paths as Windows writes them."""
    for scene in drawn:
        save(scene.image, root / f"{scene.name}.png")
        shapes = [
            {"label": label, "points": ring.tolist(), "group_id": None, "shape_type": "polygon", "flags": {}}
            for label, ring in scene.objects
        ]
        buffer = BytesIO()
        Image.fromarray(scene.image).save(buffer, "PNG")
        content = {
            "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"..\\photos\\{scene.name}.png",
            "imageData": base64.b64encode(buffer.getvalue()).decode(), "imageHeight": HEIGHT, "imageWidth": WIDTH,
        }  # fmt: skip
        dump(content, root / f"{scene.name}.json")


def coco(root: Path, drawn: list[Scene]) -> None:
    """``annotations/instances_train.json`` and ``_val``, each with its own numbers of categories."""
    for part, categories in (("train", {"crack": 1, "hole": 2}), ("val", {"hole": 7, "crack": 9})):
        inside_part = [scene for scene in drawn if scene.split == part]
        images, objects = [], []
        for number, scene in enumerate(inside_part, start=1):
            save(scene.image, root / part / f"{scene.name}.png")
            images.append({"id": number, "file_name": f"{scene.name}.png", "height": HEIGHT, "width": WIDTH})
            for label, ring in scene.objects[::-1]:
                objects.append(
                    {"id": len(objects) + 1, "image_id": number, "category_id": categories[label], "iscrowd": 0,
                     "segmentation": [ring.ravel().tolist()], "area": float(inside(ring).sum()), "bbox": [0, 0, 1, 1]}
                )  # fmt: skip
        table = [{"id": id_, "name": name, "supercategory": "none"} for name, id_ in categories.items()]
        content = {"info": {}, "licenses": [], "images": images, "annotations": objects, "categories": table}
        dump(content, root / "annotations" / f"instances_{part}.json")


EXPORTS: dict[str, Callable[[Path, list[Scene]], None]] = {"labelme": labelme, "coco": coco}
"""Each writes a data set of its format; the name is the word on the command line."""
