import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from hsl.data.labels.object_labels import distance_map
from hsl.metrics.objects.jaccard import COUNTS, object_counts, pool_objects
from hsl.metrics.objects.panoptic import panoptic_counts, pool_panoptic
from hsl.metrics.objects.watershed import split_objects

Pixels = set[tuple[int, ...]]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two instance maps that agree in most places, and ignored pixels."""
    coarse = draw(arrays(np.int64, (4, 4), elements=st.sampled_from([0, 1, 4, 255])))
    target = np.kron(coarse, np.ones((2, 3), np.int64))
    change = draw(arrays(np.int64, target.shape, elements=st.sampled_from([-1] * 5 + [0, 1, 9])))
    ignored = np.kron(draw(arrays(np.bool_, (4, 4), elements=st.booleans())), np.ones((2, 3), np.bool_))
    return np.where(change >= 0, change, target), target, ignored & draw(st.booleans())


def pixel_sets(ids: np.ndarray, left_out: np.ndarray) -> dict[int, Pixels]:
    found: dict[int, Pixels] = {}
    for place in np.ndindex(ids.shape):
        if ids[place] and not left_out[place]:
            found.setdefault(int(ids[place]), set()).add(place)
    return dict(sorted(found.items()))


def brute_force(prediction: np.ndarray, target: np.ndarray, ignored: np.ndarray) -> dict[str, int]:
    """Algorithm 1 of Kumar et al. and the matches at IoU > 1/2, by sets of pixels."""
    nothing = np.zeros_like(ignored)
    hidden = {name: len(pixels) for name, pixels in pixel_sets(prediction, ~ignored).items()}
    predicted, wanted = pixel_sets(prediction, ignored), pixel_sets(target, ignored)
    whole = {name: len(pixels) for name, pixels in pixel_sets(prediction, nothing).items()}
    counts = dict.fromkeys(COUNTS, 0)
    used, matched = set(), set()
    for pixels in wanted.values():
        best, name = Fraction(0), None
        for other, others in predicted.items():
            iou = Fraction(len(pixels & others), len(pixels | others))
            if iou > best:
                best, name = iou, other
        if name is None:
            counts["aji_union"] += len(pixels)
        else:
            counts["aji_intersection"] += len(pixels & predicted[name])
            counts["aji_union"] += len(pixels | predicted[name])
            used.add(name)
        if best > Fraction(1, 2):
            matched.add(name)
            counts["tp"] += 1
        else:
            counts["fn"] += 1
    for name, pixels in predicted.items():
        excused = 2 * hidden.get(name, 0) > whole[name]
        counts["aji_union"] += len(pixels) if name not in used and not excused else 0
        counts["fp"] += name not in matched and not excused
    return counts


@settings(max_examples=150, deadline=None)
@given(pairs())
def test_equal_to_brute_force(images: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    assert object_counts(*images) == brute_force(*images)


@settings(max_examples=30, deadline=None)
@given(pairs())
def test_f1_is_the_recognition_quality(images: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    prediction, target, _ = images
    f1 = pool_objects([object_counts(prediction, target)])["f1"]
    maps = [(ids > 0).astype(np.uint8) for ids in (prediction, target)]
    counts = panoptic_counts(*maps, 2, target_instances=target, prediction_instances=prediction)
    assert f1 == pytest.approx(pool_panoptic([counts])["rq"][1], nan_ok=True)


def test_by_hand() -> None:
    # The target of 4 takes the prediction of 3 (IoU 3/4), that of 1 takes nothing, the prediction of 2 is spare.
    target = np.array([[1, 1, 1, 1, 0, 0, 2]])
    prediction = np.array([[5, 5, 5, 0, 6, 6, 0]])
    pooled = pool_objects([object_counts(prediction, target)])
    assert pooled["aji"] == 3 / (4 + 1 + 2)
    assert pooled["f1"] == 2 / (2 + 1 + 1)


def test_one_prediction_over_two_objects_is_taken_twice() -> None:
    counts = object_counts(np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 2]]))
    assert (counts["aji_intersection"], counts["aji_union"], counts["tp"]) == (4, 8, 0)


def test_perfect_and_renamed() -> None:
    target = np.array([[0, 3, 3, 255, 255, 0, 8]])
    pooled = pool_objects([object_counts(np.array([0, 1, 2, 3])[np.searchsorted([0, 3, 8, 255], target)], target)])
    assert (pooled["aji"], pooled["f1"]) == (1.0, 1.0)


def test_empty_pictures() -> None:
    nothing, something = np.zeros((2, 2), np.int64), np.ones((2, 2), np.int64)
    assert math.isnan(pool_objects([object_counts(nothing, nothing)])["aji"])
    assert math.isnan(pool_objects([object_counts(nothing, nothing)])["f1"])
    assert pool_objects([object_counts(something, nothing)])["aji"] == 0
    assert pool_objects([object_counts(nothing, something)])["aji"] == 0
    everything = np.ones((2, 2), np.bool_)
    assert not any(object_counts(something, something, everything).values())


def test_counts_pool_over_pictures_and_through_json() -> None:
    target, prediction = np.array([[1, 1, 0, 2]]), np.array([[1, 0, 0, 2]])
    rows = [object_counts(prediction, target), object_counts(target, target)]
    side_by_side = object_counts(
        np.hstack([prediction, target + (target > 0) * 9]), np.hstack([target, target + (target > 0) * 9])
    )
    assert pool_objects(json.loads(json.dumps(rows))) == pool_objects([side_by_side])


def test_bad_arguments() -> None:
    ids = np.ones((2, 2), np.int64)
    with pytest.raises(ValueError, match="of one size"):
        object_counts(ids, ids[:1])
    with pytest.raises(ValueError, match="integer labels"):
        object_counts(ids.astype(float), ids)
    with pytest.raises(ValueError, match="`ignored` should have the shape"):
        object_counts(ids, ids, ids[0] > 0)
    with pytest.raises(ValueError, match="at least one picture"):
        pool_objects([])


def discs(*centres: tuple[int, int], radius: int = 8, size: int = 48) -> np.ndarray:
    """Ids of the nearest centre, within the radius."""
    rows, columns = np.indices((size, size))
    distances = np.stack([np.hypot(rows - y, columns - x) for y, x in centres])
    return np.where(distances.min(0) <= radius, distances.argmin(0) + 1, 0)


def same_objects(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


def test_two_discs_that_touch_are_split() -> None:
    truth = discs((20, 14), (20, 29))
    assert ndimage.label(truth > 0)[1] == 1  # they touch
    found = split_objects((truth > 0) * 0.9, distance_map(truth))
    assert found.dtype == np.int32
    assert same_objects(found, truth)


@pytest.mark.parametrize("scale", [1.0, 0.5])  # a network that never dares to say 1
def test_a_noisy_distance_map_still_gives_two(scale: float) -> None:
    truth = discs((20, 14), (20, 29))
    noisy = scale * distance_map(truth) + np.random.default_rng(0).normal(0, 0.05, truth.shape)
    found = split_objects((truth > 0).astype(float), noisy)
    assert found.max() == 2
    assert ((found > 0) == (truth > 0)).all()


@pytest.mark.parametrize("level", [0.2, 0.5, 0.9])
def test_a_network_that_has_learned_no_distance_cuts_nothing(level: float) -> None:
    truth = discs((20, 14), (20, 29))
    flat = level + np.random.default_rng(0).normal(0, 0.05, truth.shape)
    assert split_objects((truth > 0).astype(float), flat).max() == 1


def test_an_empty_mask_gives_none() -> None:
    assert not split_objects(np.zeros((5, 6)), np.ones((5, 6))).any()


def test_an_object_without_a_marker_is_kept() -> None:
    truth = discs((12, 12), (34, 34))
    distances = np.where(truth == 1, distance_map(truth), 0.1)
    found = split_objects((truth > 0).astype(float), distances)
    assert same_objects(found, truth)
    assert sorted(set(found.ravel().tolist())) == [0, 1, 2]


def test_markers_outside_the_mask_make_nothing() -> None:
    truth = discs((12, 12))
    distances = distance_map(truth)
    distances[40:] = 1
    assert same_objects(split_objects((truth > 0).astype(float), distances), truth)


def test_sizes_must_be_equal() -> None:
    with pytest.raises(ValueError, match="of one size"):
        split_objects(np.zeros((2, 3)), np.zeros((3, 2)))
