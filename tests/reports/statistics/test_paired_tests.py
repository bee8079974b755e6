"""Tests of pairs and of parts against closed forms."""

import itertools
import json
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.spatial.distance import jensenshannon

from hsl.errors import DataError
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
from hsl.reports.statistics.part_tests import (
    EVERY,
    PartCounts,
    chi_square,
    compare_parts,
    dealt_p,
    differs,
    divergence,
    expected_counts,
    part_verdict,
    share_v,
    too_sparse,
)
from hsl.reports.tables.comparison_tables import parts_table, told
from hsl.run_folder.provenance import PartTests, read_parts, write_parts


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


# What is said of the parts of a split, against SciPy: size and p together, and why there is no test.


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


def part(shares, num, pixels=True, seed=0):
    """``num`` groups; class i is shown by the first share of them, rolled so that classes are not nested."""
    shown = np.stack([np.roll(np.arange(num) < round(share * num), 3 * i) for i, share in enumerate(shares)], axis=1)
    counts = np.concatenate([np.full((num, 1), 1000), shown[:, 1:] * 100], axis=1) if pixels else None
    return PartCounts(counts, shown, np.ones_like(shown))


def found_of(tests, of, subject=EVERY):
    return next(test for test in tests if test.of == of and test.subject == subject)


def test_the_numbers_are_those_of_scipy_adjusted_by_holm():
    parts = {"train": part([1, 0.5, 0.3], 60), "val": part([1, 0.8, 0.3], 30), "test": part([1, 0.5, 0.4], 20)}
    tests = compare_parts("segmentation", ["clean", "crack", "stain"], parts, "groups")
    pairs = {"crack": [(0.5, 60), (0.8, 30), (0.5, 20)], "stain": [(0.3, 60), (0.3, 30), (0.4, 20)]}
    tables = {name: [[round(share * num), num - round(share * num)] for share, num in of] for name, of in pairs.items()}
    p = {name: stats.chi2_contingency(table, correction=False).pvalue for name, table in tables.items()}
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    for name, value in p.items():
        test = found_of(tests, "shown", name)
        assert (test.p, test.adjusted_p) == pytest.approx((value, adjusted[name]))
        assert test.cramers_v == pytest.approx(stats.contingency.association(np.array(tables[name]), method="cramer"))
    clean = found_of(tests, "shown", "clean")
    assert (clean.p, part_verdict(clean)) == (None, "not tested: every one shows it")
    assert [list(test.groups) for test in tests if test.of == "pixels"] == [
        ["train", "val"], ["train", "test"], ["val", "test"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shares", "num", "said"),
    [
        ((0.5, 0.5), (100, 60), "alike"),
        ((0.30, 0.80), (100, 60), "unlike, a medium difference"),
        ((0.40, 0.60), (30, 20), "a small difference, no more than chance may give so few groups"),
        ((0.50, 0.55), (5000, 5000), "a difference beyond chance, but a negligible one"),
        ((0.50, 0.25), (20, 8), "not tested: 2 of 4 cells expect fewer than 5 groups, a fifth may"),
    ],
)
def test_a_verdict_needs_an_effect_and_a_p(shares, num, said):
    parts = {name: part([1, share], n) for name, share, n in zip(("train", "val"), shares, num, strict=True)}
    test = found_of(compare_parts("h", ["a", "b"], parts, "groups"), "shown", "b")
    assert part_verdict(test) == said
    assert differs(test) == said.startswith("unlike")


def test_image_classes_are_compared_at_once_where_each_group_has_one():
    rng = np.random.default_rng(0)

    def labels(chances, num):
        shown = np.eye(3, dtype=bool)[rng.choice(3, size=num, p=chances)]
        return PartCounts(None, shown, np.ones_like(shown))

    parts = {"train": labels([0.5, 0.3, 0.2], 100), "val": labels([0.1, 0.3, 0.6], 60)}
    tests = compare_parts("classification", ["a", "b", "c"], parts, "pictures", one_class=True)
    counts = np.stack([each.shown.sum(0) for each in parts.values()])
    test = found_of(tests, "classes")
    assert test.adjusted_p == test.p == pytest.approx(stats.chi2_contingency(counts).pvalue)
    assert differs(test)
    assert not [test for test in tests if test.of == "pixels"]
    mixed = PartCounts(None, parts["val"].shown | np.eye(3, dtype=bool)[0], parts["val"].known)
    tests = compare_parts("classification", ["a", "b", "c"], parts | {"val": mixed}, "groups", one_class=True)
    assert not [test for test in tests if test.of == "classes"]


def test_groups_of_which_nothing_is_known_are_in_no_count():
    one, other = part([1, 0.5], 40), part([1, 0.5], 30)
    known = other.known.copy()
    known[:10] = False
    unsure = PartCounts(other.pixels, other.shown, known)
    test = found_of(compare_parts("h", ["a", "b"], {"train": one, "val": unsure}, "groups"), "shown", "b")
    assert test.groups == {"train": 40, "val": 20}
    nothing = PartCounts(other.pixels * 0, other.shown, known & False)
    tests = compare_parts("h", ["a", "b"], {"train": one, "val": nothing}, "groups")
    assert {part_verdict(test) for test in tests} == {
        "not tested: a part has no valid pixel",
        "not tested: fewer than two parts, or classes, with known groups",
    }


def test_too_few_groups_to_deal_are_not_tested_but_have_a_divergence():
    parts = {"train": part([1, 0.5], 14), "val": part([1, 1], 1)}
    test = found_of(compare_parts("h", ["a", "b"], parts, "groups"), "pixels")
    assert part_verdict(test) == "not tested: so few groups can be dealt in 15 ways, at least 20 are needed"
    assert test.divergence > 0
    assert test.p is None


def test_file_sentences_and_table(tmp_path):
    parts = {"train": part([1, 0.3], 100), "val": part([1, 0.8], 60)}
    tests = compare_parts("segmentation", ["clean", "crack"], parts, "groups")
    page = PartTests(data="walls", fold=2, unit="groups", tests=tests)
    write_parts(tmp_path, page)
    assert read_parts(tmp_path) == page
    assert read_parts(tmp_path / "elsewhere") is None
    first, crack, rest = told(page)
    assert first.startswith("Pixels of the classes, train and val: ")
    assert "Jensen-Shannon divergence 0.0" in first
    assert (
        crack
        == "`crack`: shown by 30 % of train and 80 % of val: unlike, a medium difference (Cramer's V 0.48, p < 0.001)."
    )
    assert rest == (
        "Which groups show a class, 2 classes one by one: 1 unlike between the parts, 0 without such a difference, "
        "1 not tested."
    )
    table = parts_table([page, page.model_copy(update={"fold": 3})])
    assert table.columns[0].key == "fold"
    assert len(table.rows) == 2 * len(tests)
    assert "train 100 (30 %), val 60 (80 %)" in table.to_csv()
    (tmp_path / "parts.json").write_text(json.dumps({"data": "walls"}))
    with pytest.raises(DataError, match=r"parts.json`: `fold`"):
        read_parts(tmp_path)
