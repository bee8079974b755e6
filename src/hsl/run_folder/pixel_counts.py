"""``pixel_counts.npz``: what every pixel score of every picture is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.errors import DataError
from hsl.files.io import read_arrays, write_arrays

NUM_COUNTS = 7  # rows of ``boundaries``, see `hsl.metrics.pixels.formulas.BOUNDARY_COUNTS`
NUM_BINS = 15  # see `hsl.metrics.pixels.formulas.NUM_BINS`
KEYS = ("ids", "part", "inference")


@dataclass(frozen=True, eq=False)
class Pictures:
    """The stored counts of several pictures: ``arrays``, whose first dimension runs over ``ids``, by name.

    They are those of `hsl.metrics.pixels.pixel_counts.PixelCounts`.
    """

    ids: Sequence[str]
    arrays: Mapping[str, NDArray[Any]]

    @cached_property
    def totals(self) -> Mapping[str, NDArray[Any]]:
        """The sums over the pictures."""
        return {name: array.sum(0) for name, array in self.arrays.items()}

    @property
    def confusion(self) -> NDArray[np.int64]:
        """``(N, C, C)``, rows the truth."""
        matrices: NDArray[np.int64] = self.arrays["matrices"].sum(1)
        return matrices


def write_pixel_counts(path: Path, pictures: Mapping[tuple[str, str], Pictures]) -> None:
    """Write the counts of the pictures of every (part, inference)."""
    keys = [(name, *on) for on, some in pictures.items() for name in some.ids]
    stored = {name: np.array([key[i] for key in keys]) for i, name in enumerate(KEYS)}
    for name in next(iter(pictures.values())).arrays:
        stored[name] = np.concatenate([some.arrays[name] for some in pictures.values()])
    write_arrays(path, stored)


def read_pixel_counts(path: Path, num_classes: int) -> dict[tuple[str, str], Pictures]:
    """(part, inference) to the counts of its pictures.

    Raises:
        DataError: the file is missing or broken, an array has another shape, or a picture appears twice.
    """
    if not path.exists():
        raise DataError(f"`{path}` is missing: boundary and calibration scores are unknown.")
    shapes = _shapes(num_classes)
    content = read_arrays(path, [*KEYS, *shapes])
    ids, parts, inferences = (np.asarray(content[name]).astype(str) for name in KEYS)
    for name, shape in (dict.fromkeys(KEYS, ()) | shapes).items():
        if content[name].shape != (wanted := (ids.size, *shape)):
            raise DataError(f"`{path}`: `{name}` should have the shape {wanted}. Found {content[name].shape}.")
    found: dict[tuple[str, str], Pictures] = {}
    for part, inference in sorted(set(zip(parts.tolist(), inferences.tolist(), strict=True))):
        chosen = np.flatnonzero((parts == part) & (inferences == inference))
        names = ids[chosen].tolist()
        if len(set(names)) < len(names):
            raise DataError(f"`{path}` should hold each picture once. Found one twice in {part}, {inference}.")
        found[part, inference] = Pictures(names, {name: content[name][chosen] for name in shapes})
    return found


def _shapes(num_classes: int) -> dict[str, tuple[int, ...]]:
    """Of each array, behind the dimension of the pictures."""
    return {
        "matrices": (2, num_classes, num_classes),
        "boundaries": (NUM_COUNTS, num_classes),
        "pixels": (2, NUM_BINS),
        "confidence": (NUM_BINS,),
        "nll": (),
        "brier": (),
    }
