"""Stages that decide where training goes on: boosting, cascades, the referee and experts."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.ensemble import AdaBoostClassifier
from sklearn.tree import DecisionTreeClassifier
from tests.ensembles._inputs import relabelled, rows_of

from hsl.ensembles.boosting import boosting, samme
from hsl.ensembles.cascade import cascade, confidence, consulted, still_wrong
from hsl.ensembles.experts import experts
from hsl.ensembles.nested import meta_folds, run_nested, score_of
from hsl.ensembles.referee import disputed, off_majority, referee
from hsl.ensembles.rows import Rows
from hsl.ensembles.votes import best_single, simplex_weights


@pytest.mark.parametrize("num_classes", [2, 3])
def test_weights_and_decisions_are_those_of_adaboost(num_classes: int) -> None:
    images, labels = make_classification(150, 6, n_informative=4, n_classes=num_classes, flip_y=0.2, random_state=0)
    model = AdaBoostClassifier(DecisionTreeClassifier(max_depth=1), n_estimators=6, random_state=0).fit(images, labels)
    order = [f"r{i}" for i in range(6)]
    outputs = [np.eye(num_classes)[each.predict(images)] for each in model.estimators_]
    rows = rows_of(dict.fromkeys(order, 1.0), num=150, classes=num_classes, labels=labels, probabilities=outputs)
    found = samme(order, rows)
    np.testing.assert_allclose(found.alphas, model.estimator_weights_)
    combined = boosting(order)["boosting/samme"](rows)
    np.testing.assert_array_equal(combined(rows).argmax(axis=1), model.predict(images))
    np.testing.assert_allclose(combined(rows).sum(axis=1), 1)
    assert combined.notes["alphas"]["r0"] == found.alphas[0]


def decided(right: list[list[bool]], labels: list[int], classes: int = 3) -> Rows:
    """Members that are right or wrong as told."""
    answers = (np.array(labels) + ~np.array(right)) % classes
    names = dict.fromkeys((f"m{i}" for i in range(len(right))), 1.0)
    return rows_of(names, num=len(labels), classes=classes, labels=labels, probabilities=np.eye(classes)[answers])


def test_one_round_by_hand() -> None:
    rows = decided([[True, True, True, False], [True, True, False, True]], [0, 1, 2, 0])
    alphas, weights = samme(["m0", "m1"], rows)
    first = np.log(3) + np.log(2)  # err = 1/4
    second_error = 1 / (3 + np.exp(first))
    assert alphas == pytest.approx([first, np.log((1 - second_error) / second_error) + np.log(2)])
    expected = np.array([1, 1, np.exp(alphas[1]), np.exp(first)])
    np.testing.assert_allclose(weights, expected / expected.mean())
    np.testing.assert_allclose(samme(["m0"], rows).row_weights, np.array([1, 1, 1, 6]) * 4 / 9)


def test_a_member_that_is_never_wrong_or_no_better_than_chance_ends_the_series() -> None:
    labels = [0, 1, 2, 0]
    rows = decided([[True] * 4, [True, False, True, True]], labels)
    assert samme(["m0", "m1"], rows).alphas.tolist() == [1, 0]
    np.testing.assert_array_equal(boosting(["m0", "m1"])["boosting/samme"](rows)(rows), rows.probabilities[0])
    rows = decided([[False] * 4, [True, False, True, True]], labels)
    alphas, weights = samme(["m0", "m1"], rows)
    assert alphas.tolist() == [0, 0]
    np.testing.assert_allclose(weights, 1)
    np.testing.assert_array_equal(boosting(["m0", "m1"])["boosting/samme"](rows)(rows), rows.probabilities.mean(axis=0))


def test_of_several_classes_each_known_label_is_a_decision() -> None:
    rows = rows_of(
        {"m0": 1.0}, num=2, several=True, labels=[[1, 0, 0], [1, np.nan, 0]],
        probabilities=[[[0.9, 0.1, 0.1], [0.1, 0.9, 0.1]]],
    )  # fmt: skip
    alphas, weights = samme(["m0"], rows)
    assert alphas == pytest.approx([np.log(4)])  # one of five decisions is wrong
    np.testing.assert_allclose(weights, np.array([3, 5]) / 4)


def test_unknown_labels_weigh_one_and_orders_that_cannot_be_are_refused() -> None:
    rows = decided([[True, False, True, True]], [0, 1, 2, 0])
    some = relabelled(rows, [0, 1, 2, -1])
    assert samme(["m0"], some).row_weights[3] == 1
    np.testing.assert_allclose(samme(["m0"], some).row_weights[:3].sum(), 3)
    for order in ([], ["m0", "m0"]):
        with pytest.raises(ValueError, match="should name unlike members"):
            boosting(order)


# Cascades against a search of all thresholds.


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


# The referee decides where members dispute, and nowhere else.


def votes_of(cast: list[list[int]]) -> Rows:
    """Members ``m0...`` that each vote for a class of each image, and a referee who says c."""
    probabilities = [*np.eye(3)[cast], np.tile([0, 0, 1], (len(cast[0]), 1))]
    names = dict.fromkeys([*(f"m{i}" for i in range(len(cast))), "referee"], 1.0)
    return rows_of(names, num=len(cast[0]), probabilities=probabilities)


def test_a_share_off_the_majority_above_the_limit_is_a_dispute() -> None:
    rows = votes_of([[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 1], [0, 1, 0]]).of_members([f"m{i}" for i in range(5)])
    np.testing.assert_allclose(off_majority(rows), [0, 0.4, 0.6])
    assert disputed(rows).tolist() == [False, False, True]
    assert disputed(rows, 0.3).tolist() == [False, True, True]


def test_of_several_classes_the_most_disputed_one_counts() -> None:
    probabilities = np.array([[[0.9, 0.1]], [[0.9, 0.9]], [[0.2, 0.1]]])
    rows = rows_of([1, 1, 1], num=1, several=True, classes=2, probabilities=probabilities)
    np.testing.assert_allclose(off_majority(rows), [1 / 3])


def test_the_referee_decides_disputed_images_alone() -> None:
    rows = votes_of([[0, 0], [0, 1], [0, 2]])
    combined = referee("referee")["referee/disputed"](rows)
    np.testing.assert_allclose(combined(rows), [[1, 0, 0], [0, 0, 1]])
    assert combined.notes == {"referee": "referee", "consulted": 0.5}
    for name in ("nobody", "m0"):
        with pytest.raises(ValueError, match=f"Found `member = {name}`"):
            referee(name)["referee/disputed"](rows.of_members(["m0"]))
    with pytest.raises(ValueError, match=r"`limit` should be in \[0, 1\)"):
        referee("referee", 1.0)


# The gate against simplex weights, and on members that know when they know.


def gate(rows: Rows, **settings: float) -> np.ndarray:
    return experts(**settings)["experts/gate"](rows)(rows)


def test_a_gate_that_may_read_nothing_gives_the_weights_of_least_log_loss() -> None:
    rows = rows_of([1, 0.8, 0.5], num=120)
    weights = simplex_weights(rows.likelihoods[..., 0])
    expected = np.einsum("m,mnk->nk", weights, rows.probabilities)
    np.testing.assert_allclose(gate(rows, inverse_penalty=1e-9), expected, atol=0.02)


def where_each_knows(several: bool) -> Rows:
    """A feature of the image says which of two members is right; the third is noise."""
    rows = rows_of([1.5, 1.5, 0], num=240, several=several)
    wrong, first = rows_of([-1, -1, 0], num=240, several=several), np.arange(240) % 4 < 2
    probabilities = rows.probabilities.copy()
    probabilities[0, ~first], probabilities[1, first] = wrong.probabilities[0, ~first], wrong.probabilities[1, first]
    features = {"m02": first[:, None].astype(np.float32)}
    return replace(rows, probabilities=probabilities, features=features)


@pytest.mark.parametrize("several", [False, True])
def test_the_gate_reads_which_member_knows(several: bool) -> None:
    rows = where_each_knows(several)
    parts, fit = meta_folds(rows, 3), experts(inverse_penalty=100)["experts/gate"]
    gated = score_of(run_nested("gate", fit, rows, parts).nested, rows)
    assert gated > score_of(rows.probabilities.mean(axis=0), rows) + 0.1
    assert gated > score_of(run_nested("single", best_single, rows, parts).nested, rows) + 0.1
    with pytest.raises(ValueError, match="pooled features of m02, which the gate was fitted on"):
        fit(rows)(replace(rows, features={}))


def test_only_the_top_members_are_asked() -> None:
    rows = where_each_knows(False)
    top = gate(rows, top=1, inverse_penalty=100)
    assert (np.abs(top[None] - rows.probabilities).max(axis=2).min(axis=0) < 1e-12).all()
    np.testing.assert_array_equal(gate(rows, top=3), gate(rows, top=9))
    with pytest.raises(ValueError, match="`top` should be at least 1"):
        gate(rows, top=0)


def test_members_of_equal_weight_are_asked_together() -> None:
    rows = rows_of([1], num=40)
    four = rows_of([1] * 4, num=40, probabilities=np.repeat(rows.probabilities, 4, axis=0), features={})
    np.testing.assert_allclose(gate(four, top=1), rows.probabilities[0], atol=1e-6)
    np.testing.assert_allclose(gate(rows), rows.probabilities[0])


def test_unknown_labels_are_in_no_fit() -> None:
    rows = rows_of([1, 0.5], num=60)
    known = np.arange(60) % 3 > 0
    fit = experts()["experts/gate"]
    some = relabelled(rows, np.where(known, rows.labels, -1))
    np.testing.assert_array_equal(fit(some)(rows), fit(rows.take(known))(rows))
