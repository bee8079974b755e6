"""The embedded data set: pictures of painted panels with five kinds of damage, drawn when first needed."""

import csv
import hashlib
import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.random import Generator
from numpy.typing import NDArray

from hsl.config.ranges import Fraction, NonNegativeInt, PositiveFloat, PositiveInt
from hsl.data.demo.damage import KINDS, Panel, add_damage
from hsl.data.demo.painting import MATERIALS, paint
from hsl.data.files.records import Catalogue
from hsl.data.formats.folder import read_folder
from hsl.errors import ConfigError, DataError
from hsl.files.cells import neutral_row

CLASSES = ("clean", *KINDS)
_VERSION = 1  # to be raised whenever the same parameters draw other pictures
_ZOOM = 2  # pixels of a panel per pixel of a picture, along each side
_EXTENT = 1.6  # side of a panel in sides of a picture


@dataclass(frozen=True, slots=True)
class Parameters:
    """Everything that decides the pictures. See ``read_demo``."""

    num_pictures: int
    size: int
    seed: int
    views_per_panel: int
    damage_width: float
    damage_contrast: float
    damage_density: float


def read_demo(
    root: str | Path,
    num_pictures: PositiveInt = 160,
    size: PositiveInt = 128,
    seed: NonNegativeInt = 0,
    views_per_panel: PositiveInt = 4,
    damage_width: PositiveFloat = 1.75,
    damage_contrast: Fraction = 1.0,
    damage_density: PositiveFloat = 1.0,
) -> Catalogue:
    """Draw the pictures if they are not there, and read them.

    Each panel has several views: the same painting and damage, cut, lit and seen a little differently. They
    share ``group`` in ``labels.csv``, beside ``label`` (the damage that takes most pixels, or clean),
    ``material``, ``view`` and one column of 0 and 1 per kind of damage. ``instances/`` numbers the objects.

    Args:
        root: Where the data set goes, in a folder named by a hash of the parameters below.
        num_pictures: At least 1.
        size: Height and width in pixels, at least 32.
        seed: The same seed draws the same pictures, however many there are.
        views_per_panel: At least 1.
        damage_width: Width of cracks and scratches, in pixels of the picture.
        damage_contrast: From 0 (invisible) to 1.
        damage_density: Objects per panel are in proportion to this; a kind that a panel has is there once.

    Returns:
        The catalogue, with the classes clean, crack, scratch, paint_loss, stain, puncture.

    Raises:
        ConfigError: A parameter is out of its range.
        DataError: The folder cannot be written.
    """
    parameters = Parameters(num_pictures, size, seed, views_per_panel, damage_width, damage_contrast, damage_density)
    _check(parameters)
    described = json.dumps({"version": _VERSION, **asdict(parameters)}, sort_keys=True)
    target = Path(root) / f"demo-{hashlib.sha256(described.encode()).hexdigest()[:12]}"
    if not target.is_dir():
        _generate(target, parameters)
    return read_folder(target)


def _check(parameters: Parameters) -> None:
    least = {"num_pictures": 1, "size": 32, "seed": 0, "views_per_panel": 1, "damage_contrast": 0}
    for name, smallest in least.items():
        value = getattr(parameters, name)
        if value < smallest:
            raise ConfigError(
                f"`data.reader.{name}` should be at least {smallest}. Found `data.reader.{name} = {value}`."
            )
    for name in ("damage_width", "damage_density"):
        if not getattr(parameters, name) > 0:
            raise ConfigError(
                f"`data.reader.{name}` should be above 0. Found `data.reader.{name} = {getattr(parameters, name)}`."
            )
    if parameters.damage_contrast > 1:
        raise ConfigError(
            "`data.reader.damage_contrast` should be in [0, 1]. "
            f"Found `data.reader.damage_contrast = {parameters.damage_contrast}`."
        )


