"""Label errors planted in a copy of a data set: objects removed or given another class, masks shifted or swapped."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.files.io import write_atomically

Mask = NDArray[np.uint8]
LEAST_AREA = 30
"""Pixels of an object that may be planted upon: a smaller one is a speck, or the rim of another class."""
SHIFT = (0.05, 0.09)
"""Of the shorter side of a picture."""


@dataclass(frozen=True)
class Plant:
    """One error: what was done to which picture, and where: ``y, x, height, width``, of a whole mask all of it."""

    id: str
    kind: str
    box: tuple[int, int, int, int]
    other: str = ""


def objects_of(mask: Mask, instances: NDArray[np.uint16] | None) -> list[tuple[int, NDArray[np.bool_]]]:
    """Class and pixels of each object: the instances where there are some, else the 8-connected regions of a class."""
    found = []
    for index in range(1, int(mask.max()) + 1):
        if instances is None:
            number, regions, stats, _ = cv2.connectedComponentsWithStats((mask == index).astype(np.uint8))
            found += [(index, regions == i) for i in range(1, number) if stats[i, cv2.CC_STAT_AREA] >= LEAST_AREA]
        else:
            own = np.where(mask == index, instances, 0)
            ids, areas = np.unique(own[own > 0], return_counts=True)
            found += [(index, own == i) for i, area in zip(ids, areas, strict=True) if area >= LEAST_AREA]
    return found


def surroundings(mask: Mask, region: NDArray[np.bool_]) -> int:
    """The class of most pixels around an object: what is left once it is gone."""
    ring = cv2.dilate(region.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~region
    return int(np.bincount(mask[ring]).argmax()) if ring.any() else 0


def shifted(mask: Mask, dy: int, dx: int) -> Mask:
    """Moved by so many pixels; what comes in is background."""
    moved = np.zeros_like(mask)
    height, width = mask.shape
    moved[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = mask[
        max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)
    ]
    return moved


def plant(source: Path, target: Path, classes: int, seed: int = 0) -> list[Plant]:
    """Write ``target/data`` with errors: 5 % of objects removed and, of several classes, 5 % re-classed, 2 % of masks
    shifted, three pairs swapped. ``target/planted.json`` tells them, for the evaluation alone.
    """
    generator = np.random.default_rng(seed)
    root = target / "data" / source.name
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("dataset.yaml", "labels.csv"):
        shutil.copyfile(source / name, root / name)
    paths = sorted((source / "masks").iterdir())
    for image in sorted((source / "images").iterdir()):
        (root / "images" / image.name).unlink(missing_ok=True)
        (root / "images" / image.name).symlink_to(image)
    masks = {path.stem: np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), np.uint8) for path in paths}
    shuffled = [str(name) for name in generator.permutation(sorted(masks))]
    swaps, rest = _pairs(shuffled, masks)
    moved = rest[: round(0.02 * len(masks))]
    plants = _replaced(source, masks, rest[len(moved) :], classes, generator)
    for name in moved:
        side = min(masks[name].shape)
        angle, far = generator.uniform(0, 2 * np.pi), generator.uniform(*SHIFT) * side
        masks[name] = shifted(masks[name], round(far * np.sin(angle)), round(far * np.cos(angle)))
        plants.append(Plant(name, "shifted", (0, 0, *masks[name].shape)))
    for first, second in swaps:
        masks[first], masks[second] = masks[second], masks[first]
        plants += [Plant(a, "swapped", (0, 0, *masks[a].shape), b) for a, b in ((first, second), (second, first))]
    for name, mask in masks.items():
        cv2.imwrite(str(root / "masks" / f"{name}.png"), mask)
    text = json.dumps([asdict(one) for one in plants], indent=1)
    write_atomically(target / "planted.json", text.encode())
    return plants


def _pairs(names: Sequence[str], masks: dict[str, Mask]) -> tuple[list[tuple[str, str]], list[str]]:
    """Three pairs of pictures of one size, and the others."""
    pairs: list[tuple[str, str]] = []
    left = list(names)
    while len(pairs) < 3:
        first = left.pop(0)
        second = next((one for one in left if masks[one].shape == masks[first].shape), None)
        if second is not None:
            left.remove(second)
            pairs.append((first, second))
    return pairs, left


def _replaced(
    source: Path, masks: dict[str, Mask], names: Sequence[str], classes: int, generator: np.random.Generator
) -> list[Plant]:
    """Remove and re-class objects of these pictures."""
    everything = [(name, place) for name in sorted(names) for place in range(len(_objects(source, name, masks[name])))]
    order = generator.permutation(len(everything))
    number = round(0.05 * len(everything))
    chosen = {everything[i]: "removed" for i in order[:number]}
    if classes > 2:
        chosen |= {everything[i]: "re-classed" for i in order[number : 2 * number]}
    plants = []
    for name in sorted({name for name, _ in chosen}):
        before = masks[name].copy()
        for place, (index, region) in enumerate(_objects(source, name, before)):
            kind = chosen.get((name, place))
            if kind is None:
                continue
            others = [one for one in range(1, classes) if one != index]
            value = surroundings(before, region) if kind == "removed" else int(generator.choice(others))
            masks[name][region] = value
            rows, columns = np.nonzero(region)
            box = (int(rows.min()), int(columns.min()), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1)
            plants.append(Plant(name, kind, box))
    return plants


def _objects(source: Path, name: str, mask: Mask) -> list[tuple[int, NDArray[np.bool_]]]:
    path = source / "instances" / f"{name}.png"
    instances = np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), np.uint16) if path.is_file() else None
    return objects_of(mask, instances)
