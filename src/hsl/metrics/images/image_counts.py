"""Counts of an image head, picture by picture, from which all but its curve scores follow."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.metrics.catalogue import score_names

Floats = NDArray[np.float64]

COUNTED = score_names("images", "decisions")


@dataclass(frozen=True)
class ImageCounts:
    """Right and wrong decisions of an image head, which add up over pictures.

    ``tp fp fn (..., K)``: per class, over the pictures whose labels are known; ``known (...)``: 1 for these pictures;
    ``right (...)``: 1 where every label is right. Leading dimensions are pictures or resamples, and every score keeps
    them. ``several``: a picture may show several classes. Definitions: `hsl.metrics.images.image_scores`.
    """

    several: bool
    tp: Floats
    fp: Floats
    fn: Floats
    right: Floats
    known: Floats

    @classmethod
    def of(cls, target: Floats, predicted: NDArray[np.bool_], several: bool) -> "ImageCounts":
        """Count every picture by itself.

        Args:
            target: ``(N, K)`` of 0 and 1, NaN where it is not known; such a picture is in no count.
            predicted: ``(N, K)``.
            several: a picture may show several classes.
        """
        known, true = np.isfinite(target).all(axis=1), np.asarray(target == 1)
        cells = [np.asarray(known)[:, None] & cell for cell in (true & predicted, ~true & predicted, true & ~predicted)]
        right = known & (true == predicted).all(axis=1)
        return cls(several, *[cell.astype(float) for cell in (*cells, right, known)])

    def __add__(self, other: "ImageCounts") -> "ImageCounts":
        pairs = zip(self.arrays, other.arrays, strict=True)
        return ImageCounts(self.several, *[mine + theirs for mine, theirs in pairs])

    def __mul__(self, factor: int) -> "ImageCounts":
        return ImageCounts(self.several, *[array * factor for array in self.arrays])

    def __getitem__(self, index: Any) -> "ImageCounts":
        """Some of the pictures, by an index of the first dimension."""
        return ImageCounts(self.several, *[array[index] for array in self.arrays])

    @property
    def num_pictures(self) -> int:
        """Length of the first dimension."""
        return len(self.right)

    @property
    def width(self) -> int:
        """Numbers per picture."""
        return 3 * int(self.tp.shape[-1])

    @cached_property
    def total(self) -> "ImageCounts":
        """The sum over the first dimension."""
        return ImageCounts(self.several, *[array.sum(0) for array in self.arrays])

    @property
    def left_out(self) -> "ImageCounts":
        """The sums over all but one along the first dimension, one left out after the other."""
        return ImageCounts(self.several, *[array.sum(0) - array for array in self.arrays])

    def by_unit(self, index: NDArray[Any], num: int) -> "ImageCounts":
        """Sums over the pictures of each of ``num`` units; ``index (N,)`` is the unit of each picture."""
        sums = [np.zeros((num, *array.shape[1:])) for array in self.arrays]
        for total, array in zip(sums, self.arrays, strict=True):
            np.add.at(total, index, array)
        return ImageCounts(self.several, *sums)

    def scores(self) -> dict[str, float]:
        """Every one of ``COUNTED`` of the sums of one data set."""
        return {name: float(self.score(name)) for name in COUNTED}

    def per_class(self) -> dict[str, Floats]:
        """``(..., K)``: precision, recall, f1, NaN where the denominator is 0; support: pictures with the class."""
        return {
            "precision": _ratio(self.tp, self.tp + self.fp),
            "recall": _ratio(self.tp, self.tp + self.fn),
            "f1": _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn),
            "support": self.tp + self.fn,
        }

    def score(self, name: str, weights: Floats | None = None) -> Floats:
        """One of ``COUNTED`` with the leading dimensions kept; NaN where nothing is scored.

        Args:
            name: of the score.
            weights: ``(R, N)``: with N pictures, R scores, each of the weighted sums over the pictures.
        """
        if weights is not None:
            sums = ImageCounts(self.several, *[weights @ array for array in self.arrays])
            return sums.score(name)
        if name == "exact_match" or (name == "accuracy" and not self.several):
            return _ratio(self.right, self.known)
        if name == "accuracy":
            return 1 - _ratio((self.fp + self.fn).sum(-1), self.known * self.tp.shape[-1])
        if name == "balanced_accuracy":
            return _mean(self.per_class()["recall"], self.tp + self.fn > 0)
        kind, _, which = name.partition("_")
        if kind == "macro":  # a class that is never predicted has no precision; it counts as 0, as its F1 does
            return _mean(np.nan_to_num(self.per_class()[which]), self.tp + self.fp + self.fn > 0)
        pooled = [array.sum(-1, keepdims=True) for array in (self.tp, self.fp, self.fn)]
        return ImageCounts(self.several, *[*pooled, self.right, self.known]).per_class()[which][..., 0]

    @property
    def arrays(self) -> Sequence[Floats]:
        """Every array, in the order of the attributes."""
        return [getattr(self, each.name) for each in fields(self) if each.name != "several"]


def _ratio(part: Floats, whole: Floats) -> Floats:
    ratio: Floats = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
    return ratio


def _mean(values: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Over the chosen ones of the last dimension."""
    return _ratio(np.where(chosen, values, 0).sum(-1), chosen.sum(-1).astype(float))
