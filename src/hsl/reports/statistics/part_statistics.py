"""How unlike the classes of two or three samples are: tests of independence, divergence, effect sizes."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

LEAST_EXPECTED, ENOUGH = 1, 5  # in a cell: of all, and of four in five
LEAST_WAYS = 20  # to deal the groups, below which no p can be under 0.05
DRAWS = 999


@dataclass(frozen=True)
class Independence:
    """Pearson's test: statistic, degrees of freedom, p and Cramer's V."""

    chi2: float
    freedom: int
    p: float
    cramers_v: float


def too_sparse(counts: NDArray[Any], unit: str) -> str:
    """Why the chi-square distribution is no approximation for a contingency table ``(R, K)``; empty where it is one.

    Of the counts that independence lets expect none should be below 1 and a fifth at most below 5 (Cochran 1954, "Some
    Methods for Strengthening the Common Chi-Square Tests"); of a table of two by two that is none.

    >>> too_sparse(np.array([[9, 3], [40, 10]]), "groups")
    '1 of 4 cells expect fewer than 5 groups, a fifth may'
    """
    cells = expected_counts(counts)
    if cells.min() < LEAST_EXPECTED:
        return f"{cells.min():.2f} {unit} expected in a cell, at least {LEAST_EXPECTED} is needed"
    few = int((cells < ENOUGH).sum())
    return f"{few} of {cells.size} cells expect fewer than {ENOUGH} {unit}, a fifth may" if 5 * few > cells.size else ""


def expected_counts(counts: NDArray[Any]) -> NDArray[Any]:
    """What independence lets expect in each cell of a contingency table: row sum x column sum / n."""
    found: NDArray[Any] = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
    return found


def chi_square(counts: NDArray[Any]) -> Independence:
    """Pearson's chi-square test of independence, without a correction for continuity (Pearson 1900).

    ``chi2 = sum (n_ij - e_ij)^2 / e_ij`` with ``e_ij`` = row sum x column sum / n. Cramer's
    ``V = sqrt(chi2 / (n min(R - 1, K - 1)))`` is 0 where the rows are alike and 1 where each column is of one row.

    Args:
        counts: ``(R, K)`` of independent units; every row and every column holds one at least; R and K are above 1.

    Example:
        >>> found = chi_square(np.array([[30, 10], [20, 40]]))
        >>> round(found.chi2, 4), found.freedom, round(found.cramers_v, 4)
        (16.6667, 1, 0.4082)
    """
    expected = expected_counts(counts)
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    v = math.sqrt(chi2 / (counts.sum() * (min(counts.shape) - 1)))
    return Independence(chi2, freedom, float(chdtrc(freedom, chi2)), v)


def divergence(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Jensen-Shannon divergence of two distributions, in bits (Lin 1991): 0 where alike, 1 where nothing is in common.

    ``H((p + q) / 2) - (H(p) + H(q)) / 2`` with the entropy ``H(p) = -sum p log2 p``.

    Args:
        first: counts or shares ``(..., K)``, not all 0.
        second: the same of the other sample.

    Example:
        >>> round(float(divergence(np.array([3, 1]), np.array([1, 3]))), 4)
        0.1887
    """
    p, q = (values / values.sum(-1, keepdims=True) for values in (first, second))
    found: NDArray[Any] = np.clip(_entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2, 0, 1)
    return found


def share_v(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Cramer's V of two distributions ``(K,)``, each of the same weight whatever its sum.

    Example:
        >>> share_v(np.array([3, 1]), np.array([10, 30]))
        0.5
    """
    shares = np.stack([first / first.sum(), second / second.sum()])
    return chi_square(shares[:, shares.sum(0) > 0]).cramers_v if (shares.sum(0) > 0).sum() > 1 else 0.0


def dealt_p(first: NDArray[Any], second: NDArray[Any], seed: int = 0) -> float:
    """How often the groups of two samples, dealt anew by chance, are as unlike: p of a permutation test.

    The statistic is the `divergence` of the summed counts; each of ``DRAWS`` draws gives the first sample as many
    groups as it has. ``p = (1 + draws as unlike) / (1 + draws)`` (Phipson & Smyth 2010).

    Args:
        first: counts per group ``(G, K)``.
        second: the same of the other sample.
        seed: of the draws.
    """
    every, size, rng = np.concatenate([first, second]).astype(np.float64), len(first), np.random.default_rng(seed)
    total = every.sum(0)
    drawn = np.stack([every[rng.permutation(len(every))[:size]].sum(0) for _ in range(DRAWS)])
    rest = total - drawn
    filled = (drawn.sum(1) > 0) & (rest.sum(1) > 0)
    found = float(divergence(first.sum(0), second.sum(0)))
    as_unlike = divergence(drawn[filled], rest[filled]) >= found - 1e-12
    return float(1 + as_unlike.sum() + (~filled).sum()) / (1 + DRAWS)


def _entropy(shares: NDArray[Any]) -> NDArray[Any]:
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    found: NDArray[Any] = -(shares * logs).sum(-1)
    return found
