"""What a class map shows, region by region: what every writer goes through."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hsl.batch import IGNORE_INDEX

_EIGHT = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Some pixels of one class.

    Attributes:
        label: Index of the class, from 1.
        top: Row of the first pixel of `mask` in the picture.
        left: Its column.
        mask: ``bool (h, w)``, cropped to the region.
    """

    label: int
    top: int
    left: int
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Segmented:
    """A picture whose pixels have classes.

    Attributes:
        id: Of the picture.
        picture: Where it lies.
        layers: ``uint8 (H, W)`` each: class indices, 0 and 255 are nobody's. One, unless classes overlap.
        objects: ``(H, W)`` ids of objects, 0 is none; ``None``: they were not told apart.
    """

    id: str
    picture: Path
    layers: Sequence[NDArray[np.uint8]]
    objects: NDArray[np.integer[Any]] | None = None

    @property
    def height(self) -> int:
        """Of the picture in pixels."""
        return int(self.layers[0].shape[0])

    @property
    def width(self) -> int:
        """Of the picture in pixels."""
        return int(self.layers[0].shape[1])

    def regions(self, connected: bool = True) -> Iterator[Region]:
        """The objects, each cut by class, and all other pixels of a class: every pixel is in exactly one region.

        Args:
            connected: whether the other pixels are a region for each connected part (8 neighbours), from top to bottom;
                else they are one.
        """
        for layer in self.layers:
            for label in _labels(layer):
                there = layer == label
                if self.objects is not None:
                    yield from _cut(label, np.where(there, self.objects, 0))
                    there &= self.objects == 0
                yield from _cut(label, ndimage.label(there, _EIGHT)[0] if connected else there.astype(np.uint8))


def _labels(layer: NDArray[np.uint8]) -> list[int]:
    return [label for label in np.unique(layer).tolist() if label not in (0, IGNORE_INDEX)]


def _cut(label: int, numbers: NDArray[np.integer[Any]]) -> Iterator[Region]:
    for number, place in enumerate(ndimage.find_objects(numbers), start=1):
        if place is not None:
            yield Region(label, place[0].start, place[1].start, numbers[place] == number)
