"""Counts of dense heads, picture by picture, from which every pixel score follows."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.metrics.catalogue import SCORES, score_names
from hsl.metrics.pixels.formulas import (
    Floats,
    boundary_scores,
    calibration_scores,
    confusion_scores,
    dice_empty_one,
    pixel_scores,
)

CONFUSION_METRICS = score_names("pixels", "confusion")
METRICS = score_names("pixels", "confusion", "boundaries", "calibration")
PER_CLASS = score_names("pixels", "confusion", "boundaries", per_class=True)
EMPTY_ONE = score_names("pixels", "pictures")


@dataclass(frozen=True)
class PixelCounts:
    """The sums of ``metrics.pixelwise.Pixelwise``, which add up over pictures.

    ``matrices (..., 2, C, C)``: confusion of interior and of boundary pixels, rows the truth;
    ``boundaries (..., 7, C)``: rows as `formulas.BOUNDARY_COUNTS`; ``pixels (..., 2, M)``: wrong and right pixels
    per bin of the top probability; ``confidence (..., M)``, ``nll (...)``, ``brier (...)``: sums over the
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
    def known(self) -> NDArray[Any]:
        """``(...)`` labelled pixels."""
        total: NDArray[Any] = self.matrices.sum((-3, -2, -1))
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
            return confusion_scores(_weighted(self.confusion, weights))[name]
        if made_from == "boundaries":
            return boundary_scores(_weighted(self.boundaries, weights))[name]
        arrays = (self.pixels, self.confidence, self.nll, self.brier)
        return calibration_scores(*[_weighted(array, weights) for array in arrays])[name]

    def scores(self) -> dict[str, float]:
        """Every score of the sums of one data set: ``METRICS`` and the six ``error_<kind>_<place>``."""
        return pixel_scores({each.name: getattr(self, each.name) for each in fields(self)})

    def per_class(self) -> dict[str, Floats]:
        """Each of ``PER_CLASS`` as ``(..., C)``; NaN: in neither mask."""
        values = confusion_scores(self.confusion) | boundary_scores(self.boundaries)
        keys = {name: f"{name}_per_class" if SCORES[name].per_class == "also" else name for name in PER_CLASS}
        return {name: values[key] for name, key in keys.items()}

    def empty_one(self) -> dict[str, float]:
        """The two of ``EMPTY_ONE``: means over the pictures, which no sum of counts gives."""
        return dict(zip(EMPTY_ONE, dice_empty_one(self.confusion), strict=True))

    @property
    def _arrays(self) -> list[NDArray[Any]]:
        return [getattr(self, each.name) for each in fields(self)]


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
