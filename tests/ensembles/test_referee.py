"""The referee decides where members dispute, and nowhere else."""

import numpy as np
import pytest
from tests.ensembles._inputs import rows_of

from hsl.ensembles.referee import disputed, off_majority, referee
from hsl.ensembles.rows import Rows


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
