import math
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label
from skimage.metrics import variation_of_information as skimage_voi
from sklearn.metrics import adjusted_rand_score

from hsl.metrics.objects import clustering
from hsl.metrics.objects.clustering import clustering_scores, contingency

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))
quick = settings(max_examples=80, deadline=None)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(SHAPES)
    largest = draw(st.sampled_from([1, 4, 250]))
    labels = arrays(np.int64, shape, elements=st.integers(0, largest))
    return draw(labels), draw(labels)


def assert_equals_peers(prediction: np.ndarray, target: np.ndarray) -> None:
    found = clustering_scores(prediction, target, ignore_index=None)
    split, merge = skimage_voi(target, prediction)
    assert found["ari"] == pytest.approx(adjusted_rand_score(target.ravel(), prediction.ravel()), abs=1e-10)
    assert found["voi_split"] == pytest.approx(split, abs=1e-10)
    assert found["voi_merge"] == pytest.approx(merge, abs=1e-10)
    assert found["voi"] == pytest.approx(split + merge, abs=1e-10)


@quick
@given(pairs())
def test_equals_scikit_learn_and_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert_equals_peers(*pair)


def test_equals_them_on_thousands_of_components() -> None:
    rng = np.random.default_rng(0)
    images = [label(rng.random((300, 411)) < 0.5)[0] for _ in range(2)]
    assert max(image.max() for image in images) > 5000
    assert_equals_peers(*images)


@pytest.mark.real_data
def test_equals_them_on_real_instances() -> None:
    import cv2

    for file in sorted((Path(os.environ["HSL_REAL_DATA"]) / "nuclei_dsb2018" / "instances").glob("*.png"))[::80]:
        target = cv2.imread(str(file), cv2.IMREAD_UNCHANGED).astype(np.int64)
        assert_equals_peers(np.roll(target, (2, 3), (0, 1)), target)


@quick
@given(pairs())
def test_contingency_equals_a_loop(pair: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, target = pair
    counts: dict[tuple[int, int], int] = {}
    for p, t in zip(prediction.ravel().tolist(), target.ravel().tolist(), strict=True):
        if t != 2:
            counts[t, p] = counts.get((t, p), 0) + 1
    table = contingency(prediction, target, ignore_index=2)
    cells = zip(table.target.tolist(), table.prediction.tolist(), strict=True)
    assert dict(zip(cells, table.pixels.tolist(), strict=True)) == counts


@quick
@given(pairs())
def test_sorted_and_dense_counting_agree(pair: tuple[np.ndarray, np.ndarray]) -> None:
    before = contingency(*pair)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clustering, "MAX_TABLE_CELLS", 0)
        after = contingency(*pair)
    for first, second in zip(before, after, strict=True):
        np.testing.assert_array_equal(first, second)


def test_labels_far_apart_need_no_large_table() -> None:
    prediction = np.array([[0, 2**40, 2**40, -7]])
    assert clustering_scores(prediction, np.array([[3, 9, 9, 2**50]]))["ari"] == 1.0


@quick
@given(pairs())
def test_symmetric(pair: tuple[np.ndarray, np.ndarray]) -> None:
    there = clustering_scores(*pair, ignore_index=None)
    back = clustering_scores(*pair[::-1], ignore_index=None)
    assert there["ari"] == pytest.approx(back["ari"], abs=1e-12)
    assert there["voi_split"] == pytest.approx(back["voi_merge"], abs=1e-12)


@quick
@given(pairs(), st.permutations(range(251)), st.permutations(range(251)))
def test_the_names_of_the_labels_do_not_matter(
    pair: tuple[np.ndarray, np.ndarray], first: list[int], second: list[int]
) -> None:
    before = clustering_scores(*pair)
    after = clustering_scores(np.array(first)[pair[0]], np.array(second)[pair[1]])
    assert before == pytest.approx(after, abs=1e-12)


@quick
@given(pairs())
def test_identical_images_give_exactly_the_ideal(pair: tuple[np.ndarray, np.ndarray]) -> None:
    found = clustering_scores(pair[0], pair[0])
    assert (found["ari"], found["voi_split"], found["voi_merge"]) == (1.0, 0.0, 0.0)


@quick
@given(pairs(), st.integers(0, 255))
def test_ignored_pixels_change_nothing(pair: tuple[np.ndarray, np.ndarray], other: int) -> None:
    prediction, target = pair
    target = np.where(target % 3 == 0, 255, target)
    changed = np.where(target == 255, other, prediction)
    np.testing.assert_equal(clustering_scores(changed, target), clustering_scores(prediction, target))
    valid = target != 255
    if valid.any():
        cut = clustering_scores(prediction[valid][None], target[valid][None])
        assert clustering_scores(prediction, target) == pytest.approx(cut, abs=1e-12)


def test_voi_is_not_one_minus_ari() -> None:
    """Four quarters against two halves: a pure split of one bit."""
    target = np.repeat([0, 1], 8)[None]
    prediction = np.repeat([0, 1, 2, 3], 4)[None]
    found = clustering_scores(prediction, target)
    assert (found["voi_split"], found["voi_merge"], found["voi"]) == (1.0, 0.0, 1.0)
    # S = 4 * C(4,2) = 24, A = 2 * C(8,2) = 56, B = 24, N = C(16,2) = 120
    assert found["ari"] == pytest.approx((24 - 56 * 24 / 120) / ((56 + 24) / 2 - 56 * 24 / 120))


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (1, 1), (3, 5)])
def test_edges(shape: tuple[int, int]) -> None:
    zeros = np.zeros(shape, np.uint8)
    nothing = clustering_scores(zeros, np.full(shape, 255))
    assert math.isnan(nothing["ari"])
    assert math.isnan(nothing["voi"])
    assert nothing["valid_pixels"] == 0
    if zeros.size:
        assert clustering_scores(zeros, zeros)["ari"] == 1.0


def test_one_part_against_single_pixels_is_chance() -> None:
    found = clustering_scores(np.arange(16).reshape(4, 4), np.zeros((4, 4), int))
    assert found["ari"] == 0.0
    assert (found["voi_split"], found["voi_merge"]) == (4.0, 0.0)


def test_large_counts_do_not_overflow() -> None:
    """Half of 2^31 pixels right, half of one part cut off: the exact value from fractions."""
    half, quarter = 2**30, 2**29
    table = clustering.Contingency(np.array([0, 1, 1]), np.array([0, 1, 2]), np.array([half, quarter, quarter]))
    choose = lambda n: Fraction(n * (n - 1), 2)  # noqa: E731
    together = choose(half) + 2 * choose(quarter)
    expected = 2 * choose(half) * together / choose(2 * half)
    exact = (together - expected) / ((2 * choose(half) + together) / 2 - expected)
    assert clustering.adjusted_rand_index(table) == pytest.approx(float(exact), rel=1e-15)


def test_errors() -> None:
    with pytest.raises(ValueError, match="of one size"):
        clustering_scores(np.zeros((2, 2), int), np.zeros((3, 2), int))
    with pytest.raises(ValueError, match="integer labels"):
        clustering_scores(np.zeros((2, 2)), np.zeros((2, 2), int))
