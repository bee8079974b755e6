"""``pixel_counts.npz``: what every pixel score of every picture is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsl.errors import DataError
from hsl.files.io import read_arrays
from hsl.metrics.catalogue import SCORES, score_names
from hsl.metrics.pixels.boundary import COUNT_NAMES, boundary_scores
from hsl.metrics.pixels.calibration import NUM_BINS, CalibrationCounts, calibration_scores
from hsl.metrics.pixels.counts import dice_empty_one
from hsl.metrics.pixels.counts import scores as confusion_scores
from hsl.metrics.pixels.pixelwise import pixel_scores

CONFUSION_METRICS = score_names("pixels", "confusion")
METRICS = score_names("pixels", "confusion", "boundaries", "calibration")
PER_CLASS = score_names("pixels", "confusion", "boundaries", per_class=True)
EMPTY_ONE = score_names("pixels", "pictures")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PixelCounts:
    """The sums of ``metrics.pixelwise.Pixelwise``, which add up over pictures.

    ``matrices (..., 2, C, C)``: confusion of interior and of boundary pixels, rows the truth;
    ``boundaries (..., 7, C)``: rows as ``metrics.boundary.COUNT_NAMES``; ``pixels (..., 2, M)``: wrong and right
    pixels per bin of the top probability; ``confidence (..., M)``, ``nll (...)``, ``brier (...)``: sums over the
    valid pixels. Leading dimensions are pictures or resamples, and every score keeps them.
    """

    matrices: NDArray[Any]
    boundaries: NDArray[Any]
    pixels: NDArray[Any]
    confidence: Floats
    nll: Floats
    brier: Floats

    @property
    def confusion(self) -> NDArray[Any]:
        """``(..., C, C)``, rows the truth."""
        total: NDArray[Any] = self.matrices.sum(-3)
        return total

    @property
    def num_pictures(self) -> int:
        """Length of the first dimension."""
        return len(self.nll)

    @property
    def width(self) -> int:
        """Numbers per picture in the largest array."""
        return int(self.matrices[0].size)

    def __add__(self, other: "PixelCounts") -> "PixelCounts":
        return PixelCounts(*[mine + theirs for mine, theirs in zip(self._arrays, other._arrays, strict=True)])

    def __mul__(self, factor: int) -> "PixelCounts":
        return PixelCounts(*[array * factor for array in self._arrays])

    def __getitem__(self, index: Any) -> "PixelCounts":
        """Some of the pictures, by an index of the first dimension."""
        return PixelCounts(*[array[index] for array in self._arrays])

    @cached_property
    def total(self) -> "PixelCounts":
        """The sum over the first dimension."""
        return PixelCounts(*[array.sum(0) for array in self._arrays])

    @property
    def left_out(self) -> "PixelCounts":
        """The sums over all but one along the first dimension, one left out after the other."""
        return PixelCounts(*[array.sum(0) - array for array in self._arrays])

    def by_unit(self, index: NDArray[Any], num: int) -> "PixelCounts":
        """Sums over the pictures of each of ``num`` units; ``index (N,)`` is the unit of each picture."""
        return PixelCounts(*[summed(array, index, num) for array in self._arrays])

    def score(self, name: str, weights: Floats | None = None) -> Floats:
        """One of ``METRICS`` with the leading dimensions kept; NaN where nothing is scored.

        Args:
            name: of the score.
            weights: ``(R, N)``: with N pictures, R scores, each of the weighted sums over the pictures.
        """
        made_from = SCORES[name].counts
        if made_from == "confusion":
            return _array(confusion_scores(_tensor(_weighted(self.confusion, weights)))[name])
        if made_from == "boundaries":
            return _array(boundary_scores(_tensor(_weighted(self.boundaries, weights)))[name])
        arrays = (self.pixels, self.confidence, self.nll, self.brier)
        sums = CalibrationCounts(*[_tensor(_weighted(array, weights)) for array in arrays])
        return _array(calibration_scores(sums)[name])

    def scores(self) -> dict[str, float]:
        """Every score of the sums of one data set: ``METRICS`` and the six ``error_<kind>_<place>``."""
        return pixel_scores({each.name: getattr(self, each.name) for each in fields(self)})

    def per_class(self) -> dict[str, Floats]:
        """Each of ``PER_CLASS`` as ``(..., C)``; NaN: in neither mask."""
        values = confusion_scores(_tensor(self.confusion)) | boundary_scores(_tensor(self.boundaries))
        keys = {name: f"{name}_per_class" if SCORES[name].per_class == "also" else name for name in PER_CLASS}
        return {name: _array(values[key]) for name, key in keys.items()}

    @property
    def _arrays(self) -> list[NDArray[Any]]:
        return [getattr(self, each.name) for each in fields(self)]


@dataclass(frozen=True)
class Pictures:
    """Counts of several pictures, whose first dimension runs over ``ids``."""

    ids: Sequence[str]
    counts: PixelCounts

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Id to place."""
        return {name: i for i, name in enumerate(self.ids)}

    @cached_property
    def empty_one(self) -> Mapping[str, float]:
        """The two of ``EMPTY_ONE``: means over the pictures, which no sum of counts gives."""
        found = dice_empty_one(_tensor(self.counts.confusion))
        return dict(zip(EMPTY_ONE, found, strict=True))

    def of(self, name: str) -> PixelCounts:
        """The counts of one picture."""
        return self.counts[self.places[name]]

    def pick(self, ids: Sequence[str]) -> PixelCounts:
        """The counts of some pictures, in that order."""
        return self.counts[[self.places[name] for name in ids]]


