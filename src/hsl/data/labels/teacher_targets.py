"""What teachers say of the training pictures of a fold: read, held against the split, and moved with the picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.batch import ATTENTION
from hsl.data.splits.grouping import name_some
from hsl.errors import DataError
from hsl.files.split_file import Split
from hsl.files.teacher_file import TeacherTargets, read_teacher_maps, read_teachers

Mask = NDArray[np.uint8]
OUTSIDE = "teachers/outside"
_ANEW = "Make targets of this data set and split."


@dataclass(frozen=True, eq=False)
class Teachers:
    """The targets of the training part of one fold.

    Attributes:
        folder: where they lie.
        targets: its page.
        places: id -> its row.
    """

    folder: Path
    targets: TeacherTargets
    places: Mapping[str, int]

    @classmethod
    def read(cls, folder: Path, split: Split, fold: int, classes: Mapping[str, Sequence[str]]) -> "Teachers":
        """Read the folder and check that it belongs to this data set and split, and fits the fold.

        Args:
            folder: What `hsl.files.teacher_file.write_teachers` wrote.
            split: The fold assignment of the run.
            fold: Number of its fold.
            classes: Of every head the names of its classes.

        Raises:
            DataError: The targets are of other data, another split or other classes, some were made by a run that
                trained on the picture, or a training picture has none.
        """
        targets = read_teachers(folder)
        wanted = {"split_sha256": split.sha256, "assignment": split.assignment}
        for key, value in wanted.items():
            if getattr(targets, key) != value:
                raise DataError(
                    f"`{folder}` should be of these data and this split, {key} = {value}. Found "
                    f"{getattr(targets, key)}: its teachers may have trained on what is held out here. {_ANEW}"
                )
        for head, names in targets.classes.items():
            known = list(classes.get(head, ()))
            if list(names) != known:
                raise DataError(
                    f"The teachers of `{folder}` should know the classes of `{head}`, {known}. Found {list(names)}. "
                    "Choose teachers of the same classes."
                )
        places = {name: place for place, name in enumerate(targets.ids)}
        _check_out_of_fold(folder, targets, split)
        if missing := [name for name in split.parts(fold)["train"] if name not in places]:
            raise DataError(
                f"`{folder}` should have a target of every training picture. Found none of {name_some(missing)}. "
                f"{_ANEW}"
            )
        return cls(folder, targets, places)

    def maps(self, name: str, size: tuple[int, int]) -> dict[str, Mask]:
        """``uint8 (h, w)`` by name: what has to be augmented together with the picture of that ``size``.

        One map a class; attention on the grid of the picture, and what tells where a rotation left it.

        Raises:
            DataError: A file is missing or damaged, or a map has not the size of the picture.
        """
        if not self.targets.maps:
            return {}
        found: dict[str, Mask] = {}
        for head, maps in read_teacher_maps(self.folder, name, self.targets).items():
            if head == ATTENTION:
                found[_key(head, 0)] = np.asarray(cv2.resize(maps, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT))
                found[OUTSIDE] = np.zeros(size, np.uint8)
            elif maps.shape[1:] != size:
                raise DataError(
                    f"The map of `{head}` of `{name}` in `{self.folder}` should have the size of the picture, "
                    f"{size[0]} x {size[1]}. Found {maps.shape[1]} x {maps.shape[2]}. {_ANEW}"
                )
            else:
                found |= {_key(head, place): one for place, one in enumerate(maps)}
        return found

    def annotate(self, name: str, maps: Mapping[str, Mask]) -> dict[str, NDArray[np.float32] | Mask]:
        """By head the targets of one picture, of its augmented maps: ``float32 (K,)``, or ``uint8 (C, h, w)``.

        ``attention`` is ``uint8 (1, h, w)``, 0 outside of the picture.
        """
        found: dict[str, NDArray[np.float32] | Mask] = {}
        for head, values in self.targets.images.items():
            found[head] = np.asarray(values[self.places[name]], np.float32)
        for head in self.targets.maps:
            if head == ATTENTION:
                inside = maps[OUTSIDE] == 0
                found[head] = (maps[_key(head, 0)] * inside)[None]
            else:
                found[head] = np.stack([maps[_key(head, place)] for place in range(len(self.targets.classes[head]))])
        return found


def _key(head: str, place: int) -> str:
    return f"teachers/{head}/{place}"


def _check_out_of_fold(folder: Path, targets: TeacherTargets, split: Split) -> None:
    held_out = [set(fold.val) for fold in split.folds]
    seen = [
        name
        for name, fold in zip(targets.ids, targets.folds.tolist(), strict=True)
        if not 0 <= fold < len(held_out) or name not in held_out[fold]
    ]
    if seen or not targets.out_of_fold:
        raise DataError(
            f"`{folder}` should hold predictions of runs that did not train on the picture. Found others, of "
            f"{name_some(seen or list(targets.ids))}. Take each picture's from the fold that held it out."
        )
