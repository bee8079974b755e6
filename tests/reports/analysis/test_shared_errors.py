"""Errors of several models against sets made by hand."""

import numpy as np
import pytest

from hsl.reports.analysis.shared_errors import Errors, wrong_pictures

WRONG = {"a": {"p", "q", "r"}, "b": {"p", "q"}, "c": {"p", "t"}}
IDS = ["p", "q", "r", "s", "t"]


def errors() -> Errors:
    return Errors(IDS, list(WRONG), np.array([[name in wrong for name in IDS] for wrong in WRONG.values()]))


def test_pictures_that_all_or_only_one_get_wrong() -> None:
    assert errors().wrong_in_all == ["p"]
    assert errors().wrong_in_one == {"a": ["r"], "b": [], "c": ["t"]}
    assert errors().num_wrong.tolist() == [3, 2, 1, 0, 1]


def test_overlap_is_the_jaccard_index_of_the_sets() -> None:
    expected = [[len(one & other) / len(one | other) for other in WRONG.values()] for one in WRONG.values()]
    assert errors().overlap == pytest.approx(np.array(expected))


def test_models_without_errors_have_no_overlap() -> None:
    found = Errors(["p", "q"], ["a", "b"], np.array([[False, False], [True, False]]))
    assert np.isnan(found.overlap[0, 0])
    assert found.overlap[1].tolist() == [0, 1]
    assert found.wrong_in_all == []
    assert found.wrong_in_one == {"a": [], "b": ["p"]}


def test_wrong_is_any_known_class_predicted_otherwise() -> None:
    single = np.eye(3)[[0, 1, 2]]
    assert wrong_pictures(single, np.eye(3, dtype=bool)[[0, 2, 2]]).tolist() == [False, True, False]
    several = np.array([[1, 0, np.nan], [1, 1, 0], [np.nan, np.nan, np.nan], [0, 0, 0]])
    predicted = np.array([[1, 0, 1], [1, 0, 0], [1, 1, 1], [0, 0, 0]], dtype=bool)
    assert wrong_pictures(several, predicted).tolist() == [False, True, False, False]
