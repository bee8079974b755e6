"""The bootstrap of scores: whole groups are drawn, all models on the same draws, and pairs are judged together."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from hsl.metrics.images.image_counts import Floats
from hsl.reports.statistics.contrasts import LEAST, TINY, Contrast
from hsl.reports.statistics.paired_tests import Interval
from hsl.reports.statistics.power import groups_needed, smallest_difference

LEVEL = 0.05
CHUNK = 4_000_000  # numbers drawn at once: bounds the memory of the bootstrap


@dataclass(frozen=True)
class Estimate:
    """What a bootstrap over units says of a score or of a difference.

    ``interval``: 95 %, by itself; ``p``: of no difference, by itself. ``adjusted`` and ``adjusted_p``: the same for all
    differences judged together, so that one of them all is wrong in 5 % at most. ``smallest``: the difference that so
    many units show in 80 % of studies; ``needed``: how many units would show one of the size found so often, none where
    no number that can be had would. Without ``interval`` nothing is known of the spread: below ``LEAST`` units, where
    all units are alike, or where there is no score without one of them (``rests_on_one``).
    """

    mean: float
    num_units: int
    interval: Interval | None = None
    adjusted: Interval | None = None
    p: float = math.nan
    adjusted_p: float = math.nan
    smallest: float = math.nan
    needed: int | None = None
    rests_on_one: bool = False

    @property
    def is_shown(self) -> bool:
        """Whether there is a difference: adjusted p below 0.05 and an adjusted interval without 0."""
        return self.adjusted is not None and self.adjusted_p < LEVEL and not self.adjusted.holds_zero

    @property
    def is_clear(self) -> bool:
        """Whether the interval, by itself, has no 0."""
        return self.interval is not None and not self.interval.holds_zero


def judge(contrasts: Sequence[Contrast], resamples: int, seed: int, prior: float = 0.0) -> list[Estimate]:
    """Judge differences together: symmetric bootstrap-t over units, adjusted for all of them by the smallest p.

    In every resample whole units are drawn with replacement, the same for all models. The score of the units drawn,
    less that of all units, is divided by the standard error of the units drawn: ``t* = (d* - d) / se*``, with se* from
    the influence of each unit (Efron & Tibshirani 1993, chapters 11 and 12.5). p is the share of resamples with
    ``|t*| >= |d / se|`` (Hall 1988, "On symmetric bootstrap confidence intervals"), and never below that of Student's
    t with n - 1 degrees of freedom: with many ties the bootstrap alone is too sure. The adjusted p is the share of
    resamples in which the smallest p of all differences is as small (Westfall & Young 1993, "Resampling-based multiple
    testing", min-P); the adjusted intervals are at the level that each difference is held to by that. Differences
    without a spread are not among them. Units that are not the same for all pairs are drawn for each set of units.

    Args:
        contrasts: the differences of one table.
        resamples: at least 1, 10 000 by convention; fewer than 20 a difference can show next to nothing.
        seed: of the resampling.
        prior: so many units with the spread of all are added to each resample where its spread is taken.

    Example:
        Six groups are better by about 1, each of one picture:

        >>> from hsl.reports.statistics.contrasts import MeanOverPictures, Units
        >>> units = Units.of(["a", "b", "c", "d", "e", "f"])
        >>> values = [0.8, 1.0, 1.1, 0.9, 1.2, 1.0]
        >>> (found,) = judge([Contrast(units, MeanOverPictures.of(values, units))], 10_000, seed=0)
        >>> round(found.mean, 6), found.is_shown, round(found.interval.low, 1), round(found.interval.high, 1)
        (1.0, True, 0.8, 1.2)
    """
    live = [i for i, each in enumerate(contrasts) if each.can_be_judged]
    drawn = np.empty((len(live), resamples))
    for names in dict.fromkeys(contrasts[i].units.names for i in live):
        rows = [row for row, i in enumerate(live) if contrasts[i].units.names == names]
        drawn[rows] = _studentised([contrasts[live[row]] for row in rows], resamples, seed, prior)
    found = [Estimate(each.mean, each.units.num, rests_on_one=each.rests_on_one) for each in contrasts]
    ordered = np.sort(drawn, axis=1)
    smallest = np.full(resamples, resamples + 1)
    for line, in_order in zip(drawn, ordered, strict=True):
        smallest = np.minimum(smallest, resamples - np.searchsorted(in_order, line, "left"))
    together, alone = _Reference(np.sort(smallest)), _Reference(np.arange(1, resamples + 1))
    for row, i in enumerate(live):
        found[i] = _estimate(contrasts[i], ordered[row], alone, together)
    return found


def estimates(contrasts: Sequence[Contrast], resamples: int, seed: int) -> list[Estimate]:
    """As `judge`, each by itself, and with an interval also where few units differ from the others.

    Where three pictures of a hundred are wrong, 5 % of the resamples hold none of them and have no spread; with half a
    unit of prior spread the interval of such a score stays finite.
    """
    return [each for one in contrasts for each in judge([one], resamples, seed, prior=0.5)]


@dataclass(frozen=True)
class _Reference:
    """In how many resamples a t was exceeded, the smallest of all differences: ``counts (R,)`` in order."""

    counts: NDArray[Any]
    limit: int = field(init=False)

    def __post_init__(self) -> None:
        places = math.ceil(LEVEL * (len(self.counts) + 1)) - 2
        object.__setattr__(self, "limit", int(self.counts[places]) if places >= 0 else 0)

    @property
    def level(self) -> float:
        """What the p of a single difference has to be below; 0 where there are too few resamples to say."""
        return self.limit / (len(self.counts) + 1) if self.limit > 1 else 0.0

    def critical(self, in_order: Floats, freedom: int) -> float:
        """What t has to be above; infinite where there are too few resamples to say."""
        if not self.level:
            return math.inf
        return max(float(in_order[len(in_order) - self.limit + 1]), -float(stdtrit(freedom, self.level / 2)))

    def adjust(self, p: float) -> float:
        size = len(self.counts) + 1
        return max(p, float(1 + np.searchsorted(self.counts, p * size * (1 + TINY), "right")) / size)


def _estimate(contrast: Contrast, in_order: Floats, alone: _Reference, together: _Reference) -> Estimate:
    size, freedom = len(in_order) + 1, contrast.units.num - 1
    t = abs(contrast.mean) / contrast.standard_error
    exceeded = (size - np.searchsorted(in_order, t * (1 - TINY), "left")) / size
    p = max(float(exceeded), 2 * float(stdtr(freedom, -t)))
    alone_critical = alone.critical(in_order, freedom)
    critical = max(alone_critical, together.critical(in_order, freedom))  # ties may turn the two round
    spread = contrast.standard_error * math.sqrt(contrast.units.num)
    smallest = smallest_difference(contrast.standard_error, critical, contrast.units.num)
    wider = max(1.0, critical / -float(stdtrit(freedom, together.level / 2))) if together.level else 1.0
    return Estimate(
        contrast.mean,
        contrast.units.num,
        contrast.interval(alone_critical),
        contrast.interval(critical),
        p,
        together.adjust(p),
        smallest if math.isfinite(smallest) and smallest <= max(map(abs, contrast.bounds)) else math.nan,
        groups_needed(abs(contrast.mean), spread, together.level, LEAST, wider),
    )


def _studentised(contrasts: Sequence[Contrast], resamples: int, seed: int, prior: float) -> Floats:
    """``|t*|`` of each contrast ``(P, R)``, all on the same units; infinite where the units drawn have no spread."""
    num = contrasts[0].units.num
    statistics = {id(one): one for each in contrasts for one in (each.first, each.second) if one is not None}
    influence = np.stack([each.influence for each in contrasts], axis=1)
    errors = np.array([each.standard_error for each in contrasts])
    pieces = []
    for times in _draws(num, resamples, seed, max(one.width for one in statistics.values())):
        scores = {key: one.resampled(times) for key, one in statistics.items()}
        moved = np.stack([_difference(each, scores) - each.mean for each in contrasts], axis=1)
        mean = times @ influence / num
        variance = (times @ influence**2 / num - mean**2) / (num - 1)
        variance = np.where(variance > TINY * errors**2, variance, 0.0)
        spread = np.sqrt((num * variance + prior * errors**2) / (num + prior))
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(moved) / spread
        t[np.abs(moved) <= TINY * errors] = 0.0
        pieces.append(np.where(np.isnan(t), np.inf, t))
    return np.concatenate(pieces).T


def _difference(contrast: Contrast, scores: dict[int, Floats]) -> Floats:
    first = scores[id(contrast.first)]
    return first - scores[id(contrast.second)] if contrast.second is not None else first


def _draws(num: int, resamples: int, seed: int, width: int) -> Iterator[Floats]:
    """How often each unit is in each resample ``(r, num)``, in pieces that bound the memory."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, step := max(1, CHUNK // max(width, num))):
        rows = min(step, resamples - start)
        drawn = rng.integers(num, size=(rows, num)) + num * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * num).reshape(rows, num).astype(np.float64)
