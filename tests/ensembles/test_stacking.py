"""Stacking is scikit-learn's over the same folds, and stays at chance where nothing can be learnt."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier
from tests.ensembles._inputs import relabelled, rows_of

from hsl.ensembles.learners import logistic_regression
from hsl.ensembles.nested import meta_folds, run_nested, score_of
from hsl.ensembles.rows import Rows
from hsl.ensembles.stacking import stacking

STACKING = stacking()


def test_stacking_is_that_of_scikit_learn_with_the_same_folds() -> None:
    images, labels = make_classification(200, 6, n_informative=4, n_classes=3, random_state=0)
    new, _ = make_classification(50, 6, n_informative=4, n_classes=3, random_state=1)
    members = [
        ("bayes", GaussianNB()),
        ("l", LogisticRegression()),
        ("tree", DecisionTreeClassifier(random_state=0)),
    ]
    folds = list(StratifiedKFold(4, shuffle=True, random_state=0).split(images, labels))
    expected = StackingClassifier(members, logistic_regression(0.1), cv=folds, stack_method="predict_proba")
    expected.fit(images, labels)
    out_of_fold = [cross_val_predict(member, images, labels, cv=folds, method="predict_proba") for _, member in members]
    names = dict.fromkeys((name for name, _ in members), 1.0)
    rows = rows_of(names, num=200, labels=labels, probabilities=out_of_fold)
    refitted = [member.fit(images, labels).predict_proba(new) for _, member in members]
    ids = [f"n{i:02d}" for i in range(50)]
    found = STACKING["stacking/logistic"](rows)(Rows.unlabelled(ids, list(names), rows.classes, False, refitted))
    np.testing.assert_allclose(found, expected.predict_proba(new), atol=1e-12)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", STACKING)
def test_a_stacker_finds_the_member_that_is_right(name: str, several: bool) -> None:
    rows = rows_of([1.2, 0, -1], num=200, several=several)  # one right, one noise, one always wrong
    result = run_nested(name, STACKING[name], rows, meta_folds(rows, 3))
    assert score_of(result.nested, rows) > score_of(rows.probabilities.mean(axis=0), rows) + 0.05
    if not several:
        np.testing.assert_allclose(result.nested.sum(axis=1), 1)


def test_a_class_that_no_fitted_row_has_gets_nothing_and_one_class_alone_is_certain() -> None:
    rows = rows_of([1, 0.5], num=90)
    two, one = rows.take(rows.labels != 2), rows.take(rows.labels == 1)
    for name, fit in STACKING.items():
        assert (fit(two)(rows)[:, 2] == 0).all(), name
        np.testing.assert_array_equal(fit(one)(rows), np.tile([0, 1, 0], (90, 1)))


def test_a_class_that_all_or_none_show_has_a_smoothed_share() -> None:
    rows = rows_of([1], num=40, several=True)
    labels = rows.labels.copy()
    labels[:, 0], labels[:, 1], labels[:10, 1] = 1, 0, np.nan
    found = STACKING["stacking/logistic"](relabelled(rows, labels))(rows)
    np.testing.assert_allclose(found[:, :2], np.tile([41 / 42, 1 / 32], (40, 1)))


def test_unknown_labels_and_member_names_change_no_fit() -> None:
    rows = rows_of([1, 0.5], num=60)
    known = np.arange(60) % 3 > 0
    some = relabelled(rows, np.where(known, rows.labels, -1))
    renamed = replace(rows, members=("x", "y"), features={}, foreground=None)
    for name, fit in STACKING.items():
        np.testing.assert_array_equal(fit(some)(rows), fit(rows.take(known))(rows), err_msg=name)
        np.testing.assert_array_equal(fit(renamed)(renamed), fit(rows)(rows), err_msg=name)


def test_settings_reach_the_learners() -> None:
    rows = rows_of([0.5, 0.2], num=60)
    weak = stacking(inverse_penalty=1e-6, penalty=1e4, trees=1)
    for name, fit in STACKING.items():
        assert np.abs(weak[name](rows)(rows) - fit(rows)(rows)).max() > 0.01, name
    assert isinstance(STACKING["stacking/mlp"], partial)
