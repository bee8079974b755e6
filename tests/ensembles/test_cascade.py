"""Cascades against a search of all thresholds."""

import itertools

import numpy as np
import pytest
from tests.ensembles._inputs import relabelled, rows_of

from hsl.ensembles.cascade import cascade, confidence, consulted, still_wrong
from hsl.ensembles.nested import meta_folds, run_nested, score_of


def test_the_next_member_is_asked_below_the_threshold() -> None:
    confidences = [np.array([0.9, 0.5, 0.5, 0.2]), np.array([0.1, 0.8, 0.3, 0.8]), np.array([0.1] * 4)]
    assert consulted(confidences, [0.6, 0.5]).tolist() == [0, 1, 2, 1]
    assert consulted(confidences, [0, 0.5]).tolist() == [0, 0, 0, 0]
    assert confidence(np.array([[0.2, 0.8]]), False).tolist() == [0.8]
    assert confidence(np.array([[0.2, 0.9]]), True) == pytest.approx([0.85])


@pytest.mark.parametrize("several", [False, True])
def test_two_members_have_the_threshold_of_the_best_score(several: bool) -> None:
    rows = rows_of({"first": 0.5, "second": 0.6}, num=40, several=several)
    first, second = rows.probabilities
    sure = confidence(first, several)
    every = [np.where((sure < limit)[:, None], second, first) for limit in [0, *np.unique(sure), 2]]
    combined = cascade(["first", "second"])["cascade/thresholds"](rows)
    best = max(score_of(values, rows) for values in every)
    assert score_of(combined(rows), rows) == pytest.approx(best, abs=0.05)
    assert score_of(combined(rows), rows) >= score_of(first, rows)
    threshold = combined.notes["thresholds"]["first"]
    assert combined.notes["consulted"] == {"first": 1.0, "second": pytest.approx((sure < threshold).mean())}


def test_a_later_member_that_is_worse_is_never_asked_and_a_perfect_one_where_needed() -> None:
    rows = rows_of({"a": 1, "wrong": -2, "zperfect": 9}, num=100)
    never = cascade(["a", "wrong"])["cascade/thresholds"](rows)
    assert never.notes["consulted"]["wrong"] == 0
    np.testing.assert_array_equal(never(rows), rows.probabilities[0])
    perfect = cascade(["a", "zperfect"])["cascade/thresholds"](rows)
    assert score_of(perfect(rows), rows) == 1
    assert 0 < perfect.notes["consulted"]["zperfect"] < 1


def test_the_thresholds_of_three_members_are_near_the_best_of_a_grid() -> None:
    rows = rows_of({"a": 0.4, "b": 0.5, "c": 0.6}, num=120, seed=3)
    values = list(rows.probabilities)
    confidences = [confidence(each, False) for each in values]
    grid = itertools.product(np.linspace(0, 1.01, 25), repeat=2)
    scores = []
    for thresholds in grid:
        last = consulted(confidences, thresholds)
        scores.append(score_of(np.stack(values)[last, np.arange(120)], rows))
    found = score_of(cascade(["a", "b", "c"])["cascade/thresholds"](rows)(rows), rows)
    assert found >= max(scores) - 0.03


def test_what_is_still_wrong_is_what_the_next_member_is_trained_on() -> None:
    rows = rows_of({"a": 0.5, "b": 0.5}, num=60)
    wrong = rows.probabilities[0].argmax(axis=1) != rows.labels
    assert still_wrong(["a"], rows) == tuple(np.array(rows.ids)[wrong])
    unknown = relabelled(rows, np.where(wrong, -1, rows.labels))
    assert still_wrong(["a"], unknown) == ()
    both = cascade(["a", "b"])["cascade/thresholds"](rows)(rows)
    assert still_wrong(["a", "b"], rows) == tuple(np.array(rows.ids)[both.argmax(axis=1) != rows.labels])


def test_thresholds_are_nested_and_orders_that_cannot_be_are_refused() -> None:
    rows = rows_of({"a": 0.5, "b": 0.9, "other": 0}, num=80)
    result = run_nested("cascade", cascade(["a", "b"])["cascade/thresholds"], rows, meta_folds(rows))
    assert result.combined.members == ("a", "b")
    assert score_of(result.nested, rows) > score_of(rows.probabilities[0], rows)
    for order in ([], ["a", "a"], list("abcdef")):
        with pytest.raises(ValueError, match="1 to 5 unlike members"):
            cascade(order)
    with pytest.raises(ValueError, match=r"among a, b, other. Found nobody"):
        cascade(["a", "nobody"])["cascade/thresholds"](rows)
