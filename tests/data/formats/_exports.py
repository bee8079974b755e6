"""Tiny exports of annotation tools, all of the same drawn scenes, and the masks that they should become."""

import base64
import json
import zlib
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


def yolo(root: Path, drawn: list[Scene]) -> None:
    """As Ultralytics reads it: ``images/train``, ``labels/train``; a picture without an object has no text file."""
    for scene in drawn:
        save(scene.image, root / "images" / scene.split / f"{scene.name}.png")
        rows = [
            f"{LABELS.index(label)} {' '.join(f'{share:.9f}' for share in (ring / (WIDTH, HEIGHT)).ravel())}"
            for label, ring in scene.objects[::-1]
        ]
        if rows:
            path = root / "labels" / scene.split / f"{scene.name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(rows) + "\n", encoding="utf8")
    names = "".join(f"  {number}: {label}\n" for number, label in enumerate(LABELS))
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}", encoding="utf8")


def cvat(root: Path, drawn: list[Scene]) -> None:
    """CVAT for images 1.1: the hole comes first in the file, and lies above by its ``z_order``."""
    labels = "".join(f"<label><name>{label}</name><color>#ff0000</color></label>" for label in LABELS)
    images = []
    for number, scene in enumerate(drawn):
        save(scene.image, root / "images" / f"{scene.name}.png")
        shapes = "".join(
            f'<polygon label="{label}" source="manual" occluded="0" z_order="{LABELS.index(label)}" points="'
            f'{";".join(f"{x:.3f},{y:.3f}" for x, y in ring.tolist())}"></polygon>'
            for label, ring in scene.objects[::-1]
        )
        images.append(
            f'<image id="{number}" name="{scene.name}.png" width="{WIDTH}" height="{HEIGHT}" '
            f'subset="{scene.split}">{shapes}</image>'
        )
    head = f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><labels>{labels}'
    content = f"{head}</labels></task></meta>{''.join(images)}</annotations>"
    (root / "annotations.xml").write_text(content, encoding="utf8")


def voc(root: Path, drawn: list[Scene]) -> None:
    """Segmentation mask 1.1 of CVAT: colours, a map of objects, lists of the parts."""
    colours = np.array([COLOURS[name] for name in CLASSES], np.uint8)
    for scene in drawn:
        save(scene.image, root / "JPEGImages" / f"{scene.name}.png")
        save(colours[scene.mask()], root / "SegmentationClass" / f"{scene.name}.png")
        save(colours[scene.mask()][..., ::-1], root / "SegmentationObject" / f"{scene.name}.png")
    table = "".join(f"{name}:{','.join(map(str, colour))}::\n" for name, colour in COLOURS.items())
    (root / "labelmap.txt").write_text(f"# label:color_rgb:parts:actions\n{table}", encoding="utf8")
    for part in ("train", "val"):
        path = root / "ImageSets" / "Segmentation" / f"{part}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{scene.name}\n" for scene in drawn if scene.split == part), encoding="utf8")


def label_studio(root: Path, drawn: list[Scene]) -> None:
    """The JSON export: corners in percent, pictures called by what an upload made of their names."""
    tasks: list[dict[str, Any]] = []
    for number, scene in enumerate(drawn, start=1):
        save(scene.image, root / "images" / f"{scene.name}.png")
        result = [
            {
                "type": "polygonlabels", "from_name": "label", "to_name": "image", "image_rotation": 0,
                "original_width": WIDTH, "original_height": HEIGHT,
                "value": {"points": (ring / (WIDTH, HEIGHT) * 100).tolist(), "closed": True, "polygonlabels": [label]},
            }
            for label, ring in scene.objects
        ]  # fmt: skip
        skipped = {"id": 2 * number, "was_cancelled": True, "result": []}
        annotations = [skipped, {"id": 2 * number + 1, "was_cancelled": False, "result": result}]
        image = f"/data/upload/3/0a1b2c3d-{scene.name}.png"
        tasks.append({"id": number, "data": {"image": image}, "annotations": annotations, "predictions": []})
    dump(tasks, root / "project-1.json")


def cityscapes(root: Path, drawn: list[Scene]) -> None:
    """Two cities; numbers of classes as Cityscapes would have them, named by ``classes.json``."""
    numbers = {"crack": 7, "hole": 26}
    table = np.array([0, *numbers.values()], np.uint8)
    for scene in drawn:
        city = {"train": "bonn", "val": "jena"}[scene.split]
        save(scene.image, root / "leftImg8bit" / scene.split / city / f"{scene.name}_leftImg8bit.png")
        folder = root / "gtFine" / scene.split / city
        save(table[scene.mask()], folder / f"{scene.name}_gtFine_labelIds.png")
        objects = table[scene.mask()].astype(np.uint16) * 1000
        save(objects, folder / f"{scene.name}_gtFine_instanceIds.png")
        save(
            np.array([COLOURS[name] for name in CLASSES], np.uint8)[scene.mask()],
            folder / f"{scene.name}_gtFine_color.png",
        )
    dump(numbers, root / "classes.json")


def supervisely(root: Path, drawn: list[Scene]) -> None:
    """A project of two data sets; cracks are polygons, holes bitmaps."""
    types = [{"title": label, "shape": "any", "color": "#FF0000", "id": i} for i, label in enumerate(LABELS)]
    dump({"classes": types, "tags": [], "projectType": "images"}, root / "meta.json")
    for scene in drawn:
        objects = []
        for label, ring in scene.objects:
            kind = {"classTitle": label, "geometryType": "polygon" if label == "crack" else "bitmap", "tags": []}
            if label == "crack":
                objects.append(kind | {"points": {"exterior": ring.tolist(), "interior": []}})
                continue
            rows, columns = np.nonzero(inside(ring))
            part = inside(ring)[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            buffer = BytesIO()
            Image.fromarray(part.astype(np.uint8) * 255).save(buffer, "PNG")
            data = base64.b64encode(zlib.compress(buffer.getvalue())).decode()
            objects.append(kind | {"bitmap": {"data": data, "origin": [int(columns.min()), int(rows.min())]}})
        content = {"description": "", "tags": [], "size": {"height": HEIGHT, "width": WIDTH}, "objects": objects}
        dump(content, root / scene.split / "ann" / f"{scene.name}.png.json")
        save(scene.image, root / scene.split / "img" / f"{scene.name}.png")


EXPORTS: dict[str, Callable[[Path, list[Scene]], None]] = {
    "labelme": labelme, "coco": coco, "yolo": yolo, "cvat": cvat, "voc": voc, "label_studio": label_studio,
    "cityscapes": cityscapes, "supervisely": supervisely,
}  # fmt: skip
"""Each writes a data set of its format; the name is the word on the command line."""
