"""Whether the parts of a split hold the same classes: tests over groups, effect sizes, and a sentence for each."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from hsl.reports.statistics.paired_tests import holm
from hsl.reports.statistics.resampling import LEVEL
from hsl.reports.statistics.verdicts import p_text
from hsl.run_folder.provenance import PartTest

LEAST_EXPECTED, ENOUGH = 1, 5  # in a cell: of all, and of four in five
LEAST_WAYS = 20  # to deal the groups, below which no p can be under 0.05
DRAWS = 999
SIZES = {0.1: "negligible", 0.3: "small", 0.5: "medium", math.inf: "large"}  # of w = V sqrt(min(R, K) - 1), Cohen 1988
EVERY = "all classes"


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


@dataclass(frozen=True)
class PartCounts:
    """What the groups of one part hold of the classes of one head.

    ``pixels (G, C)``: valid pixels, none for an image head. ``shown (G, C)``: whether a picture of the group shows the
    class. ``known (G, C)``: whether that is known of one of its pictures.
    """

    pixels: NDArray[Any] | None
    shown: NDArray[Any]
    known: NDArray[Any]


def _size(test: PartTest) -> str:
    """Of the effect, in a word."""
    columns = min(len(test.groups), test.freedom // (len(test.groups) - 1) + 1) if test.freedom else 2
    w = (test.cramers_v or 0.0) * math.sqrt(columns - 1)
    return next(name for limit, name in SIZES.items() if w < limit)


def differs(test: PartTest) -> bool:
    """Whether the parts are unlike beyond chance, and by more than a negligible effect."""
    return test.adjusted_p is not None and test.adjusted_p < LEVEL and _size(test) != "negligible"


def part_verdict(test: PartTest) -> str:
    """What follows, from size and p together."""
    if test.reason:
        return f"not tested: {test.reason}"
    if test.adjusted_p is None:
        return "not tested"
    if _size(test) == "negligible":
        return "alike" if test.adjusted_p >= LEVEL else "a difference beyond chance, but a negligible one"
    if differs(test):
        return f"unlike, a {_size(test)} difference"
    return f"a {_size(test)} difference, no more than chance may give so few groups"


def sentence(test: PartTest, unit: str) -> str:
    """A test in words; ``unit`` is what was counted, groups or pictures."""
    numbers = [] if test.divergence is None else [f"Jensen-Shannon divergence {test.divergence:.3f} bits"]
    numbers += [] if test.cramers_v is None else [f"Cramer's V {test.cramers_v:.2f}"]
    numbers += [] if test.adjusted_p is None else [p_text(test.adjusted_p)]
    told = f" ({', '.join(numbers)})" if numbers else ""
    parts = _listed(list(test.groups))
    what = {"pixels": f"Pixels of the classes, {parts}", "classes": f"Classes of the {unit}, {parts}"}
    shares = _listed([f"{100 * share:.0f} % of {part}" for part, share in test.shares.items()])
    shown = f"`{test.subject}`: shown by {shares or 'nothing known'}"
    return f"{what.get(test.of, shown)}: {part_verdict(test)}{told}."


def compare_parts(
    head: str, classes: Sequence[str], parts: Mapping[str, PartCounts], unit: str, *, one_class: bool = False
) -> list[PartTest]:
    """Compare the parts of a split in one head.

    Args:
        head: its name.
        classes: C names.
        parts: those that hold pictures.
        unit: what the rows of the counts are, ``groups`` or ``pictures``.
        one_class: whether a picture has one class only; then, if each group has, they are compared all at once too.
    """
    shown = [_shown(head, name, i, parts, unit) for i, name in enumerate(classes)]
    single = one_class and all((each.shown.sum(1) <= 1).all() for each in parts.values())
    pairs = [
        _pixels(head, pair, {part: parts[part] for part in pair}, unit)
        for pair in itertools.combinations(parts, 2)
        if all(parts[part].pixels is not None for part in pair)
    ]
    return [*_adjusted(pairs), *_adjusted([_classes(head, parts, unit)] if single else []), *_adjusted(shown)]


def _shown(head: str, name: str, i: int, parts: Mapping[str, PartCounts], unit: str) -> PartTest:
    known = {part: int(each.known[:, i].sum()) for part, each in parts.items() if each.known[:, i].any()}
    hits = {part: int((parts[part].shown[:, i] & parts[part].known[:, i]).sum()) for part in known}
    shares = {part: hits[part] / number for part, number in known.items()}
    made = PartTest(head=head, of="shown", subject=name, groups=known, shares=shares)
    if len(known) > 1 and len(set(shares.values())) == 1 and next(iter(shares.values())) in (0, 1):
        every = "every one shows" if next(iter(shares.values())) else "none shows"
        return made.model_copy(update={"reason": f"{every} it"})
    return _chi_square(made, np.array([[hits[part], number - hits[part]] for part, number in known.items()]), unit)


def _classes(head: str, parts: Mapping[str, PartCounts], unit: str) -> PartTest:
    counts = {part: each.shown.sum(0) for part, each in parts.items() if each.shown.any()}
    made = PartTest(head=head, of="classes", subject=EVERY, groups={part: int(n.sum()) for part, n in counts.items()})
    table = np.stack(list(counts.values())) if counts else np.zeros((0, 0))
    return _chi_square(made, table[:, table.sum(0) > 0], unit)


def _chi_square(made: PartTest, table: NDArray[Any], unit: str) -> PartTest:
    if min(table.shape) < 2:
        return made.model_copy(update={"reason": f"fewer than two parts, or classes, with known {unit}"})
    found = chi_square(table)  # no row or column is empty
    if reason := too_sparse(table, unit):
        return made.model_copy(update={"cramers_v": found.cramers_v, "reason": reason})
    return made.model_copy(
        update={"chi2": found.chi2, "freedom": found.freedom, "p": found.p, "cramers_v": found.cramers_v}
    )


def _pixels(head: str, pair: Sequence[str], parts: Mapping[str, PartCounts], unit: str) -> PartTest:
    """Groups without a valid pixel are left out."""
    given = [parts[part].pixels for part in pair]
    first, second = (counts[counts.sum(1) > 0] for counts in given if counts is not None)
    groups = dict(zip(pair, (len(first), len(second)), strict=True))
    made = PartTest(head=head, of="pixels", subject=EVERY, groups=groups)
    if not len(first) or not len(second):
        return made.model_copy(update={"reason": "a part has no valid pixel"})
    a, b = first.sum(0), second.sum(0)
    sizes = {"divergence": float(divergence(a, b)), "cramers_v": share_v(a, b)}
    ways = math.comb(len(first) + len(second), len(first))
    if ways < LEAST_WAYS:
        reason = f"so few {unit} can be dealt in {ways} ways, at least {LEAST_WAYS} are needed"
        return made.model_copy(update=sizes | {"reason": reason})
    return made.model_copy(update=sizes | {"p": dealt_p(first, second)})


def _adjusted(tests: Sequence[PartTest]) -> list[PartTest]:
    adjusted = holm([math.nan if test.p is None else test.p for test in tests])
    return [
        test.model_copy(update={"adjusted_p": None if math.isnan(p) else p})
        for test, p in zip(tests, adjusted, strict=True)
    ]


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
