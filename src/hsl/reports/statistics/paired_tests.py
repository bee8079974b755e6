"""Statistics of a comparison, as pure functions: tests, and effects that do not grow with the number of images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.stats import rankdata


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation of ``num`` values; NaN where there are too few."""

    mean: float
    std: float
    num: int


@dataclass(frozen=True)
class Interval:
    """A score, or a difference of scores, with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether no difference is shown; also where the interval is not known."""
        return not (self.low > 0 or self.high < 0)


def mean_std(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation (ddof = 1), NaN values left out and not counted.

    One value has no spread: its ``std`` is NaN, never 0.

    >>> mean_std([0.25, 0.5, 0.75])
    Summary(mean=0.5, std=0.25, num=3)
    """
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return Summary(math.nan, math.nan, 0)
    mean = math.fsum(known) / len(known)
    if len(known) == 1:
        return Summary(mean, math.nan, 1)
    squares = math.fsum((value - mean) ** 2 for value in known)
    return Summary(mean, math.sqrt(squares / (len(known) - 1)), len(known))


def harmonic_mean(values: Sequence[float]) -> float:
    """Of at least one value, each at least 0; 0 where one of them is 0, NaN where one is NaN, as ``val/h_mean`` is.

    ``statistics.harmonic_mean`` gives 0 for 0 and NaN, and another last bit in 26 % of 100,000 trials;
    ``scipy.stats.hmean`` takes 230 times as long (188 us for four values) and warns of values below 1e-308.

    >>> harmonic_mean([0.25, 0.75]), harmonic_mean([0.0, 0.5])
    (0.375, 0.0)
    """
    if any(math.isnan(value) for value in values):
        return math.nan
    return len(values) / math.fsum(1 / value for value in values) if all(values) else 0.0


def wilcoxon(differences: Sequence[float]) -> float:
    """Two-sided p of the Wilcoxon signed-rank test; differences of zero are left out (Wilcoxon 1945).

    Without any difference other than zero, p = 1.

    Raises:
        ValueError: no difference, or one that is not finite.

    >>> wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0])
    0.0625
    """
    values = _checked(differences, least=1)
    values = values[values != 0]
    return float(stats.wilcoxon(values).pvalue) if len(values) else 1.0


def mcnemar(first: int, second: int) -> float:
    """Two-sided p of McNemar's exact test: pictures that only one of two classifiers has right (McNemar 1947).

    Where both are equally good, each of the ``first + second`` pictures falls to either side with probability 1/2;
    p is that of the binomial distribution. Without any such picture, p = 1.

    Args:
        first: pictures that only the first has right, at least 0.
        second: pictures that only the second has right, at least 0.

    >>> mcnemar(1, 5)  # 2 (1 + 6) / 2^6
    0.21875
    """
    return float(stats.binomtest(first, first + second).pvalue) if first + second else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p values ``max_{j<=i} min(1, (m - j + 1) p_(j))``: family-wise error rate kept (Holm 1979).

    NaN (a comparison that was not made) stays NaN and does not count.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    made = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    adjusted, highest = [math.nan] * len(p), 0.0
    for rank, (value, i) in enumerate(made):
        highest = max(highest, min(1.0, (len(made) - rank) * value))
        adjusted[i] = highest
    return adjusted


def corrected_resampled_t(differences: Sequence[float], test_share: float) -> tuple[float, float]:
    """Corrected resampled t-test over folds ("Inference for the Generalization Error", Nadeau & Bengio 2003).

    Training sets of different folds overlap, so the differences are no independent sample; the variance of
    their mean is enlarged: ``t = mean / sqrt((1/k + test_share) s^2)`` with k - 1 degrees of freedom.

    Args:
        differences: one per fold, finite, k >= 2.
        test_share: pictures validated over pictures trained on, > 0; 1 / (k - 1) for k equal folds.

    Returns:
        t and the two-sided p; (0, 1) when all differences are zero.

    Raises:
        ValueError: fewer than two folds, a value that is not finite, or ``test_share <= 0``.

    >>> t, p = corrected_resampled_t([0.02, 0.04, 0.06], test_share=0.5)
    >>> round(t, 4), round(p, 4)
    (2.1909, 0.1598)
    """
    values = _checked(differences, least=2)
    if not test_share > 0:
        raise ValueError(f"`test_share` should be above 0. Found `test_share = {test_share}`.")
    mean = float(values.mean())
    if np.ptp(values) == 0:  # exactly; the variance of equal values need not be 0 in floating point
        return (0.0, 1.0) if mean == 0 else (math.copysign(math.inf, mean), 0.0)
    t = mean / math.sqrt((1 / len(values) + test_share) * values.var(ddof=1))
    return t, float(2 * stats.t.sf(abs(t), len(values) - 1))


def _checked(differences: Sequence[float], least: int) -> NDArray[Any]:
    values = np.asarray(differences, dtype=float)
    if len(values) < least or not np.isfinite(values).all():
        raise ValueError(
            f"`differences` should be at least {least} finite values. Found {len(values)}, "
            f"{np.isfinite(values).sum()} of them finite."
        )
    return values


@dataclass(frozen=True)
class Tally:
    """On how many pictures the first model is better, alike to the last bit, and worse; ``name`` is a class."""

    wins: int
    ties: int
    losses: int
    name: str = ""


def tally(differences: Sequence[float], higher_is_better: bool = True, name: str = "") -> Tally:
    """Count the pictures that each of two models wins; a tie is a difference of exactly 0, NaN is no picture.

    >>> tally([0.1, 0.0, -0.2, 0.3])
    Tally(wins=2, ties=1, losses=1, name='')
    """
    values = np.asarray(differences, dtype=float) * (1 if higher_is_better else -1)
    return Tally(int((values > 0).sum()), int((values == 0).sum()), int((values < 0).sum()), name)


def rank_biserial(differences: Sequence[float]) -> float:
    """Matched-pairs rank-biserial correlation: the effect size of the Wilcoxon signed-rank test.

    ``r = (W+ - W-) / (W+ + W-)`` with the rank sums of the positive and the negative differences; zeros are left
    out. 1: every difference is positive, -1: every one is negative. Source: Kerby 2014, "The simple difference
    formula: an approach to teaching nonparametric correlation".

    Args:
        differences: finite, at least 1.

    Returns:
        In [-1, 1]; 0 where all differences are zero.

    >>> rank_biserial([1.0, 2.0, 3.0, -4.0])  # (6 - 4) / 10
    0.2
    """
    values = np.asarray(differences, dtype=float)
    values = values[values != 0]
    if not len(values):
        return 0.0
    ranks = rankdata(np.abs(values))
    return float(ranks @ np.sign(values) / ranks.sum())


def cohens_dz(differences: Sequence[float]) -> float:
    """Mean over sample standard deviation of paired differences.

    Source: Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", section 2.3.5.

    Args:
        differences: finite, at least 1.

    Returns:
        NaN with one difference; 0 where all are zero, infinite where all are equal and not zero.

    >>> cohens_dz([1.0, 2.0, 3.0])
    2.0
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return math.nan
    mean = float(values.mean())
    if np.ptp(values) == 0:
        return 0.0 if mean == 0 else math.copysign(math.inf, mean)
    return mean / float(values.std(ddof=1))
