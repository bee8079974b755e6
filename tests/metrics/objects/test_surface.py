import math
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy.ndimage import binary_erosion, label

from hsl import batch
from hsl.metrics.objects import segments
from hsl.metrics.objects.segments import class_maps
from hsl.metrics.objects.surface import contours, directed_distances, summarise_surface, surface_distances

NUM_CLASSES = 4
SHAPES = st.tuples(st.integers(1, 13), st.integers(1, 13))
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def pairs(draw: st.DrawFn, ignore: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Patchy label images, so that objects are larger than a pixel."""
    shape = draw(SHAPES)
    coarse = tuple(-(-side // 3) for side in shape)
    labels = st.sampled_from([0, 1, 2, 3, 255] if ignore else [0, 1, 2, 3])
    grow = lambda a: np.kron(a, np.ones((3, 3), np.uint8))[: shape[0], : shape[1]]  # noqa: E731
    prediction = grow(draw(arrays(np.uint8, coarse, elements=st.integers(0, 3))))
    target = grow(draw(arrays(np.uint8, coarse, elements=labels)))
    specks = draw(arrays(np.bool_, shape, elements=st.sampled_from([False] * 9 + [True])))
    return np.where(specks, (prediction + 1) % 4, prediction), target


def brute_force(prediction: np.ndarray, target: np.ndarray, index: int) -> tuple[float, float]:
    """HD95 and ASSD of one class by loops over all pairs of contour pixels."""
    height, width = target.shape

    def contour(labels: np.ndarray) -> list[tuple[int, int]]:
        inside = lambda y, x: (  # noqa: E731
            0 <= y < height and 0 <= x < width and target[y, x] != 255 and labels[y, x] == index
        )
        return [
            (y, x)
            for y in range(height)
            for x in range(width)
            if inside(y, x) and not (inside(y - 1, x) and inside(y + 1, x) and inside(y, x - 1) and inside(y, x + 1))
        ]

    p, t = contour(prediction), contour(target)
    if not p and not t:
        return math.nan, math.nan
    if not p or not t:
        return math.sqrt(height**2 + width**2), math.sqrt(height**2 + width**2)
    there = sorted(min(math.dist(a, b) for b in t) for a in p)
    back = sorted(min(math.dist(a, b) for b in p) for a in t)

    def percentile(values: list[float]) -> float:
        place = 0.95 * (len(values) - 1)
        low = math.floor(place)
        high = min(low + 1, len(values) - 1)
        return values[low] + (place - low) * (values[high] - values[low])

    mean = (sum(there) + sum(back)) / (len(there) + len(back))
    return max(percentile(there), percentile(back)), mean


@quick
@given(pairs())
def test_equals_brute_force(pair: tuple[np.ndarray, np.ndarray]) -> None:
    found = surface_distances(*pair, num_classes=NUM_CLASSES)
    for index in range(NUM_CLASSES):
        hd95, assd = brute_force(*pair, index)
        assert found["hd95"][index] == pytest.approx(hd95, rel=1e-12, nan_ok=True)
        assert found["assd"][index] == pytest.approx(assd, rel=1e-12, nan_ok=True)


def monai(prediction: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
    """HD95 and ASSD of MONAI ``(C, 2)``; ignored pixels are of no class."""
    valid = target != 255
    first, second = (
        torch.from_numpy(np.stack([(m == c) & valid for c in range(num_classes)])[None]).float()
        for m in (prediction, target)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # empty masks, and its own deprecations
        hd95 = compute_hausdorff_distance(first, second, include_background=True, percentile=95)
        assd = compute_average_surface_distance(first, second, include_background=True, symmetric=True)
    return np.stack([hd95[0].numpy(), assd[0].numpy()], axis=1)


def assert_equals_monai(prediction: np.ndarray, target: np.ndarray, num_classes: int) -> int:
    """Where both contours exist; MONAI gives NaN or infinity where one does not."""
    found = surface_distances(prediction, target, num_classes)
    both = np.array([a > 0 < b for a, b in zip(found["prediction_contour"], found["target_contour"], strict=True)])
    ours = np.stack([found["hd95"], found["assd"]], axis=1)
    np.testing.assert_allclose(ours[both], monai(prediction, target, num_classes)[both], rtol=1e-5)
    return int(both.sum())


def test_equals_monai_on_random_patches_with_ignored_pixels() -> None:
    rng = np.random.default_rng(0)
    for shape in ((37, 51), (64, 64), (1, 40), (91, 5)):
        target = np.kron(rng.integers(0, 5, (20, 20)), np.ones((7, 7), int))[: shape[0], : shape[1]]
        prediction = np.roll(target, (1, 2), (0, 1))
        target[rng.random(shape) < 0.02] = 255
        assert assert_equals_monai(prediction, target, 5) > 0


@pytest.mark.real_data
def test_equals_monai_on_real_masks() -> None:
    import cv2

    for file in sorted((Path(os.environ["HSL_REAL_DATA"]) / "magnetic_tile" / "masks").glob("*.png"))[::100]:
        target = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        assert_equals_monai(np.roll(target, (3, 5), (0, 1)), target, 6)


def test_contour_is_the_mask_without_its_erosion() -> None:
    labels = np.random.default_rng(1).integers(0, 3, (9, 14)).repeat(3, 0).repeat(2, 1).astype(np.uint8)
    for index, points in enumerate(contours(labels, 3)):
        mask = labels == index
        np.testing.assert_array_equal(points, np.argwhere(mask & ~binary_erosion(mask)))


@quick
@given(pairs(ignore=False))
def test_symmetric(pair: tuple[np.ndarray, np.ndarray]) -> None:
    there, back = surface_distances(*pair, NUM_CLASSES), surface_distances(*pair[::-1], NUM_CLASSES)
    for name in ("hd95", "assd"):
        np.testing.assert_allclose(there[name], back[name], rtol=1e-12)


@quick
@given(pairs(), st.permutations(range(NUM_CLASSES)))
def test_renaming_the_classes_reorders_the_scores(pair: tuple[np.ndarray, np.ndarray], order: list[int]) -> None:
    names = np.full(256, 255)
    names[:NUM_CLASSES] = order
    before, after = (surface_distances(*images, NUM_CLASSES) for images in (pair, (names[pair[0]], names[pair[1]])))
    for name, values in before.items():
        np.testing.assert_array_equal(np.array(after[name])[order], values)


@quick
@given(pairs(), st.integers(0, 2**32 - 1))
def test_ignored_pixels_change_nothing(pair: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    prediction, target = pair
    noise = np.random.default_rng(seed).integers(0, 300, target.shape)
    other = np.where(target == 255, noise, prediction)
    before, after = (surface_distances(p, target, NUM_CLASSES) for p in (prediction, other))
    assert {k: np.array(v).tobytes() for k, v in before.items()} == {k: np.array(v).tobytes() for k, v in after.items()}


@quick
@given(pairs())
def test_identical_masks_give_zero(pair: tuple[np.ndarray, np.ndarray]) -> None:
    target = pair[1]
    found = surface_distances(np.where(target == 255, 0, target), target, NUM_CLASSES)
    for index in range(NUM_CLASSES):
        expected = 0.0 if (target == index).any() else math.nan
        assert found["hd95"][index] == found["assd"][index] == expected or math.isnan(expected)
        assert math.isnan(found["hd95"][index]) == math.isnan(expected)


@quick
@given(pairs(ignore=False), st.integers(1, 3))
def test_a_missed_class_never_improves(pair: tuple[np.ndarray, np.ndarray], index: int) -> None:
    prediction, target = pair
    target[0, 0] = index
    without = np.where(prediction == index, 0, prediction)
    before, after = (surface_distances(p, target, NUM_CLASSES) for p in (prediction, without))
    for name in ("hd95", "assd"):
        assert after[name][index] >= before[name][index]
        assert after[name][index] == math.hypot(*target.shape)


@quick
@given(pairs(ignore=False))
def test_a_missed_object_never_brings_the_target_nearer(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Beside other objects of its class: each distance from the target's contour grows or stays."""
    prediction, target = pair
    objects, number = label(prediction == 1, np.ones((3, 3)))
    points = contours(target, 2)[1]
    if number < 2 or not len(points):
        return
    before = directed_distances(points, contours(prediction, 2)[1])
    for index in range(1, number + 1):
        rest = np.where(objects == index, np.uint8(0), prediction)
        assert (directed_distances(points, contours(rest, 2)[1]) >= before).all()


def test_missing_one_of_two_exact_objects_is_worse() -> None:
    target = np.zeros((40, 40), np.uint8)
    target[2:10, 2:10] = target[25:35, 25:35] = 1
    missed = target.copy()
    missed[2:10, 2:10] = 0
    assert surface_distances(target, target, 2)["hd95"][1] == 0
    assert surface_distances(missed, target, 2)["hd95"][1] > 20


def test_an_ignored_rim_is_a_free_margin() -> None:
    target = np.zeros((20, 20), np.uint8)
    target[4:16, 4:16], target[6:14, 6:14] = 255, 1
    for margin in (4, 5, 6):
        prediction = np.zeros_like(target)
        prediction[margin : 20 - margin, margin : 20 - margin] = 1
        assert surface_distances(prediction, target, 2)["hd95"] == [0.0, 0.0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 5), (0, 0)])