def read_pixel_counts(path: Path, num_classes: int) -> dict[tuple[str, str], Pictures]:
    """(part, inference) to the counts of its pictures.

    Raises:
        DataError: the file is missing or broken, an array has another shape, or a picture appears twice.
    """
    if not path.exists():
        raise DataError(f"`{path}` is missing: boundary and calibration scores are unknown.")
    shapes = _shapes(num_classes)
    content = read_arrays(path, shapes)
    for name, shape in shapes.items():
        if content[name].shape != (wanted := (content["ids"].size, *shape)):
            raise DataError(f"`{path}`: `{name}` should have the shape {wanted}. Found {content[name].shape}.")
    counts = PixelCounts(*[content[each.name] for each in fields(PixelCounts)])
    ids, parts, inferences = (np.asarray(content[name]).astype(str) for name in ("ids", "part", "inference"))
    found: dict[tuple[str, str], Pictures] = {}
    for part, inference in sorted(set(zip(parts.tolist(), inferences.tolist(), strict=True))):
        chosen = np.flatnonzero((parts == part) & (inferences == inference))
        names = ids[chosen].tolist()
        if len(set(names)) < len(names):
            raise DataError(f"`{path}` should hold each picture once. Found one twice in {part}, {inference}.")
        found[part, inference] = Pictures(names, counts[chosen])
    return found


def _shapes(num_classes: int) -> dict[str, tuple[int, ...]]:
    """Of each array, behind the dimension of the pictures."""
    return {
        "ids": (),
        "part": (),
        "inference": (),
        "matrices": (2, num_classes, num_classes),
        "boundaries": (len(COUNT_NAMES), num_classes),
        "pixels": (2, NUM_BINS),
        "confidence": (NUM_BINS,),
        "nll": (),
        "brier": (),
    }


def summed(array: NDArray[Any], index: NDArray[Any], num: int) -> NDArray[Any]:
    """Sums ``(num, ...)`` of the entries of ``array (N, ...)`` with the same ``index (N,)``."""
    total = np.zeros((num, *array.shape[1:]), dtype=array.dtype)
    np.add.at(total, index, array)
    return total


def _weighted(values: NDArray[Any], weights: Floats | None) -> NDArray[Any]:
    if weights is None:
        return values
    sums: NDArray[Any] = weights @ values.reshape(len(values), -1)
    return sums.reshape(len(weights), *values.shape[1:])


def _tensor(array: Any) -> torch.Tensor:
    return torch.as_tensor(np.asarray(array))


def _array(tensor: torch.Tensor) -> Floats:
    return tensor.double().numpy()
