import itertools
import math
import statistics

import numpy as np
import pytest
from scipy import stats

from hsl.reports.statistics.paired_tests import (
    Summary,
    Tally,
    cohens_dz,
    corrected_resampled_t,
    harmonic_mean,
    holm,
    mcnemar,
    mean_std,
    rank_biserial,
    tally,
    wilcoxon,
)


def test_mean_and_sample_standard_deviation_by_hand():
    # mean 0.6; squares 0.01 + 0 + 0.01 = 0.02; / 2 = 0.01
    summary = mean_std([0.5, 0.6, 0.7])
    assert summary.mean == pytest.approx(0.6)
    assert summary.std == pytest.approx(0.1)
    assert summary.num == 3


def test_one_value_has_no_spread_and_none_has_no_mean():
    one = mean_std([0.4])
    assert (one.mean, one.num) == (0.4, 1)
    assert math.isnan(one.std)
    none = mean_std([math.nan])
    assert math.isnan(none.mean)
    assert none.num == 0


def test_nan_is_left_out_and_not_counted():
    assert mean_std([0.25, math.nan, 0.75]) == Summary(0.5, pytest.approx(math.sqrt(0.125)), 2)


def test_harmonic_mean_equals_that_of_the_standard_library_but_is_nan_where_a_value_is_unknown():
    for values in ([0.25, 0.75], [0.3, 0.4, 0.9], [0.0, 0.5], [1.0]):
        assert harmonic_mean(values) == pytest.approx(statistics.harmonic_mean(values))
    assert math.isnan(harmonic_mean([0.0, math.nan]))


def test_wilcoxon_equals_the_enumeration_of_all_signs():
    values = np.array([0.3, -0.1, 0.5, 0.7, -0.2, 0.9])
    ranks = stats.rankdata(np.abs(values))
    observed = ranks[values > 0].sum()
    sums = [ranks[np.array(signs)].sum() for signs in itertools.product([False, True], repeat=6)]
    extreme = np.mean([abs(s - ranks.sum() / 2) >= abs(observed - ranks.sum() / 2) for s in sums])
    assert wilcoxon(values) == pytest.approx(extreme)


def test_wilcoxon_leaves_zeros_out():
    assert wilcoxon([0.0] * 5) == 1.0
    assert wilcoxon([0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]) == wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0]) == 0.0625
    assert wilcoxon([0.5]) == 1.0


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04 -> 0.06 by monotony
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_does_not_count_what_was_not_compared():
    adjusted = holm([0.01, math.nan, 0.02])
    assert adjusted[0] == pytest.approx(0.02)
    assert adjusted[2] == pytest.approx(0.02)
    assert math.isnan(adjusted[1])


def test_holm_rejects_as_the_step_down_procedure():
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.random(rng.integers(1, 8)) ** 3
        rejected = np.zeros(len(p), dtype=bool)
        for rank, i in enumerate(np.argsort(p)):
            if p[i] > 0.05 / (len(p) - rank):
                break
            rejected[i] = True
        assert (np.array(holm(p)) <= 0.05).tolist() == rejected.tolist()


def test_corrected_t_by_hand():
    # mean 0.04, variance 0.0004, (1/3 + 1/2) * 0.0004 = 0.000333, t = 0.04 / 0.018257 = 2.1909
    # with 2 degrees of freedom P(|T| > t) = 1 - t / sqrt(2 + t^2) = 1 - 2.1909 / sqrt(6.8) = 0.15983
    t, p = corrected_resampled_t([0.02, 0.04, 0.06], test_share=0.5)
    assert t == pytest.approx(2.19089, abs=1e-5)
    assert p == pytest.approx(1 - 2.19089 / math.sqrt(6.8), abs=1e-5)


def test_corrected_t_is_weaker_than_the_plain_one_and_becomes_it_without_overlap():
    values = [0.01, 0.03, 0.02, 0.05, 0.01]
    plain = stats.ttest_1samp(values, 0)
    t, p = corrected_resampled_t(values, test_share=1e-12)
    assert (t, p) == (pytest.approx(plain.statistic), pytest.approx(plain.pvalue))
    assert corrected_resampled_t(values, test_share=0.25)[1] > plain.pvalue


def test_corrected_t_without_spread():
    assert corrected_resampled_t([0.0, 0.0, 0.0], test_share=0.5) == (0.0, 1.0)
    assert corrected_resampled_t([0.1, 0.1, 0.1], test_share=0.5) == (math.inf, 0.0)
    assert corrected_resampled_t([-0.1, -0.1], test_share=1) == (-math.inf, 0.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilcoxon([]),
        lambda: corrected_resampled_t([0.1], test_share=0.5),
        lambda: corrected_resampled_t([0.1, 0.2], test_share=0),
    ],
)
def test_wrong_arguments(call):
    with pytest.raises(ValueError, match=r"`\w+` should .* Found"):
        call()


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(0, 0, 1.0), (3, 3, 1.0), (0, 5, 2 / 2**5), (1, 5, 2 * (1 + 6) / 2**6), (10, 2, 2 * (1 + 12 + 66) / 2**12)],
)
def test_mcnemar_by_hand(first, second, expected):
    assert mcnemar(first, second) == pytest.approx(expected)
    assert mcnemar(second, first) == mcnemar(first, second)


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