def test_edges(shape: tuple[int, int]) -> None:
    ones, zeros = np.ones(shape, np.uint8), np.zeros(shape, np.uint8)
    diagonal = math.hypot(*shape) if ones.size else math.nan
    np.testing.assert_equal(surface_distances(ones, ones, 2)["hd95"][0], math.nan)
    np.testing.assert_equal(surface_distances(ones, ones, 2)["hd95"][1], 0.0 if ones.size else math.nan)
    np.testing.assert_equal(surface_distances(zeros, ones, 2)["hd95"], [diagonal, diagonal])
    np.testing.assert_equal(surface_distances(zeros, np.full(shape, 255), 2)["assd"], [math.nan, math.nan])


def test_summary_counts_the_empty_cases() -> None:
    target, empty = np.eye(4, dtype=np.uint8), np.zeros((4, 4), np.uint8)
    rows = [surface_distances(p, t, 3) for p, t in ((target, target), (empty, target), (target, empty))]
    summary = summarise_surface(rows)
    diagonal = math.hypot(4, 4)
    assert summary["num_scored"] == [3, 3, 0]
    assert summary["num_missed"] == [0, 1, 0]
    assert summary["num_spurious"] == [0, 1, 0]
    assert summary["num_both_empty"] == [0, 0, 3]
    assert summary["hd95_mean"][1] == pytest.approx(2 * diagonal / 3)
    assert summary["assd_median"][1] == diagonal
    assert math.isnan(summary["hd95_p95"][2])
    with pytest.raises(ValueError, match="at least one picture"):
        summarise_surface([])


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), "of one size"),
        (np.zeros(4, int), np.zeros(4, int), "of one size"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), "integer labels"),
        (
            np.full((2, 2), 3),
            np.zeros((2, 2), int),
            r"`prediction` should hold classes in \[0, 3\).*Found \[3\]",
        ),
        (np.full((2, 2), -1), np.zeros((2, 2), int), "`prediction` should hold classes"),
        (np.zeros((2, 2), int), np.full((2, 2), 254), "`target` should hold classes"),
        (np.full((2, 2), 255), np.zeros((2, 2), int), "`prediction` should hold classes"),
    ],
)
def test_errors(prediction: np.ndarray, target: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        surface_distances(prediction, target, 3)


def test_class_maps_take_any_integer_type_and_change_nothing() -> None:
    for dtype in (np.int8, np.uint16, np.int64):
        prediction, target = np.array([[0, 1]], dtype), np.array([[1, 255]], np.int64)
        first, second = class_maps(prediction, target, 2)
        assert first.dtype == second.dtype == np.uint8
        assert first.tolist() == [[0, 255]]
        assert prediction.tolist() == [[0, 1]]
    with pytest.raises(ValueError, match="num_classes"):
        class_maps(target, target, 256)


def test_the_ignore_index_is_the_one_of_the_project() -> None:
    assert segments.IGNORE_INDEX == batch.IGNORE_INDEX
