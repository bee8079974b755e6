"""Diversity by hand."""

import numpy as np
import pytest
from tests.ensembles._inputs import relabelled, rows_of

from hsl.ensembles.diversity import disagreement, hardest, q_statistic, right_answers, share_with_one_right


def test_pairs_of_members_by_hand() -> None:
    answers = [[0, 0, 1, 1, 2], [0, 1, 1, 2, 2], [1, 1, 2, 2, 0]]
    rows = rows_of([1, 1, 1], num=5, labels=[0, 0, 1, 0, 1], probabilities=np.eye(3)[answers])
    assert right_answers(rows).astype(int).tolist() == [[1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [0] * 5]
    np.testing.assert_allclose(disagreement(rows), [[0, 0.4, 1], [0.4, 0, 0.6], [1, 0.6, 0]])
    q = q_statistic(rows)
    assert (q[0, 1], q[0, 0]) == (1, 1)  # 2 both right, 2 both wrong, 1 and 0
    assert np.isnan(q[0, 2])
    assert share_with_one_right(rows) == pytest.approx(0.6)
    assert hardest(rows) == {"all": ("i0003", "i0004"), "one": ("i0000", "i0002")}
    some = relabelled(rows, [0, 0, 1, -1, -1])
    assert share_with_one_right(some) == 1
    assert hardest(some)["all"] == ()


def test_independent_members_have_a_q_statistic_near_zero() -> None:
    rows = rows_of([0.5, 0.5], num=4000, group_size=1)
    assert abs(q_statistic(rows)[0, 1]) < 0.1


def test_of_several_classes_all_known_ones_must_be_right() -> None:
    rows = rows_of(
        [1, 1], num=2, several=True, classes=2, labels=[[1, 0], [1, np.nan]],
        probabilities=[[[0.9, 0.1], [0.9, 0.9]], [[0.9, 0.9], [0.4, 0.1]]],
    )  # fmt: skip
    assert right_answers(rows).tolist() == [[True, True], [False, False]]
    assert disagreement(rows)[0, 1] == 1
