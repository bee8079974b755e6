import math

import numpy as np
import pytest

from hsl.reports.pixel_counts import METRICS, PixelCounts
from hsl.reports.resampling import pooled_bootstrap
from hsl.reports.statistics import paired_bootstrap


def counts_of(matrices):
    """Pictures with these confusion matrices; the calibration sums are made up from them."""
    matrices = np.array(matrices, dtype=np.int64)
    num = len(matrices)
    right = np.trace(matrices, axis1=1, axis2=2)
    pixels = np.zeros((num, 2, 15), dtype=np.int64)
    pixels[:, 1, 12], pixels[:, 0, 8] = right, matrices.sum((1, 2)) - right
    boundaries = np.stack([matrices.sum(2), *[np.diagonal(matrices, axis1=1, axis2=2)] * 6], axis=1)
    halves = np.stack([matrices // 2, matrices - matrices // 2], axis=1)
    confidence = pixels.sum(1) * 0.7
    return PixelCounts(halves, boundaries, pixels, confidence, 0.1 * right, 0.2 * right)


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    return [counts_of(rng.integers(1, 30, (12, 3, 3)) + shift * np.eye(3, dtype=int)) for shift in (40, 25)]


@pytest.mark.parametrize("metric", METRICS)
def test_it_equals_a_loop_over_resamples(pair, metric):
    groups = [f"g{i // 3}" for i in range(12)]
    found = pooled_bootstrap(metric, groups, 50, 7, *pair)
    rng, loop = np.random.default_rng(7), []
    for drawn in rng.integers(4, size=(50, 4)):
        ids = [3 * group + i for group in drawn for i in range(3)]
        loop.append(pair[0][ids].total.scores()[metric] - pair[1][ids].total.scores()[metric])
    assert found.mean == pytest.approx(pair[0].total.scores()[metric] - pair[1].total.scores()[metric])
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(loop, [2.5, 97.5])))


def test_without_a_second_model_it_is_the_interval_of_the_score(pair):
    ids = [str(i) for i in range(12)]
    found = pooled_bootstrap("miou", ids, 400, 0, pair[0])
    assert found.mean == pytest.approx(pair[0].total.scores()["miou"])
    assert found.low < found.mean < found.high


def test_for_a_mean_over_equal_pictures_it_is_the_bootstrap_of_the_mean():
    """Pixel accuracy of pictures of one size is the mean of theirs, so the two intervals agree."""
    right = np.random.default_rng(3).integers(20, 90, (2, 60))
    first, second = (counts_of([[[r, 100 - r], [0, 0]] for r in row]) for row in right)
    ids = [f"{i:02d}" for i in range(60)]
    pooled = pooled_bootstrap("pixel_accuracy", ids, 4000, 0, first, second)
    by_image = paired_bootstrap((right[0] - right[1]) / 100, 4000, 0)
    assert (pooled.mean, pooled.low, pooled.high) == pytest.approx((by_image.mean, by_image.low, by_image.high))


def test_memory_is_bounded_and_the_seed_decides(pair, monkeypatch):
    ids = [str(i) for i in range(12)]
    whole = pooled_bootstrap("miou", ids, 300, 1, *pair)
    assert whole != pooled_bootstrap("miou", ids, 300, 2, *pair)
    monkeypatch.setattr("hsl.reports.resampling.CHUNK", 500)
    pieces = pooled_bootstrap("miou", ids, 300, 1, *pair)
    assert (pieces.low, pieces.high) == pytest.approx((whole.low, whole.high))


def test_nothing_scored_is_nan_and_shows_nothing():
    empty = counts_of(np.zeros((3, 2, 2)))
    found = pooled_bootstrap("miou", ["a", "b", "c"], 10, 0, empty, empty)
    assert math.isnan(found.low)
    assert found.holds_zero


def test_unlike_pictures_are_an_error(pair):
    with pytest.raises(ValueError, match="of the same pictures"):
        pooled_bootstrap("miou", ["a"], 10, 0, *pair)
    with pytest.raises(ValueError, match="at least 1"):
        pooled_bootstrap("miou", [], 10, 0, pair[0][[]])
