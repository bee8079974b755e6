"""The statistics of the comparison of parts against SciPy, and how often the permutation test cries wolf."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.spatial.distance import jensenshannon

from hsl.reports.statistics.part_statistics import chi_square, dealt_p, divergence, expected_counts, share_v, too_sparse

shapes = st.tuples(st.integers(2, 4), st.integers(2, 6))


@settings(max_examples=60, deadline=None)
@given(shapes.flatmap(lambda shape: arrays(np.int64, shape, elements=st.integers(1, 80))))
def test_chi_square_and_cramers_v_equal_scipy(counts):
    found = chi_square(counts)
    expected = stats.chi2_contingency(counts, correction=False)
    assert (found.chi2, found.freedom, found.p) == pytest.approx((expected.statistic, expected.dof, expected.pvalue))
    assert found.cramers_v == pytest.approx(stats.contingency.association(counts, method="cramer"), abs=1e-9)
    np.testing.assert_allclose(expected_counts(counts), stats.contingency.expected_freq(counts))


@settings(max_examples=60, deadline=None)
@given(arrays(np.int64, (2, 5), elements=st.integers(0, 1000)).filter(lambda counts: counts.sum(1).min() > 0))
def test_divergence_equals_scipy_and_v_that_of_parts_of_one_size(counts):
    first, second = counts
    assert float(divergence(first, second)) == pytest.approx(jensenshannon(first, second, base=2) ** 2, abs=1e-12)
    assert 0 <= float(divergence(first, second)) <= 1
    equal = np.stack([first * second.sum(), second * first.sum()])
    equal = equal[:, equal.sum(0) > 0]
    expected = stats.contingency.association(equal, method="cramer") if equal.shape[1] > 1 else 0.0
    assert share_v(first, second) == pytest.approx(expected, abs=1e-9)
    assert share_v(first, second) == share_v(3 * first, second)


def test_by_hand():
    assert float(divergence(np.array([1, 0]), np.array([0, 1]))) == 1
    assert float(divergence(np.array([2, 6]), np.array([1, 3]))) == 0
    assert chi_square(np.array([[10, 0], [0, 10]])).cramers_v == 1
    assert share_v(np.array([5, 0]), np.array([7, 0])) == 0


def test_groups_apart_are_shown_and_equal_ones_are_not():
    rng = np.random.default_rng(0)
    ours, theirs = (rng.multinomial(1000, shares, size=12) for shares in ([0.8, 0.2], [0.5, 0.5]))
    assert dealt_p(ours, theirs) == 1 / 1000
    assert dealt_p(ours, ours) == 1
    assert dealt_p(ours, theirs) == dealt_p(ours, theirs)


def test_equal_populations_are_called_unlike_in_five_of_a_hundred_at_most():
    """Groups that differ among themselves a lot: pixels are no units, groups are."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(150):
        shares = rng.dirichlet([1, 0.5, 0.3], size=20)
        counts = np.stack([rng.multinomial(10_000, share) for share in shares])
        found.append(dealt_p(counts[:14], counts[14:]))
    pixels = chi_square(np.stack([counts[:14].sum(0), counts[14:].sum(0)]) + 1).p
    rate = np.mean(np.array(found) < 0.05)
    print(f"equal populations called unlike: {100 * rate:.1f} %; by a chi-square over pixels p = {pixels:.1e}")
    assert rate <= 0.09  # 5 % and two standard errors
    assert pixels < 1e-6


@pytest.mark.parametrize(("share", "sizes"), [(0.066, (283, 142, 75)), (0.03, (500, 200, 60)), (0.5, (12, 12))])
def test_equal_shares_are_called_unlike_in_seven_of_a_hundred_at_most_at_the_edge_of_the_rule(share, sizes):
    rng, p = np.random.default_rng(0), []
    while len(p) < 3000:
        hits = rng.binomial(sizes, share)
        table = np.stack([hits, np.array(sizes) - hits], axis=1)
        if not too_sparse(table, "groups"):
            p.append(chi_square(table).p)
    rate = np.mean(np.array(p) < 0.05)
    print(f"{sizes}, share {share}: {100 * rate:.1f} % of equal parts called unlike")
    assert rate <= 0.075


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ([[9, 3], [40, 10]], "1 of 4 cells expect fewer than 5 groups, a fifth may"),
        ([[14, 269], [8, 134], [11, 64]], ""),  # one cell of six expects 4.95
        ([[3, 90], [1, 9]], "0.39 groups expected in a cell, at least 1 is needed"),
        ([[10, 10], [10, 10]], ""),
    ],
)
def test_too_sparse_by_the_rule_of_cochran(counts, reason):
    assert too_sparse(np.array(counts), "groups") == reason
