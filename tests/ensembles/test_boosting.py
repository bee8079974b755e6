"""SAMME against scikit-learn's AdaBoost."""

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.ensemble import AdaBoostClassifier
from sklearn.tree import DecisionTreeClassifier
from tests.ensembles._inputs import relabelled, rows_of

from hsl.ensembles.boosting import boosting, samme
from hsl.ensembles.rows import Rows


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
