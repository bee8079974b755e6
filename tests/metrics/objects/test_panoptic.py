import json
import math
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.functional.detection import panoptic_quality

from hsl.metrics.objects.average_precision import THRESHOLDS, hits_above, pool_precision
from hsl.metrics.objects.panoptic import match_pictures, panoptic_counts, pool_panoptic
from hsl.metrics.objects.segments import components

NUM_CLASSES = 4
COUNTS = ("tp", "fp", "fn", "iou_sum")
quick = settings(max_examples=80, deadline=None)


@st.composite
def pairs(draw: st.DrawFn, ignore: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Two label images that agree in most places, so that there are matches."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    values = [0, 1, 2, 3, 255] if ignore else [0, 1, 2, 3]
    coarse = draw(arrays(np.int64, (4, 4), elements=st.sampled_from(values)))
    target = np.kron(coarse, np.ones((3, 3), np.int64))[: shape[0], : shape[1]]
    change = draw(arrays(np.int64, shape, elements=st.sampled_from([0] * 6 + [1, 2])))
    prediction = np.where(target == 255, change, (target + change) % NUM_CLASSES)
    return prediction, target


def flood(labels: np.ndarray, things: set[int]) -> dict[tuple[int, int], tuple[int, int]]:
    """Pixel to (class, number) of its 8-neighbour component, by a stack."""
    found: dict[tuple[int, int], tuple[int, int]] = {}
    number = 0
    for start in np.ndindex(labels.shape):
        if start in found or int(labels[start]) not in things:
            continue
        number += 1
        stack = [start]
        while stack:
            y, x = stack.pop()
            if (y, x) in found or not (0 <= y < labels.shape[0] and 0 <= x < labels.shape[1]):
                continue
            if labels[y, x] != labels[start]:
                continue
            found[y, x] = int(labels[start]), number
            stack += [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return found


def brute_force(
    predicted: dict[tuple[int, int], tuple[int, int]],
    wanted: dict[tuple[int, int], tuple[int, int]],
    void: set[tuple[int, int]],
) -> dict[str, list[float]]:
    """tp, fp, fn, IoU sum by sets of pixels, with the void rules of Kirillov et al., section 4."""
    sums = {name: [0.0] * NUM_CLASSES for name in COUNTS}
    sets = [
        {key: {pixel for pixel, other in part.items() if other == key} for key in set(part.values())}
        for part in (predicted, wanted)
    ]
    matched = set()
    for t, target in sets[1].items():
        for p, prediction in sets[0].items():
            iou = len(target & prediction) / len(target | (prediction - void))
            if p[0] == t[0] and iou > 0.5:
                matched |= {("p", p), ("t", t)}
                sums["tp"][t[0]] += 1
                sums["iou_sum"][t[0]] += iou
    for t in sets[1]:
        sums["fn"][t[0]] += ("t", t) not in matched
    for p, prediction in sets[0].items():
        sums["fp"][p[0]] += ("p", p) not in matched and len(prediction & void) <= len(prediction) / 2
    return sums


def as_pixels(ids: np.ndarray, labels: np.ndarray, things: set[int]) -> dict[tuple[int, int], tuple[int, int]]:
    return {
        index: (int(labels[index]), int(ids[index]))
        for index in np.ndindex(ids.shape)
        if ids[index] and int(labels[index]) in things
    }


def void_of(target: np.ndarray) -> set[tuple[int, int]]:
    return {index for index in np.ndindex(target.shape) if target[index] == 255}


@quick
@given(pairs(), st.sampled_from([None, [1], [0, 3], [1, 2]]))
def test_components_equal_brute_force(pair: tuple[np.ndarray, np.ndarray], things: list[int] | None) -> None:
    prediction, target = pair
    chosen = {1, 2, 3} if things is None else set(things)
    visible = np.where(target == 255, 255, prediction)
    expected = brute_force(flood(visible, chosen), flood(target, chosen), void_of(target))
    found = panoptic_counts(prediction, target, NUM_CLASSES, things)
    for name in COUNTS:
        assert found[name] == pytest.approx(expected[name], abs=1e-12)


@quick
@given(pairs(), st.integers(0, 2**32 - 1))
def test_given_instances_equal_brute_force(pair: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    """Given predicted segments reach into the ignored region and are dropped when they lie mostly there."""
    prediction, target = pair
    rng = np.random.default_rng(seed)
    predicted_ids, target_ids = (
        np.kron(rng.integers(0, 4, (3, 3)), np.ones((4, 4), int))[: target.shape[0], : target.shape[1]] * 1000
        for _ in range(2)
    )
    things = {1, 2, 3}
    expected = brute_force(
        as_pixels(predicted_ids, prediction, things), as_pixels(target_ids, target, things), void_of(target)
    )
    found = panoptic_counts(
        prediction, target, NUM_CLASSES, target_instances=target_ids, prediction_instances=predicted_ids
    )
    for name in COUNTS:
        assert found[name] == pytest.approx(expected[name], abs=1e-12)


def peer(prediction: np.ndarray, target: np.ndarray) -> torch.Tensor:
    """PQ, SQ, RQ of torchmetrics per thing class ``(C - 1, 3)``, from our components; things come first."""
    both = []
    for labels in (np.where(target == 255, 0, prediction), np.where(target == 255, 0, target)):
        ids = components(labels.astype(np.uint8), range(1, NUM_CLASSES)).ids
        both.append(torch.from_numpy(np.stack([labels, ids], axis=-1)).long()[None])
    return panoptic_quality(
        *both,
        things=set(range(1, NUM_CLASSES)),
        stuffs={0},
        return_per_class=True,
        return_sq_and_rq=True,
    )[: NUM_CLASSES - 1]


def test_equals_torchmetrics() -> None:
    rng = np.random.default_rng(3)
    target = np.kron(rng.integers(0, 4, (12, 12)), np.ones((5, 5), int))
    prediction = np.where(rng.random(target.shape) < 0.1, 0, np.roll(target, 1, 0))
    pooled = pool_panoptic([panoptic_counts(prediction, target, NUM_CLASSES)])
    assert sum(pooled["tp"]) > 3
    ours = np.stack([pooled["pq"], pooled["sq"], pooled["rq"]], axis=1)[1:]
    np.testing.assert_allclose(ours, peer(prediction, target).numpy(), atol=1e-6)


@pytest.mark.real_data
def test_equals_torchmetrics_on_real_nuclei() -> None:
    import cv2

    root = Path(os.environ["HSL_REAL_DATA"]) / "nuclei_dsb2018"
    rows = []
    for file in sorted((root / "instances").glob("*.png"))[::120]:
        ids = cv2.imread(str(file), cv2.IMREAD_UNCHANGED).astype(np.int64)
        target = (cv2.imread(str(root / "masks" / file.name), cv2.IMREAD_UNCHANGED) > 0).astype(np.int64)
        moved, shifted = np.roll(ids, (3, 1), (0, 1)), np.roll(target, (3, 1), (0, 1))
        rows.append(panoptic_counts(shifted, target, 2, None, ids, moved))
        wanted = np.stack([np.where(ids > 0, target, 0), ids], axis=-1)
        predicted = np.stack([np.where(moved > 0, shifted, 0), moved], axis=-1)
        expected = panoptic_quality(
            *(torch.from_numpy(image)[None] for image in (predicted, wanted)),
            things={1},
            stuffs={0},
            return_per_class=True,
        )
        assert pool_panoptic(rows[-1:])["pq"][1] == pytest.approx(expected[0, 0].item(), abs=1e-6)
    assert sum(row["tp"][1] for row in rows) > 100


@quick
@given(pairs(ignore=False))
def test_exchanging_the_images_exchanges_fp_and_fn(pair: tuple[np.ndarray, np.ndarray]) -> None:
    there, back = panoptic_counts(*pair, NUM_CLASSES), panoptic_counts(*pair[::-1], NUM_CLASSES)
    assert (there["tp"], there["fp"], there["fn"]) == (back["tp"], back["fn"], back["fp"])
    assert there["iou_sum"] == pytest.approx(back["iou_sum"])


@quick
@given(pairs(), st.integers(0, 2**32 - 1))
def test_ignored_pixels_change_nothing(pair: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    prediction, target = pair
    noise = np.random.default_rng(seed).integers(0, 300, target.shape)
    other = np.where(target == 255, noise, prediction)
    assert panoptic_counts(other, target, NUM_CLASSES) == panoptic_counts(prediction, target, NUM_CLASSES)


@quick
@given(pairs())
def test_identical_masks_match_all(pair: tuple[np.ndarray, np.ndarray]) -> None:
    target = pair[1]
    found = panoptic_counts(np.where(target == 255, 2, target), target, NUM_CLASSES)
    assert sum(found["fp"]) == sum(found["fn"]) == 0
    assert found["iou_sum"] == found["tp"]
    assert sum(found["tp"]) == len(set(flood(target, {1, 2, 3}).values()))


@quick
@given(pairs(), st.permutations([1, 2, 3]))
def test_renaming_the_classes_reorders_the_counts(pair: tuple[np.ndarray, np.ndarray], order: list[int]) -> None:
    names = np.full(256, 255)
    names[:NUM_CLASSES] = [0, *order]
    before = panoptic_counts(*pair, NUM_CLASSES)
    after = panoptic_counts(names[pair[0]], names[pair[1]], NUM_CLASSES)
    for name in COUNTS:
        np.testing.assert_allclose(np.array(after[name])[[0, *order]], before[name])


def test_pooling_sums_before_it_divides() -> None:
    """Two pictures: one perfect object, and three missed ones. PQ is 1 / (1 + 3 / 2), not the mean 0.5."""
    one, three = np.zeros((2, 9, 9), np.uint8)
    one[0:3, 0:3] = three[0, 0] = three[0, 4] = three[8, 8] = 1
    rows = [panoptic_counts(one, one, 2), panoptic_counts(np.zeros_like(three), three, 2)]
    pooled = pool_panoptic(rows)
    assert pooled["pq"][1] == pytest.approx(0.4)
    assert pooled["sq"][1] == 1.0
    assert pooled["rq"][1] == pytest.approx(0.4)
    assert math.isnan(pooled["pq"][0])
    assert pooled["mean_pq"] == pytest.approx(0.4)
    assert pooled["classes_scored"] == 1
    np.testing.assert_equal(pool_panoptic(rows[::-1]), pooled)


def test_a_class_that_is_only_missed_counts_as_zero() -> None:
    pooled = pool_panoptic([panoptic_counts(np.zeros((3, 3), int), np.full((3, 3), 2), 4)])
    assert pooled["pq"][2] == pooled["rq"][2] == 0.0
    assert math.isnan(pooled["sq"][2])
    assert pooled["classes_scored"] == 1


def test_nothing_to_score_is_nan_not_zero() -> None:
    pooled = pool_panoptic([panoptic_counts(np.zeros((3, 3), int), np.zeros((3, 3), int), 2)])
    assert math.isnan(pooled["mean_pq"])
    assert pooled["classes_scored"] == 0
    with pytest.raises(ValueError, match="at least one picture"):
        pool_panoptic([])


def test_iou_of_exactly_one_half_is_no_match() -> None:
    target, prediction = np.zeros((2, 1, 8), np.uint8)
    target[0, 0:3], prediction[0, 1:4] = 1, 1
    found = panoptic_counts(prediction, target, 2)
    assert (found["tp"], found["fp"], found["fn"]) == ([0, 0], [0, 1], [0, 1])


def test_corners_connect_and_an_ignored_band_cuts_both() -> None:
    target = np.eye(5, dtype=np.uint8)
    assert panoptic_counts(target, target, 2)["tp"] == [0, 1]
    band, whole = np.ones((5, 5), np.uint8), np.ones((5, 5), np.uint8)
    band[2] = 255
    assert panoptic_counts(whole, band, 2)["tp"] == [0, 2]


def test_pixels_without_an_instance_are_no_object() -> None:
    labels, ids = np.array([[1, 1, 0, 1]]), np.array([[5, 5, 7, 0]])
    matching = match_pictures(labels, labels, 2, None, ids, ids)
    assert matching.target.ids.tolist() == [[1, 1, 0, 0]]
    assert matching.target.classes.tolist() == [-1, 1]


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (1, 7), (5, 3)])
def test_edges(shape: tuple[int, int]) -> None:
    ones, zeros = np.ones(shape, np.uint8), np.zeros(shape, np.uint8)
    number = int(ones.size > 0)
    assert panoptic_counts(ones, ones, 2)["tp"] == [0, number]
    assert panoptic_counts(zeros, ones, 2)["fn"] == [0, number]
    assert panoptic_counts(ones, zeros, 2)["fp"] == [0, number]
    none = panoptic_counts(ones, np.full(shape, 255), 2)
    assert none == {name: [0, 0] for name in COUNTS} | {"tp_above": [[0] * len(THRESHOLDS)] * 2}
    assert panoptic_counts(zeros, zeros, 1)["tp_above"] == [[0] * len(THRESHOLDS)]
    nothing = panoptic_counts(ones, np.full(shape, 255), 2, None, ones, ones)
    assert nothing["fp"] == [0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"things": [4]}, r"`things` should be classes in \[0, 4\)"),
        ({"target_instances": np.zeros((3, 2), int)}, "shape of the class map"),
        ({"prediction_instances": np.full((2, 2), -1)}, "no negative id"),
    ],
)
def test_errors(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        panoptic_counts(np.zeros((2, 2), int), np.zeros((2, 2), int), NUM_CLASSES, **options)


@st.composite
def nested_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Instance maps of two classes' worth of blocks; the prediction differs in a few pixels."""
    blocks = draw(arrays(np.int64, (3, 3), elements=st.integers(0, 5)))
    target = np.kron(blocks, np.ones((4, 4), np.int64))
    change = draw(arrays(np.int64, target.shape, elements=st.sampled_from([-1] * 12 + [0, 1, 2])))
    return np.where(change >= 0, change, target), target


def hits_by_brute_force(
    predictions: list[np.ndarray], targets: list[np.ndarray]
) -> dict[Fraction, tuple[int, int, int]]:
    """TP, FP and FN at each threshold; every pair of objects of every picture is looked at on its own."""
    found = {}
    for t in (Fraction(k, 20) for k in range(10, 20)):
        tp = fp = fn = 0
        for prediction, target in zip(predictions, targets, strict=True):
            sets = [
                [set(np.flatnonzero(ids == name).tolist()) for name in np.unique(ids) if name]
                for ids in (prediction, target)
            ]
            hits = [(i, j) for i, p in enumerate(sets[0]) for j, q in enumerate(sets[1])
                    if Fraction(len(p & q), len(p | q)) > t]  # fmt: skip
            tp += len(hits)
            fp += len(sets[0]) - len({i for i, _ in hits})
            fn += len(sets[1]) - len({j for _, j in hits})
        found[t] = tp, fp, fn
    return found


def counts_of(prediction: np.ndarray, target: np.ndarray) -> dict[str, list]:
    maps = [(ids > 0).astype(np.uint8) for ids in (prediction, target)]
    return panoptic_counts(*maps, 2, target_instances=target, prediction_instances=prediction)


@settings(max_examples=60, deadline=None)
@given(st.lists(nested_pairs(), min_size=1, max_size=3))
def test_equal_to_brute_force(pictures: list[tuple[np.ndarray, np.ndarray]]) -> None:
    expected = hits_by_brute_force([one for one, _ in pictures], [other for _, other in pictures])
    pooled = pool_precision([counts_of(*pair) for pair in pictures])
    scores = [tp / (tp + fp + fn) if tp + fp + fn else math.nan for tp, fp, fn in expected.values()]
    assert pooled["object_ap"][1] == pytest.approx(np.mean(scores), nan_ok=True)
    assert (pooled["object_ap50"][1], pooled["object_ap75"][1]) == pytest.approx((scores[0], scores[5]), nan_ok=True)


@pytest.mark.parametrize("k", range(10, 20))
def test_an_iou_of_exactly_a_threshold_is_no_match_there(k: int) -> None:
    target, prediction = np.ones((1, 20), np.int64), np.zeros((1, 20), np.int64)
    prediction[0, :k] = 1
    hits = counts_of(prediction, target)["tp_above"][1]
    assert hits == [int(k / 20 > t) for t in THRESHOLDS]
    assert sum(hits) == k - 10


def test_by_hand_and_pooled_over_pictures() -> None:
    # Two of three objects found, one at IoU 1 and one at 3/4; a spare prediction in the second picture.
    first = np.array([[1, 1, 1, 1, 0, 2, 0, 3]]), np.array([[1, 1, 1, 1, 0, 0, 0, 3]])
    second = np.array([[0, 0, 0, 0, 0, 5, 5, 5]]), np.array([[0, 0, 0, 0, 5, 5, 5, 5]])
    rows = [counts_of(*first), counts_of(*second)]
    pooled = pool_precision(json.loads(json.dumps(rows)))
    assert pooled["object_ap50"][1] == 3 / 4
    assert pooled["object_ap75"][1] == 2 / (2 + 2 + 1)  # 3/4 is not above 0.75: one too many, one missed
    assert pooled["object_ap"][1] == pytest.approx((5 * 3 / 4 + 5 * 2 / 5) / 10)
    assert math.isnan(pooled["object_ap"][0])


def test_perfect_nothing_and_empty() -> None:
    something, nothing = np.ones((3, 3), np.int64), np.zeros((3, 3), np.int64)
    assert pool_precision([counts_of(something, something)])["object_ap"][1] == 1
    assert pool_precision([counts_of(nothing, something)])["object_ap"][1] == 0
    assert pool_precision([counts_of(something, nothing)])["object_ap"][1] == 0
    assert math.isnan(pool_precision([counts_of(nothing, nothing)])["object_ap"][1])
    assert hits_above(np.zeros(0, np.int64), np.zeros(0), 2) == [[0] * len(THRESHOLDS)] * 2
    with pytest.raises(ValueError, match="at least one picture"):
        pool_precision([])


def test_rows_from_before_the_score_leave_it_unknown() -> None:
    new = counts_of(np.ones((3, 3), np.int64), np.ones((3, 3), np.int64))
    old = {name: values for name, values in new.items() if name != "tp_above"}
    for rows in ([old], [new, old], [new | {"tp_above": None}]):
        assert math.isnan(pool_precision(rows)["object_ap"][1])
