"""Cityscapes, and data sets of its layout: ``*_labelIds.png`` beside ``*_leftImg8bit.png``, any table of classes."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hsl.batch import IGNORE_INDEX
from hsl.data.annotations.catalogue import named_paths, nothing_found, part_of
from hsl.data.annotations.pictures import files_below
from hsl.data.files.decode_masks import decode_instances
from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.data.formats.description import unfit_names
from hsl.data.formats.findings import Findings, shown
from hsl.data.formats.picture_files import PICTURE_SUFFIXES, check_root
from hsl.data.formats.tables import read_table
from hsl.errors import DataError
from hsl.files.io import read_bytes

IMAGES = "leftImg8bit"
CLASSES = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
"""Numbers of the 19 classes that the benchmark counts; all others are void."""
TRAIN_IDS = {name: number for number, name in enumerate(CLASSES)}
_IDS, _TRAIN_IDS = "_labelIds", "_labelTrainIds"
_OBJECT = 1000  # from here on a number of instanceIds is one object: 1000 times its class and a count


@dataclass(frozen=True, slots=True)
class ObjectIds:
    """The objects of ``*_instanceIds.png``: numbers below 1000 are areas without objects, and become 0."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self) -> bytes:
        ids = decode_instances(FileSource(self.path).read(), self.name)
        _, data = cv2.imencode(".png", np.where((ids >= _OBJECT) & (ids < 2**16), ids, 0).astype(np.uint16))
        return data.tobytes()

    def stamp(self) -> str:
        return FileSource(self.path).stamp()


def read_cityscapes(root: str | Path, ignore_unlabelled: bool = False) -> Catalogue:
    """Read a data set in the layout of Cityscapes, at any depth. Nothing is decoded.

    ========================================================  ===================================================
    ``leftImg8bit/<part>/<city>/<name>_leftImg8bit.png``      the pictures; ``part`` is train, val or test
    ``gtFine/<part>/<city>/<name>_gtFine_labelIds.png``       numbers of classes; without any ``_labelTrainIds``
    ``gtFine/.../<name>_gtFine_instanceIds.png``              optional: the objects
    ``classes.json``                                          optional: name -> number in the masks, in the order of
                                                              the classes; else the 19 of Cityscapes
    ``labels.csv``                                            optional, as in the format ``folder``
    ========================================================  ===================================================

    Numbers that are no class are void. Coarse masks (``gtCoarse``) are read where there are no fine ones. A picture
    without a mask is left out, with a count.

    Args:
        root: The folder.
        ignore_unlabelled: Whether void counts nowhere, as in the benchmark, instead of being class 0.

    Returns:
        The catalogue; class 0 is ``unlabelled``. The ``group`` of a picture is its city.

    Raises:
        DataError: With everything that is wrong, the first few of each kind named.
    """
    root, findings = Path(root), Findings()
    check_root(root, "leftImg8bit/ and gtFine/", findings)
    files = files_below(root, PICTURE_SUFFIXES)
    by_kind = {ending: [path for path in files if path.stem.endswith(ending)] for ending in (_IDS, _TRAIN_IDS)}
    ending = _IDS if by_kind[_IDS] else _TRAIN_IDS
    masks = _by_key(by_kind[ending], ending)
    objects = _by_key([path for path in files if path.stem.endswith("_instanceIds")], "_instanceIds")
    images = {path.stem.removesuffix(f"_{IMAGES}"): path for path in files if path.stem.endswith(f"_{IMAGES}")}
    if not masks:
        findings.add(nothing_found(root, "cityscapes", f"masks `*{_IDS}.png` or `*{_TRAIN_IDS}.png`"))
    lone = [str(path) for key, path in masks.items() if key not in images]
    findings.add_names(lone, f"Every mask should have a picture `<name>_{IMAGES}.png`. Without one are", "Add it.")
    table = load_class_numbers(root / "classes.json", findings)
    numbers = (CLASSES if ending == _IDS else TRAIN_IDS) if table is None else table
    attributes = read_table(root / "labels.csv", masks, findings)
    findings.raise_if_any(root)
    bare = [path for key, path in sorted(images.items()) if key not in masks]
    if bare:
        findings.not_read.append(f"`{root}`: pictures without a mask are left out: {named_paths(bare)}.")
    records = tuple(
        Record(
            key,
            FileSource(images[key]),
            FileSource(path),
            ObjectIds(objects[key]) if key in objects else None,
            {"group": path.parent.name, **attributes.get(key, {})},
            part_of(path.parent, root),
        )
        for key, path in sorted(masks.items())
    )
    void = IGNORE_INDEX if ignore_unlabelled else 0
    values = dict.fromkeys(range(256), void) | {number: i for i, number in enumerate(numbers.values(), start=1)}
    return Catalogue(root.resolve().name, records, ("unlabelled", *numbers), values=values, not_read=findings.told())


def load_class_numbers(path: Path, findings: Findings) -> dict[str, int] | None:
    """Name -> number of a JSON file; ``None`` if there is none. What is wrong goes to ``findings``."""
    if not path.is_file():
        return None
    try:
        content: dict[str, int] = json.loads(read_bytes(path))
    except (DataError, ValueError, RecursionError) as error:
        findings.add(f"`{path}` cannot be read: {error}. Correct it, or remove it for the classes of the data set.")
        return {}
    numbers = [*content.values()] if isinstance(content, dict) else []
    whole = all(type(number) is int and 0 <= number < IGNORE_INDEX for number in numbers)
    if not numbers or not whole or len(set(numbers)) < len(numbers):
        findings.add(
            f"`{path}` should map names to the indices 1, 2, ... of the masks, each once. Found `{shown(content)}`. "
            "Correct it."
        )
        return {}
    for sentence in unfit_names([*content]):
        findings.add(f"`{path}`: {sentence}")
    return content


def _by_key(paths: Sequence[Path], ending: str) -> dict[str, Path]:
    """Files by the name of their picture, the fine ones where there are coarse ones too."""
    fine_last = sorted(paths, key=lambda path: "gtFine" in path.name)
    return {re.sub(r"_gt[A-Za-z]+$", "", path.stem.removesuffix(ending)): path for path in fine_last}
