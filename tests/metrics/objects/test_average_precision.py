"""AP against the rule of the 2018 Data Science Bowl, counted by sets of pixels."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hsl.metrics.objects.average_precision import THRESHOLDS, hits_above, pool_precision
from hsl.metrics.objects.panoptic import panoptic_counts


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Instance maps of two classes' worth of blocks; the prediction differs in a few pixels."""
    blocks = draw(arrays(np.int64, (3, 3), elements=st.integers(0, 5)))
    target = np.kron(blocks, np.ones((4, 4), np.int64))
    change = draw(arrays(np.int64, target.shape, elements=st.sampled_from([-1] * 12 + [0, 1, 2])))
    return np.where(change >= 0, change, target), target


def brute_force(predictions: list[np.ndarray], targets: list[np.ndarray]) -> dict[Fraction, tuple[int, int, int]]:
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
@given(st.lists(pairs(), min_size=1, max_size=3))
def test_equal_to_brute_force(pictures: list[tuple[np.ndarray, np.ndarray]]) -> None:
    expected = brute_force([one for one, _ in pictures], [other for _, other in pictures])
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
