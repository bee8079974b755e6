"""The move of a shifted mask is found to the pixel; masks that lie right are left alone."""

import numpy as np
import pytest
from tests.suspects._inputs import blobs, seen

from hsl.suspects.shifts import best_shift, moved


@pytest.mark.parametrize("seed", range(5))
def test_the_way_back_is_found(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = blobs(seed)
    down, right = (int(generator.choice([-1, 1]) * generator.integers(3, 7)) for _ in range(2))
    shift = best_shift(seen(truth, moved(truth, down, right)))
    assert shift is not None
    assert (shift.down, shift.right) == (-down, -right)
    assert shift.before < shift.after
    assert 0 < shift.score <= 1


def test_large_pictures_are_tried_small_and_told_in_their_own_pixels() -> None:
    truth = np.kron(blobs(1), np.ones((10, 10), np.uint8))
    shift = best_shift(seen(truth, moved(truth, 40, -50), sure=(0.9,)))
    assert shift is not None
    assert abs(shift.down + 40) <= 4
    assert abs(shift.right - 50) <= 4


def test_masks_that_lie_right_are_empty_or_lack_an_object_are_not_shifted() -> None:
    truth = blobs(2)
    lacking = np.where(truth == 2, 0, truth).astype(np.uint8)
    for mask in (truth, np.zeros_like(truth), np.full_like(truth, 255), lacking):
        assert best_shift(seen(truth, mask)) is None
    assert best_shift(seen(np.zeros_like(truth), np.zeros_like(truth))) is None


def test_the_overlap_is_that_of_a_direct_count() -> None:
    truth, mask = blobs(3), moved(blobs(3), 5, 4)
    evidence = seen(truth, mask)
    shift = best_shift(evidence)
    assert shift is not None
    for placed, value in ((mask, shift.before), (moved(mask, shift.down, shift.right), shift.after)):
        hits = sum(float(evidence.mean[k][placed == k].sum()) for k in (1, 2))
        total = float(evidence.mean[1:].sum()) + (mask > 0).sum()
        np.testing.assert_allclose(value, 2 * hits / total, rtol=1e-5)
