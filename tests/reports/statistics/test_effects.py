import math

import numpy as np
import pytest
from scipy import stats

from hsl.reports.statistics.effects import Tally, cohens_dz, rank_biserial, tally


def test_a_tally_counts_exact_ties_and_no_nan():
    values = [0.1, 1e-17, 0.0, -0.0, -0.3, math.nan]
    assert tally(values) == Tally(2, 2, 1)
    assert tally(values, higher_is_better=False, name="crack") == Tally(1, 2, 2, "crack")


def test_rank_biserial_equals_the_rank_sums_of_scipy():
    values = np.random.default_rng(0).normal(0.2, 1, 41)
    smaller = stats.wilcoxon(values).statistic  # the smaller of both rank sums
    total = len(values) * (len(values) + 1) / 2
    larger_is_positive = stats.wilcoxon(values, alternative="greater").statistic > total / 2
    expected = (total - 2 * smaller) / total * (1 if larger_is_positive else -1)
    assert rank_biserial(values) == pytest.approx(expected)
    assert rank_biserial(-values) == pytest.approx(-expected)


def test_rank_biserial_leaves_zeros_out_and_shares_ranks():
    # |values| 1, 1, 2 have ranks 1.5, 1.5, 3: (1.5 + 3 - 1.5) / 6
    assert rank_biserial([0.0, 1.0, -1.0, 2.0, 0.0]) == 0.5
    assert rank_biserial([0.0, 0.0]) == 0.0
    assert rank_biserial([0.1, 0.2]) == 1.0


def test_cohens_dz_is_the_t_statistic_over_the_root_of_n():
    values = np.random.default_rng(1).normal(0.3, 1, 25)
    assert cohens_dz(values) == pytest.approx(stats.ttest_1samp(values, 0).statistic / 5)


def test_cohens_dz_without_spread():
    assert math.isnan(cohens_dz([0.1]))
    assert cohens_dz([0.0, 0.0]) == 0.0
    assert cohens_dz([-0.1, -0.1]) == -math.inf
