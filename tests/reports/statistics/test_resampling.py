import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hsl.metrics.images.image_counts import ImageCounts
from hsl.metrics.pixels.pixel_counts import METRICS, PixelCounts
from hsl.reports.statistics.contrasts import Contrast, MeanOverPictures, PooledScore, Units
from hsl.reports.statistics.resampling import Estimate, estimates, judge


def counts_of(matrices):
    """Pictures with these confusion matrices; the calibration sums are made up from them."""
    matrices = np.array(matrices, dtype=np.int64)
    num = len(matrices)
    right = np.trace(matrices, axis1=1, axis2=2)
    pixels = np.zeros((num, 2, 15), dtype=np.int64)
    pixels[:, 1, 12], pixels[:, 0, 8] = right, matrices.sum((1, 2)) - right
    both, true, predicted = np.diagonal(matrices, axis1=1, axis2=2), matrices.sum(2), matrices.sum(1)
    boundaries = np.stack([true, both, true, both, predicted, predicted, both], axis=1)
    halves = np.stack([matrices // 2, matrices - matrices // 2], axis=1)
    confidence = pixels.sum(1) * 0.7
    return PixelCounts(halves, boundaries, pixels, confidence, 0.1 * right, 0.2 * right)


def mean_of(values, groups=None):
    units = Units.of([f"{i:03d}" for i in range(len(values))] if groups is None else groups)
    return Contrast(units, MeanOverPictures.of(values, units))


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    return [counts_of(rng.integers(1, 30, (24, 3, 3)) + shift * np.eye(3, dtype=int)) for shift in (40, 25)]


def contrast_of(metric, groups, first, second=None):
    units = Units.of(groups)
    pooled = [one and PooledScore(one.by_unit(units.index, units.num), metric) for one in (first, second)]
    return Contrast(units, *pooled)


@pytest.mark.parametrize("metric", METRICS)
def test_it_equals_a_loop_over_resamples(pair, metric):
    groups = [f"g{i // 3}" for i in range(24)]
    found = judge([contrast_of(metric, groups, *pair)], 200, 7)[0]

    def score(chosen):
        ids = [3 * group + i for group in chosen for i in range(3)]
        return pair[0][ids].total.scores()[metric] - pair[1][ids].total.scores()[metric]

    whole, left_out = score(range(8)), [score(set(range(8)) - {i}) for i in range(8)]
    influence = 7 * (np.mean(left_out) - np.array(left_out))
    error, rng, ts = math.sqrt((influence**2).sum() / 56), np.random.default_rng(7), []
    for drawn in rng.integers(8, size=(200, 8)):
        spread = math.sqrt(influence[drawn].var() / 7)
        ts.append(abs(score(drawn) - whole) / spread if spread > 1e-9 else math.inf)
    critical = max(sorted(ts)[-10 + 1], stats.t.ppf(0.975, 7))  # p is below 0.05 with at most 9 of 200 above
    assert found.mean == pytest.approx(whole)
    assert (found.interval.low, found.interval.high) == pytest.approx(
        (whole - critical * error, whole + critical * error)
    )
    t = abs(whole) / error
    assert found.p == pytest.approx(max((1 + sum(np.array(ts) >= t)) / 201, 2 * stats.t.sf(t, 7)))
    assert found.adjusted_p == pytest.approx(found.p, abs=3 / 200)  # one pair; equal t* are counted apart


def test_for_a_mean_over_equal_pictures_the_pooled_score_is_that_mean():
    """Pixel accuracy of pictures of one size is the mean of theirs, so the two intervals agree."""
    right = np.random.default_rng(3).integers(20, 90, (2, 60))
    first, second = (counts_of([[[r, 100 - r], [0, 0]] for r in row]) for row in right)
    pooled = estimates([contrast_of("pixel_accuracy", [f"{i:03d}" for i in range(60)], first, second)], 4000, 0)[0]
    by_image = estimates([mean_of((right[0] - right[1]) / 100)], 4000, 0)[0]
    assert (pooled.interval.low, pooled.interval.high) == pytest.approx((by_image.interval.low, by_image.interval.high))
    assert pooled.p == pytest.approx(by_image.p)


def test_of_many_normal_values_it_is_the_interval_of_students_t():
    values = np.random.default_rng(1).normal(0.3, 1, 200)
    found = estimates([mean_of(values)], 20_000, 0)[0]
    known = stats.ttest_1samp(values, 0)
    assert (found.interval.low, found.interval.high) == pytest.approx(known.confidence_interval(), abs=0.01)
    assert found.p == pytest.approx(known.pvalue, rel=0.2)


def test_groups_are_resampled_whole_and_unequal_ones_keep_the_mean_over_pictures():
    group_means = np.random.default_rng(3).normal(0, 0.1, 40)
    groups = np.repeat([f"g{i:02d}" for i in range(40)], 6)
    by_group = estimates([mean_of(np.repeat(group_means, 6), groups)], 2000, 0)[0]
    of_means = estimates([mean_of(group_means)], 2000, 0)[0]
    by_picture = estimates([mean_of(np.repeat(group_means, 6))], 2000, 0)[0]
    assert by_group.num_units == 40
    assert by_group.interval.low == pytest.approx(of_means.interval.low)
    width = by_group.interval.high - by_group.interval.low
    assert width > 2 * (by_picture.interval.high - by_picture.interval.low)
    uneven = [0.0, 0.1, 0.2, 1.0, 0.9, 0.3, 0.2]
    assert estimates([mean_of(uneven, [*"aaabcde"])], 100, 0)[0].mean == pytest.approx(np.mean(uneven))


@pytest.mark.parametrize("num", [1, 2, 5])
def test_below_six_groups_there_is_no_interval_however_many_the_pictures(num):
    groups = [f"g{i % num}" for i in range(300)]
    found = estimates([mean_of(np.random.default_rng(0).normal(5, 1, 300), groups)], 500, 0)[0]
    assert (found.num_units, found.interval, found.adjusted, found.is_shown) == (num, None, None, False)
    assert math.isnan(found.p)
    assert math.isnan(found.smallest)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0])
