"""Polygons to masks."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hsl.data.files.polygons import (
    ellipse,
    fill_polygon,
    fill_window,
    line_window,
    rectangle,
    turned,
)

CORNERS = st.lists(st.tuples(st.integers(-9, 41), st.integers(-9, 41)), min_size=0, max_size=9)  # quarters of pixels


def by_definition(rings: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """A ray to the left of each centre counts the edges that it crosses, in exact fractions."""
    mask = np.zeros((height, width), bool)
    for i, j in itertools.product(range(height), range(width)):
        y, x = Fraction(2 * i + 1, 2), Fraction(2 * j + 1, 2)
        for ring in rings:
            points = [(Fraction(a), Fraction(b)) for a, b in ring.tolist()]
            for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
                if (y0 <= y < y1) or (y1 <= y < y0):
                    mask[i, j] ^= x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x
    return mask


@settings(max_examples=60, deadline=None)
@given(st.lists(CORNERS, min_size=1, max_size=3))
def test_filling_follows_the_definition(polygons: list[list[tuple[int, int]]]) -> None:
    rings = [np.array(points, float).reshape(-1, 2) / 4 for points in polygons]
    np.testing.assert_array_equal(fill_polygon(rings, 7, 8), by_definition(rings, 7, 8))


def test_touching_polygons_share_no_pixel_and_leave_none() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other, low, high = rng.uniform(0, 12, (4, 2))
        edge = np.array([one, other])
        halves = [fill_polygon([np.concatenate([edge, [tip]])], 12, 12).astype(int) for tip in (low, high)]
        turn = [np.linalg.det(np.array([other - one, tip - one])) for tip in (low, high)]
        if turn[0] * turn[1] < 0:  # the triangles lie on either side of the edge
            both = fill_polygon([np.array([one, low, other, high])], 12, 12)
            np.testing.assert_array_equal(sum(halves), both.astype(int))


def test_a_ring_that_crosses_itself_and_what_lies_outside() -> None:
    bow = np.array([[0, 0], [4, 4], [4, 0], [0, 4]], float)
    left_and_right = [[1, 0, 0, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 1]]
    filled = fill_polygon([bow], 4, 4)
    assert (filled <= np.array(left_and_right, bool)).all()
    np.testing.assert_array_equal(filled, by_definition([bow], 4, 4))
    around = rectangle(-1e6, -3, 1e6, 2)
    np.testing.assert_array_equal(fill_polygon([around], 4, 3)[:, 0], [True, True, False, False])
    window, part = fill_window([rectangle(50, 50, 60, 60)], 4, 3)
    assert part.size == 0
    assert np.zeros((4, 3))[window].size == 0
    for wrong in (np.nan, np.inf, 1e12):
        with pytest.raises(ValueError, match="finite"):
            fill_polygon([np.array([[0, 0], [wrong, 1], [1, 1]])], 4, 4)


def test_one_pixel_and_less() -> None:
    assert np.argwhere(fill_polygon([rectangle(2, 1, 3, 2)], 4, 4)).tolist() == [[1, 2]]
    assert not fill_polygon([rectangle(2.6, 1.6, 2.9, 1.9)], 4, 4).any()  # no centre in it


def test_lines_have_no_gap_and_their_width() -> None:
    for end in itertools.product((1.0, 7.5, 19.0), (3.0, 11.2, 18.0)):
        window, part = line_window(np.array([[2.0, 2.0], end]), 1, 20, 20)
        mask = np.zeros((20, 20), bool)
        mask[window] = part
        assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
    window, part = line_window(np.array([[5.0, 2.0], [5.0, 18.0]]), 4, 20, 20)
    assert part[3:10].sum(axis=1).tolist() == [4] * 7
    _, disc = line_window(np.array([[10.0, 10.0]]), 8, 20, 20)
    assert disc.sum() == pytest.approx(np.pi * 16, rel=0.06)


def test_ellipses_and_turned_rectangles() -> None:
    mask = fill_polygon([ellipse(20, 20, 15, 5, 90)], 40, 40)
    assert mask.sum() == pytest.approx(np.pi * 75, rel=0.03)
    assert mask.any(axis=1).sum() == 30
    clockwise = turned(rectangle(0, 0, 4, 2), (0, 0), 90)
    np.testing.assert_allclose(clockwise, [[0, 0], [0, 4], [-2, 4], [-2, 0]], atol=1e-12)
