"""Rows are canonical and refuse what does not fit."""

from dataclasses import replace

import numpy as np
import pytest
from tests.ensembles._inputs import relabelled, rows_of, shuffled

from hsl.ensembles.rows import Rows


@pytest.mark.parametrize("several", [False, True])
def test_the_order_in_which_rows_and_members_come_changes_nothing(several: bool) -> None:
    rows = rows_of([1, 0.5, 0], num=20, several=several)
    assert shuffled(rows).digest == rows.digest
    assert shuffled(rows).ids == rows.ids
    np.testing.assert_array_equal(shuffled(rows).probabilities, rows.probabilities)


def test_another_value_is_another_digest() -> None:
    rows = rows_of([1, 0.5], num=6)
    others = [relabelled(rows, np.roll(rows.labels, 2)), rows.of_members(["m00"]), rows.take(np.arange(4))]
    changed = rows.probabilities.copy()
    changed[0, 0] = changed[0, 0][::-1]
    others.append(replace(rows, probabilities=changed, foreground=None))
    assert len({rows.digest, *(other.digest for other in others)}) == 5


def test_taking_rows_keeps_what_belongs_together() -> None:
    rows = rows_of([1, 0.5], num=10)
    some = rows.take(np.array([7, 2, 2]))
    assert some.ids == ("i0002", "i0007")
    assert some.groups == (rows.groups[2], rows.groups[7])
    np.testing.assert_array_equal(some.probabilities, rows.probabilities[:, [2, 7]])
    np.testing.assert_array_equal(some.features["m01"], rows.features["m01"][[2, 7]])
    np.testing.assert_array_equal(rows.take(np.arange(10) > 6).foreground, rows.foreground[:, 7:])
    one = rows.of_members(["m01"])
    assert one.members == ("m01",)
    assert list(one.features) == ["m01"]
    np.testing.assert_array_equal(one.probabilities, rows.probabilities[1:])
    with pytest.raises(ValueError, match=r"among m00, m01. Found m02"):
        rows.of_members(["m02"])


def test_likelihoods_are_of_what_is_true() -> None:
    rows = rows_of([1.0], num=2, labels=[2, -1])
    assert rows.likelihoods[0, 0, 0] == rows.probabilities[0, 0, 2]
    assert np.isnan(rows.likelihoods[0, 1, 0])
    assert rows.labelled().ids == ("i0000",)
    several = rows_of([1.0], num=1, several=True, labels=[[1, 0, np.nan]])
    p = several.probabilities[0, 0]
    np.testing.assert_allclose(several.likelihoods[0, 0], [p[0], 1 - p[1], np.nan])
    with pytest.raises(ValueError, match="At least one row should have a label"):
        rows.take(np.array([1])).labelled()


def test_rows_that_do_not_fit_are_refused() -> None:
    rows = rows_of([1, 0.5], num=4)
    broken = rows.probabilities.copy()
    broken[1, 2, 0] = np.nan
    wrong = {
        "`ids` should be sorted": {"ids": ("b", "a", "c", "d")},
        "`members` should be sorted": {"members": ("m01", "m01")},
        "`ids` should hold": {"ids": ()},
        "`groups` should be of size 4. Found 3": {"groups": rows.groups[1:]},
        "`folds` should be of size": {"folds": rows.folds[1:]},
        r"`probabilities` should be of size \(2, 4, 3\)": {"probabilities": rows.probabilities[:1]},
        "of m01 for i0002": {"probabilities": broken},
        "add up to 1": {"probabilities": rows.probabilities / 2},
        r"`labels` should be -1 or in \[0, 3\). Found 3": {"labels": np.array([0, 1, 2, 3])},
        "`classes` should be two or more": {"classes": ("a", "a", "b")},
        "`features` should be finite. Found others of m00": {"features": {"m00": np.full((4, 2), np.inf)}},
        "`features` should be of members. Found others: x": {"features": {"x": np.zeros((4, 2))}},
        "`foreground` should be of size": {"foreground": np.zeros((1, 4))},
    }
    for message, change in wrong.items():
        with pytest.raises(ValueError, match=message):
            replace(rows, **change)
    several = rows_of([1], num=2, several=True)
    with pytest.raises(ValueError, match=r"0, 1 or NaN. Found [01].5"):
        relabelled(several, several.labels + 0.5)


def test_unlabelled_rows_are_those_of_new_images() -> None:
    probabilities = np.array([[[0.3, 0.7], [0.6, 0.4]]])
    rows = Rows.unlabelled(["b", "a"], ["m"], ("no", "yes"), False, probabilities)
    assert rows.ids == ("a", "b")
    assert rows.labels.tolist() == [-1, -1]
    np.testing.assert_array_equal(rows.probabilities, probabilities[:, ::-1])
    assert np.isnan(Rows.unlabelled(["a"], ["m"], ("no", "yes"), True, probabilities[:, :1]).labels).all()
