"""Scores of independent units and how much each unit moves them: what a bootstrap draws from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hsl.metrics.images.image_counts import Floats
from hsl.reports.scores import Counts
from hsl.reports.statistics.paired_tests import Interval

LEAST = 6  # independent groups below which neither an interval nor a verdict is given
TINY = 1e-9  # of the largest influence: a spread below it is that of rounding


class Statistic(Protocol):
    """A score of n units. ``width``: numbers per unit."""

    @property
    def width(self) -> int: ...
    @property
    def whole(self) -> float: ...
    @property
    def left_out(self) -> Floats: ...
    def resampled(self, times: Floats) -> Floats: ...


@dataclass(frozen=True)
class MeanOverPictures:
    """Mean over the pictures of n units: ``sums (n,)`` of their values and ``sizes (n,)``, how many they are."""

    sums: Floats
    sizes: Floats
    width: int = 1

    @classmethod
    def of(cls, values: Sequence[float], units: "Units") -> "MeanOverPictures":
        """Of one value per picture."""
        given = np.asarray(values, dtype=np.float64)
        sums: Floats = np.bincount(units.index, given, units.num).astype(np.float64)
        sizes: Floats = np.bincount(units.index, np.ones(len(given)), units.num).astype(np.float64)
        return cls(sums, sizes)

    @property
    def whole(self) -> float:
        return float(self.sums.sum() / self.sizes.sum())

    @property
    def left_out(self) -> Floats:
        means: Floats = (self.sums.sum() - self.sums) / (self.sizes.sum() - self.sizes)
        return means

    def resampled(self, times: Floats) -> Floats:
        mean: Floats = (times @ self.sums) / (times @ self.sizes)
        return mean


@dataclass(frozen=True)
class PooledScore:
    """The score ``metric`` of the summed counts of n units."""

    counts: Counts
    metric: str

    @property
    def width(self) -> int:
        return self.counts.width

    @property
    def whole(self) -> float:
        return float(self.counts.total.score(self.metric))

    @property
    def left_out(self) -> Floats:
        return self.counts.left_out.score(self.metric)

    def resampled(self, times: Floats) -> Floats:
        return self.counts.score(self.metric, times)


@dataclass(frozen=True)
class Units:
    """What is resampled: groups of pictures. ``index (N,)``: the place in ``names`` of the group of each picture."""

    names: tuple[str, ...]
    index: NDArray[Any]

    @classmethod
    def of(cls, groups: Sequence[str]) -> "Units":
        """Of the group of each picture; a picture without a group has its id there."""
        names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        return cls(tuple(names.tolist()), index)

    @property
    def num(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Contrast:
    """A score, or its difference between two models on the same units; ``bounds`` are those of its interval."""

    units: Units
    first: Statistic
    second: Statistic | None = None
    bounds: tuple[float, float] = (-math.inf, math.inf)

    @cached_property
    def mean(self) -> float:
        return self.first.whole - (self.second.whole if self.second else 0.0)

    @cached_property
    def left_out(self) -> Floats:
        """``(n,)`` what is left of it without each unit."""
        return self.first.left_out - (self.second.left_out if self.second else 0.0)

    @property
    def rests_on_one(self) -> bool:
        """Whether there is no score without one of the units: it alone shows all that is scored."""
        return self.units.num > 1 and math.isfinite(self.mean) and not np.isfinite(self.left_out).all()

    @cached_property
    def influence(self) -> Floats:
        """``(n,)`` how much each unit moves the score: jackknife pseudo-values less their mean (Tukey 1958).

        All zero where nothing is known of the spread: a value is absent, or the units are alike to rounding.
        """
        values = (self.units.num - 1) * (self.left_out.mean() - self.left_out)
        scale = max(float(np.abs(values).max(initial=0.0)), abs(self.mean))
        known = np.isfinite(values).all() and math.isfinite(self.mean) and np.ptp(values) > TINY * scale
        return values if known else np.zeros(self.units.num)

    @cached_property
    def standard_error(self) -> float:
        """Jackknife; 0 where nothing is known of the spread."""
        n = self.units.num
        return math.sqrt(float(self.influence @ self.influence) / (n * (n - 1))) if n > 1 else 0.0

    @property
    def can_be_judged(self) -> bool:
        """Whether there are units enough, and not all alike."""
        return self.units.num >= LEAST and self.standard_error > 0

    def interval(self, critical: float) -> Interval | None:
        """The mean with ``critical`` standard errors to either side; none where they are infinitely many."""
        if not math.isfinite(critical):
            return None
        reach = critical * self.standard_error
        low, high = (min(max(end, self.bounds[0]), self.bounds[1]) for end in (self.mean - reach, self.mean + reach))
        return Interval(self.mean, low, high)