def _generate(target: Path, parameters: Parameters) -> None:
    """Write beside the target and rename: whoever comes first wins, and nobody sees half of it."""
    unfinished = target.with_name(f".{target.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        for folder in ("images", "masks", "instances"):
            (unfinished / folder).mkdir(parents=True)
        rows = [row for panel in range(_num_panels(parameters)) for row in _write_panel(unfinished, panel, parameters)]
        _write_tables(unfinished, rows, parameters)
        try:
            unfinished.replace(target)
        except OSError:
            if not target.is_dir():
                raise
    except OSError as error:
        raise DataError(
            f"The demo data cannot be written to `{target}`: {error.strerror or error}. Free space "
            "there or set `data.root` to a folder that can be written."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _num_panels(parameters: Parameters) -> int:
    return -(-parameters.num_pictures // parameters.views_per_panel)


def _write_panel(folder: Path, number: int, parameters: Parameters) -> list[dict[str, Any]]:
    rng = np.random.default_rng([parameters.seed, number])
    material = MATERIALS[number % len(MATERIALS)]
    canvas = paint(rng, round(parameters.size * _EXTENT * _ZOOM), material)
    panel = Panel(canvas, _ZOOM, parameters.damage_width, parameters.damage_contrast)
    add_damage(rng, panel, _kinds_of(rng, number), parameters.damage_density)
    rows = []
    first = number * parameters.views_per_panel
    for view in range(min(parameters.views_per_panel, parameters.num_pictures - first)):
        id_ = f"panel_{number:03d}_view_{view}"
        image, ids = see(np.random.default_rng([parameters.seed, number, view]), panel, parameters.size)
        objects, instances = np.unique(ids, return_inverse=True)
        instances = instances.reshape(ids.shape) + (0 if objects[0] == 0 else 1)
        mask = np.asarray([0, *(kind + 1 for kind in panel.kinds)], np.uint8)[ids]
        _write_png(folder / "images" / f"{id_}.png", image[..., ::-1])
        _write_png(folder / "masks" / f"{id_}.png", mask)
        _write_png(folder / "instances" / f"{id_}.png", instances.astype(np.uint16))
        counts = np.bincount(mask.ravel(), minlength=len(CLASSES))[1:]
        label = KINDS[counts.argmax()] if counts.any() else CLASSES[0]
        present = {kind: int(count > 0) for kind, count in zip(KINDS, counts, strict=True)}
        about = {
            "id": id_,
            "label": label,
            "group": f"panel_{number:03d}",
            "material": material,
            "view": view,
        }
        rows.append(about | present)
    return rows


def _kinds_of(rng: Generator, number: int) -> tuple[str, ...]:
    """All in the first panels, so that the smallest sets have each; then two to four, every 8th time none."""
    if number < len(KINDS):
        return KINDS
    if number % 8 == 7:
        return ()
    lacking = {number % len(KINDS), *rng.integers(len(KINDS), size=2).tolist()}
    return tuple(kind for index, kind in enumerate(KINDS) if index not in lacking)


def see(rng: Generator, panel: Panel, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Photograph a panel from another place and in another light.

    Args:
        rng: Decides place and light.
        panel: The panel with its damage.
        size: Height and width of the picture in pixels.

    Returns:
        The picture ``uint8 (size, size, 3)`` in RGB, and ``int32 (size, size)``: 0, or the number of the
        object that covers at least half of a pixel.
    """
    window = size * _ZOOM
    middle = len(panel.ids) / 2 + rng.uniform(-0.06, 0.06, 2) * len(panel.ids)
    turn, half = np.radians(rng.uniform(-6, 6)), window / 2 * rng.uniform(0.94, 1.06)
    square = np.asarray([[-1, -1], [1, -1], [1, 1], [-1, 1]]) + rng.uniform(-0.05, 0.05, (4, 2))
    rotation = np.asarray([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    corners = (middle + half * square @ rotation).astype(np.float32)
    frame = np.asarray([[0, 0], [window, 0], [window, window], [0, window]], np.float32)
    move, border = cv2.getPerspectiveTransform(corners, frame), cv2.BORDER_REFLECT
    seen = cv2.warpPerspective(panel.canvas, move, (window, window), flags=cv2.INTER_LINEAR, borderMode=border)
    fine = cv2.warpPerspective(
        panel.ids.astype(np.uint16), move, (window, window), flags=cv2.INTER_NEAREST, borderMode=border
    )
    blocks = fine.reshape(size, _ZOOM, size, _ZOOM).swapaxes(1, 2).reshape(size, size, _ZOOM**2).astype(np.int32)
    covered = 2 * np.count_nonzero(blocks, axis=2) >= _ZOOM**2
    picture = cv2.resize(seen, (size, size), interpolation=cv2.INTER_AREA)
    return _light(rng, np.asarray(picture, np.float32)), np.where(covered, blocks.max(axis=2), 0)


def _light(rng: Generator, picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    size = len(picture)
    rows, columns = np.indices((size, size), dtype=np.float32) / size - 0.5
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    light = rng.uniform(0.85, 1.2) * (1 + slope * (np.cos(angle) * columns + np.sin(angle) * rows))
    warmth = rng.normal(0, 0.04)
    lit = picture * light[..., None] * np.asarray([1 + warmth, 1, 1 - warmth], np.float32)
    lit += rng.normal(0, rng.uniform(1.0, 3.5), picture.shape)
    return np.asarray(np.rint(np.clip(lit, 0, 255)), dtype=np.uint8)


def _write_png(path: Path, array: NDArray[Any]) -> None:
    # not cv2.imwrite: it does not say why it failed
    path.write_bytes(cv2.imencode(".png", array)[1].tobytes())


def _write_tables(folder: Path, rows: list[dict[str, Any]], parameters: Parameters) -> None:
    description = {
        "name": "demo",
        "classes": list(CLASSES),
        "source": "drawn by hsl.data.formats.demo",
        "parameters": asdict(parameters),
    }
    (folder / "dataset.yaml").write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(map(neutral_row, rows))
