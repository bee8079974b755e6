"""Pairs of copies and near-duplicates, in the order of how unlike their masks are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.data.audit._inputs import DataSet, picture

from hsl.data.audit.twins import find_twins


def test_contradicting_masks_come_first_then_copies_of_another_mask_file(tmp_path: Path) -> None:
    data = DataSet(tmp_path)
    left, right = np.zeros((60, 80), np.uint8), np.zeros((60, 80), np.uint8)
    left[:, :10] = 1
    right[:, 70:] = 1
    half = np.zeros((60, 80), np.uint8)
    half[:, :20] = 1
    data.add("alike", "train", picture(1), left)
    data.add("alike_copy", "train", picture(1), left)
    data.add("moved", "train", picture(2), left)
    data.add("moved_copy", "val", picture(2), right)
    data.add("turned", "train", picture(3), left)
    data.add("turned_back", "train", np.rot90(picture(3)), np.rot90(half))
    data.add("other", "val", picture(4), left)
    catalogue, scan, _ = data.take()
    found = find_twins(catalogue, scan, 0.98, None, most=9)
    assert (found.number, found.contradicting) == (3, 1)
    twins = found.pairs
    assert [(one.first, one.second, one.copy) for one in twins] == [
        ("turned", "turned_back", False), ("moved", "moved_copy", True), ("alike", "alike_copy", True),
    ]  # fmt: skip
    assert twins[0].unlike == pytest.approx(10 / 80)
    assert [one.unlike for one in twins[1:]] == [0, 0]
    assert twins[0].correlation > 0.999
    assert [one.copy for one in find_twins(catalogue, scan, None, None, most=9).pairs] == [True, True]
    assert find_twins(catalogue, scan, 0.98, None, most=1) == replace(found, pairs=twins[:1])
    relabelled = replace(catalogue, relabelled=frozenset(["turned"]))
    found = find_twins(relabelled, scan, 0.98, None, most=9)
    assert (found.pairs[-1].first, found.pairs[-1].unlike, found.contradicting) == ("turned", None, 0)


def test_masks_that_are_not_there_are_not_compared(tmp_path: Path) -> None:
    data = DataSet(tmp_path)
    data.add("a", "train", picture(1))
    data.add("b", "train", picture(1))
    data.records[1] = replace(data.records[1], mask=None)
    catalogue, scan, _ = data.take()
    (twin,) = find_twins(replace(catalogue, masks_optional=True), scan, 0.98, None, most=9).pairs
    assert twin.unlike is None
    data.records.pop()
    assert find_twins(*data.take()[:2], 0.98, None, most=9).number == 0
