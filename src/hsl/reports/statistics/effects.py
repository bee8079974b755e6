"""How large a difference is, in numbers that do not grow with the number of pictures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata


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
