"""The folder of what teachers say of training pictures: probabilities of each head, and where they look."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.batch import ATTENTION
from hsl.errors import DataError
from hsl.files.io import read_arrays, read_json, write_arrays, write_atomically
from hsl.files.names import file_name

VERSION = 1
PAGE, IMAGES, MAPS = "teachers.json", "images.npz", "maps"
_ANEW = "Make the targets anew."

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class TeacherTargets:
    """What teachers say of the pictures that they did not see.

    Attributes:
        classes: head -> the names of its classes.
        split_sha256: of the data, see `hsl.files.split_file.Split`.
        assignment: of the fold assignment by which the teachers were trained.
        members: the runs whose mean this is.
        ids: ``N`` pictures, sorted.
        folds: ``int64 (N,)``: the fold whose runs predicted the picture.
        images: image head -> ``float32 (N, K)``.
        maps: dense heads, and ``attention``, of which each picture has a map.
        out_of_fold: whether no picture was predicted by a run that trained on it.
    """

    classes: Mapping[str, Sequence[str]]
    split_sha256: str
    assignment: str
    members: Sequence[str]
    ids: Sequence[str]
    folds: NDArray[np.int64]
    images: Mapping[str, Floats]
    maps: Sequence[str] = ()
    out_of_fold: bool = True


def write_teachers(
    folder: Path, targets: TeacherTargets, maps: Iterable[tuple[str, Mapping[str, Floats]]] = ()
) -> None:
    """Write a folder of targets; its page comes last, so a folder without one was interrupted.

    Args:
        folder: new, or of earlier targets.
        targets: all but the maps.
        maps: of every picture its id and the maps that ``targets.maps`` names, one picture in memory at a time: of a
            dense head probabilities ``(C, H, W)``, kept as 8 bits (error at most 1/510); ``attention`` ``(h, w)``, at
            least 0, whose largest value becomes 255.

    Raises:
        ValueError: a picture has no maps, has others, or numbers are out of their range.
        OSError: the disk is full.
    """
    (folder / PAGE).unlink(missing_ok=True)
    _check_shapes(targets)
    left = set(targets.ids) if targets.maps else set()
    for name, arrays in maps:
        if name not in left or arrays.keys() != set(targets.maps):
            raise ValueError(
                f"`maps` should give {sorted(targets.maps)} of each id once. Found {sorted(arrays)}, {name}."
            )
        left.remove(name)
        write_arrays(_map_file(folder, name), {head: _as_bytes(array, head) for head, array in arrays.items()})
    if left:
        raise ValueError(f"`maps` should give every picture its maps. Found none of {sorted(left)[:3]}.")
    arrays = {f"image/{head}": np.asarray(values, np.float32) for head, values in targets.images.items()}
    write_arrays(folder / IMAGES, {"folds": np.asarray(targets.folds, np.int64)} | arrays)
    page = {
        "version": VERSION,
        "classes": {head: list(names) for head, names in targets.classes.items()},
        "split_sha256": targets.split_sha256,
        "assignment": targets.assignment,
        "members": list(targets.members),
        "out_of_fold": targets.out_of_fold,
        "images": sorted(targets.images),
        "maps": sorted(targets.maps),
        "ids": list(targets.ids),
    }
    write_atomically(folder / PAGE, json.dumps(page, indent=1, ensure_ascii=False).encode())


def read_teachers(folder: Path) -> TeacherTargets:
    """What `write_teachers` wrote, without the maps.

    Raises:
        DataError: a file is missing or damaged, or of another version.
    """
    if not (folder / PAGE).is_file():
        raise DataError(f"`{folder}` should be a folder of teachers' targets. Found no {PAGE} in it. {_ANEW}")
    page = read_json(folder / PAGE)
    if page["version"] != VERSION:
        raise DataError(f"`{folder / PAGE}` should have version {VERSION}. Found {page['version']}. {_ANEW}")
    try:
        arrays = read_arrays(folder / IMAGES, ["folds", *(f"image/{head}" for head in page["images"])])
        targets = TeacherTargets(
            {head: tuple(names) for head, names in page["classes"].items()},
            page["split_sha256"],
            page["assignment"],
            tuple(page["members"]),
            tuple(page["ids"]),
            arrays["folds"],
            {head: arrays[f"image/{head}"] for head in page["images"]},
            tuple(page["maps"]),
            page["out_of_fold"] is True,
        )
        _check_shapes(targets)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"`{folder}` is damaged: {error} {_ANEW}") from None
    return targets


def read_teacher_maps(folder: Path, name: str, targets: TeacherTargets) -> dict[str, NDArray[np.uint8]]:
    """The maps of one picture: of a dense head ``(C, H, W)``, of ``attention`` ``(h, w)``.

    Raises:
        DataError: the file is missing or damaged, or a map has other classes.
    """
    path = _map_file(folder, name)
    arrays = read_arrays(path, targets.maps)
    for head, array in arrays.items():
        shape = (len(targets.classes[head]), *array.shape[1:]) if head != ATTENTION else array.shape
        if array.dtype != np.uint8 or array.shape != shape or array.ndim != (2 if head == ATTENTION else 3):
            raise DataError(f"`{path}` should hold 8-bit maps of `{head}`. Found {array.dtype} {array.shape}. {_ANEW}")
    return arrays


def _map_file(folder: Path, name: str) -> Path:
    return folder / MAPS / f"{file_name(name)}.npz"


def _as_bytes(array: Floats, head: str) -> NDArray[np.uint8]:
    values = np.asarray(array, np.float64)
    if head == ATTENTION:
        values = values / max(values.max(), np.finfo(np.float64).tiny)
    if not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"Maps of `{head}` should be in [0, 1], attention at least 0. Found {values.min()}.")
    return np.rint(values * 255).astype(np.uint8)


def _check_shapes(targets: TeacherTargets) -> None:
    ids = list(targets.ids)
    heads = {*targets.images, *targets.maps} - {ATTENTION}
    if ids != sorted(set(ids)) or targets.folds.shape != (len(ids),) or heads != set(targets.classes):
        raise ValueError(
            "ids should be sorted and come once, each with a fold, and every head should have its classes."
        )
    for head, values in targets.images.items():
        if values.shape != (len(ids), len(targets.classes[head])) or not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"`{head}` should have a probability of every picture and class. Found {values.shape}.")