def test_differences_without_a_spread_show_nothing(value):
    found = judge([mean_of([value] * 12), mean_of(np.linspace(1, 2, 12))], 500, 0)
    assert found[0].mean == pytest.approx(value)
    assert (found[0].interval, found[0].is_shown) == (None, False)
    assert found[1].is_shown  # and do not keep others from it


def test_few_differences_among_many_ties_show_nothing():
    for moved in ([1.0], [1.0, 1.0], [1.0, 1.0, 1.0]):  # of 20 groups
        assert not estimates([mean_of([*moved, *[0.0] * (20 - len(moved))])], 2000, 0)[0].is_shown
    assert not estimates([mean_of([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])], 2000, 0)[0].is_shown  # bootstrap alone: 0.03


def test_a_degenerate_pair_takes_no_verdict_from_the_others():
    rng = np.random.default_rng(0)
    clear = [mean_of(rng.normal(1, 0.5, 20)), mean_of(rng.normal(1, 0.5, 20))]
    sparse = mean_of([0.5, *[0.0] * 19])  # in a third of the resamples it is not drawn, and t is infinite
    found = judge([*clear, sparse], 2000, 0)
    assert [one.is_shown for one in found] == [True, True, False]


def test_many_pairs_are_held_to_a_smaller_p():
    rng = np.random.default_rng(4)
    values = rng.normal(0, 1, (20, 10)) + np.linspace(0, 1, 10)
    pairs = [mean_of(values[:, j] - values[:, i]) for i, j in itertools.combinations(range(10), 2)]
    together = judge(pairs, 4000, 0)
    alone = [judge([one], 4000, 0)[0] for one in pairs]
    for one, by_itself in zip(together, alone, strict=True):
        assert (one.interval.low, one.p) == pytest.approx((by_itself.interval.low, by_itself.p))
        assert one.p <= one.adjusted_p <= 1
        assert one.adjusted.low < one.interval.low < one.interval.high < one.adjusted.high
        assert (one.adjusted_p < 0.05) == (not one.adjusted.holds_zero) == one.is_shown
        assert one.smallest > by_itself.smallest
        assert one.needed >= by_itself.needed
    assert sum(one.is_shown for one in together) < sum(one.is_shown for one in alone)
    bonferroni = [min(1.0, 45 * one.p) for one in alone]
    assert all(one.adjusted_p <= limit + 0.01 for one, limit in zip(together, bonferroni, strict=True))


def test_pairs_on_unlike_groups_are_judged_together():
    rng = np.random.default_rng(0)
    pairs = [mean_of(rng.normal(2, 0.5, num)) for num in (20, 15, 4)]
    found = judge(pairs, 2000, 0)
    assert [one.num_units for one in found] == [20, 15, 4]
    assert [one.is_shown for one in found] == [True, True, False]
    assert found[0].adjusted.low < found[0].interval.low


