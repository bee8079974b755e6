"""Run lengths of annotation tools."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hsl.data.annotations.run_counts import brush_mask, coco_runs
from hsl.data.annotations.shapes import Runs
from hsl.data.writers.label_studio_json import brush_runs

MASKS = arrays.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def whole(runs: Runs) -> np.ndarray:
    window, part = runs.cover(runs.height, runs.width, (1.0, 1.0))
    mask = np.zeros((runs.height, runs.width), bool)
    mask[window] = part
    return mask


def test_text_of_pycocotools() -> None:
    mask = np.zeros((30, 20), bool)
    mask[5:25, 4:12] = True
    mask[10:14, 6:8] = False
    mask[0, 0] = mask[29, 19] = True
    text = r"01l3c0^L00AJ66JJ669000000Z7]O"
    np.testing.assert_array_equal(whole(coco_runs({"size": [30, 20], "counts": text})), mask)


@settings(max_examples=30, deadline=None)
@given(MASKS)
def test_lists_down_the_columns(mask: np.ndarray) -> None:
    flat, counts = mask.T.ravel().tolist(), [0]
    for before, value in zip([False, *flat], flat, strict=False):
        counts += [1] if value != before else []
        counts[-1] += value == before
    np.testing.assert_array_equal(whole(coco_runs({"size": list(mask.shape), "counts": counts})), mask)


@settings(max_examples=30, deadline=None)
@given(MASKS)
def test_along_the_rows_and_the_brush(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(whole(Runs.of(mask)), mask)
    np.testing.assert_array_equal(brush_mask(brush_runs(mask * np.uint8(255)), *mask.shape), mask)


def test_runs_of_a_box_are_cut_at_the_picture() -> None:
    runs = Runs.of(np.ones((4, 4), bool), top=-2, left=3)
    window, part = runs.cover(5, 5, (1.0, 1.0))
    assert window == (slice(0, 2), slice(3, 5))
    assert part.shape == (2, 2)
    assert runs.cover(5, 2, (1.0, 1.0))[1].size == 0


def test_what_is_no_run_lengths_is_refused() -> None:
    for segmentation, what in [
        ({"size": [2, 3], "counts": [1, 3]}, "2 x 3 = 6 pixels, found 4"),
        ({"size": [2, 3], "counts": [7, -1]}, "found -1"),
        ({"size": [2, 3], "counts": [1.5, 4.5]}, "whole numbers"),
        ({"size": [2, 3], "counts": None}, "whole numbers"),
        ({"size": [2], "counts": [6]}, "height and width"),
        ({"size": "2x3", "counts": [6]}, "height and width"),
        ({"counts": [6]}, "height and width"),
        ({"size": [2, 3], "counts": "~"}, "letters"),
        ({"size": [2, 3], "counts": "P"}, "cut off"),
        ({"size": [2, 3], "counts": "ooooooooooo0"}, "45 bits"),
        ({"size": [2, 3], "counts": "ü"}, "letters"),
    ]:
        with pytest.raises(ValueError, match=what):
            coco_runs(segmentation)
    packed = brush_runs(np.eye(4, dtype=np.uint8) * 255)
    for wrong, what in [(packed[:-2], "cut off"), ([1] * 9, "pixels"), ("x", "whole"), ([300] * 9, "bytes")]:
        with pytest.raises(ValueError, match=what):
            brush_mask(wrong, 4, 4)
