"""Votes that weigh the foreground IoU."""

from dataclasses import replace

import numpy as np
import pytest
from tests.ensembles._inputs import rows_of

from hsl.ensembles.nested import meta_folds, run_nested, score_of
from hsl.ensembles.rows import Rows
from hsl.ensembles.segmentation_vote import segmentation_vote

VOTES = segmentation_vote()


def rows_with(foreground: list, **others: object) -> Rows:
    return rows_of([1] * len(foreground), num=len(foreground[0]), foreground=foreground, **others)


def test_a_member_weighs_its_mean_foreground_iou() -> None:
    rows = rows_with([[0.9, 0.6, 0.3], [0.2, np.nan, 0.2]], labels=[0, 0, 1])
    expected = 0.75 * rows.probabilities[0] + 0.25 * rows.probabilities[1]
    np.testing.assert_allclose(VOTES["segmentation_vote/overall"](rows)(rows), expected)
    combined = VOTES["segmentation_vote/per_class"](rows)
    weights = np.array([combined.notes["weights"]["m00"], combined.notes["weights"]["m01"]])
    np.testing.assert_allclose(weights[0], [0.75 / 0.95, 0.6, 0.75])  # class c is in no row: as overall
    summed = (weights[:, None] * rows.probabilities).sum(axis=0)
    np.testing.assert_allclose(combined(rows), summed / summed.sum(axis=1, keepdims=True))


def test_of_several_classes_each_is_weighted_by_itself() -> None:
    rows = rows_with([[0.9, 0.1], [0.1, 0.1]], several=True, classes=2, labels=[[1, 0], [0, 1]])
    found = VOTES["segmentation_vote/per_class"](rows)(rows)
    np.testing.assert_allclose(found[:, 0], 0.9 * rows.probabilities[0, :, 0] + 0.1 * rows.probabilities[1, :, 0])
    np.testing.assert_allclose(found[:, 1], rows.probabilities[:, :, 1].mean(axis=0))


def test_a_member_without_masks_has_no_vote_and_masks_that_find_nothing_weigh_alike() -> None:
    rows = rows_with([[0.5, 0.5], [np.nan, np.nan]])
    nothing = rows_with([[0, 0], [np.nan, 0]])
    for name, fit in VOTES.items():
        np.testing.assert_allclose(fit(rows)(rows), rows.probabilities[0], err_msg=name)
        np.testing.assert_allclose(fit(nothing)(nothing), nothing.probabilities.mean(axis=0))
        for unknown in (None, np.full((2, 2), np.nan)):
            with pytest.raises(ValueError, match="members whose foreground IoU is known"):
                fit(replace(rows, foreground=unknown))


def test_the_iou_of_what_is_combined_is_not_read() -> None:
    rows = rows_of([1.5, 1, 0], num=90)
    for name, fit in VOTES.items():
        np.testing.assert_array_equal(fit(rows)(replace(rows, foreground=None)), fit(rows)(rows))
        nested = run_nested(name, fit, rows, meta_folds(rows)).nested
        assert score_of(nested, rows) >= score_of(rows.probabilities.mean(axis=0), rows)