def test_too_few_resamples_for_so_many_pairs_show_nothing():
    rng = np.random.default_rng(0)
    found = judge([mean_of(rng.normal(3, 1, 30)) for _ in range(300)], 100, 0)
    assert not any(one.is_shown for one in found)
    assert all(one.adjusted is None and math.isnan(one.smallest) and one.needed is None for one in found)


def test_memory_is_bounded_and_the_seed_decides(pair, monkeypatch):
    groups = [f"{i:03d}" for i in range(24)]
    whole = estimates([contrast_of("miou", groups, *pair)], 300, 1)[0]
    assert whole != estimates([contrast_of("miou", groups, *pair)], 300, 2)[0]
    monkeypatch.setattr("hsl.reports.statistics.resampling.CHUNK", 500)
    pieces = estimates([contrast_of("miou", groups, *pair)], 300, 1)[0]
    assert (pieces.interval.low, pieces.p) == pytest.approx((whole.interval.low, whole.p))


def test_an_interval_stays_within_what_the_score_can_be():
    right = np.ones((12, 1))
    right[0] = 0
    counts = ImageCounts(False, right, 1 - right, 1 - right, right[:, 0], np.ones(12))
    units = Units.of([f"{i:03d}" for i in range(12)])
    found = estimates([Contrast(units, PooledScore(counts, "accuracy"), bounds=(0, 1))], 1000, 0)[0]
    assert found.mean == pytest.approx(11 / 12)
    assert found.interval.high == 1


def test_nothing_scored_is_nan_and_shows_nothing():
    empty = counts_of(np.zeros((8, 2, 2)))
    found = estimates([contrast_of("miou", [*"abcdefgh"], empty, empty)], 10, 0)[0]
    assert math.isnan(found.mean)
    assert (found.interval, found.is_shown) == (None, False)


def test_what_is_clear_by_itself_need_not_be_shown():
    assert not Estimate(1.0, 10).is_clear
    found = estimates([mean_of(np.random.default_rng(0).normal(1, 1, 20))], 500, 0)[0]
    assert found.is_clear
    assert not mean_of([0.1, 0.2]).can_be_judged


def test_where_one_unit_holds_most_of_the_score_no_difference_could_be_shown():
    rng = np.random.default_rng(3)
    first, second = (
        counts_of(np.concatenate([rng.integers(1, 30, (11, 3, 3)) + 40 * np.eye(3, dtype=int), [big]]))
        for big in (np.diag([90_000, 9000, 900]), np.full((3, 3), 9000))
    )
    contrast = replace(contrast_of("miou", [f"{i:02d}" for i in range(12)], first, second), bounds=(-1, 1))
    (found,) = judge([contrast], 2000, 0)
    assert not found.is_shown
    assert math.isnan(found.smallest)  # it would be above 100 points
    assert found.interval.low == -1


def test_an_adjusted_interval_is_never_inside_the_plain_one():
    """With many ties the smallest p of one pair alone is not that of a table of one pair."""
    rng = np.random.default_rng(5)
    for _ in range(60):
        shown = [rng.integers(-1, 2, 6).astype(float).tolist() for _ in range(2)]
        for found in judge([mean_of(values) for values in shown[: rng.integers(1, 3)]], 400, 0):
            if found.adjusted and found.interval:
                assert found.adjusted.low <= found.interval.low
                assert found.adjusted.high >= found.interval.high
            assert found.is_clear or not found.is_shown


def test_a_difference_that_is_not_shown_needs_more_units_than_there_are():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        contrasts = [mean_of((np.exp(rng.normal(size=8)) * rng.normal(0.7, 1, 8)).tolist()) for _ in range(3)]
        for found in judge(contrasts, 1000, 0):
            assert found.is_shown or found.needed is None or found.needed > 8
            assert (found.needed is not None and found.needed <= 8) == (abs(found.mean) >= found.smallest)


def test_a_score_that_one_unit_makes_alone_has_no_spread():
    """Of eight pictures one shows a crack: without it there is no foreground IoU."""
    shown = [[[90, 10], [20, 80]]] + [[[100, 0], [0, 0]]] * 7
    others = [[[90, 10], [40, 60]]] + [[[100, 0], [0, 0]]] * 7
    groups = [str(i) for i in range(8)]
    (found,) = judge([contrast_of("foreground_iou", groups, counts_of(shown), counts_of(others))], 200, 0)
    assert found.rests_on_one
    assert (found.mean, found.interval) == (pytest.approx(80 / 110 - 60 / 110), None)
    (found,) = judge([contrast_of("miou", groups, counts_of(shown), counts_of(others))], 200, 0)
    assert not found.rests_on_one
