"""Polygons to masks, by one rule.

Coordinates are ``(x, y)`` in pixels from the upper left corner of the picture: the pixel in row i and column j covers
``[j, j + 1) x [i, i + 1)``. A pixel belongs to a polygon if its centre ``(j + 0.5, i + 0.5)`` lies in it; a centre on
an edge belongs to the polygon to the right of the edge or below it, so that of two polygons that share an edge exactly
one has the pixel. Inside is even-odd: a ring within a ring is a hole, and where a ring crosses itself the part that it
surrounds twice is outside.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]
"""``float64 (N, 2)``: x and y of the corners. The last is joined to the first, which it may repeat."""

Window = tuple[slice, slice]
"""Rows and columns."""

FARTHEST = 1e9
"""Largest coordinate, either sign."""


def fill_polygon(rings: Sequence[Ring], height: int, width: int) -> NDArray[np.bool_]:
    """The pixels of a polygon.

    Args:
        rings: Its outline, and those of its holes. What lies outside the picture is cut off.
        height: Of the picture.
        width: The same.

    Returns:
        ``bool (H, W)``.

    Raises:
        ValueError: A coordinate is not finite or beyond `FARTHEST`.

    Example:
        >>> fill_polygon([np.array([[0, 0], [2, 0], [2, 1], [0, 1]])], 2, 3).astype(int).tolist()
        [[1, 1, 0], [0, 0, 0]]
    """
    mask = np.zeros((height, width), np.bool_)
    window, part = fill_window(rings, height, width)
    mask[window] = part
    return mask


def fill_window(rings: Sequence[Ring], height: int, width: int) -> tuple[Window, NDArray[np.bool_]]:
    """As `fill_polygon`, of the part of the picture that holds the polygon: where it is, and its pixels."""
    for ring in rings:
        if not (np.abs(ring) <= FARTHEST).all():
            raise ValueError(f"Coordinates should be finite and in [-{FARTHEST:g}, {FARTHEST:g}].")
    starts = np.concatenate([np.zeros((0, 2)), *rings])
    ends = np.concatenate([np.zeros((0, 2)), *(np.roll(ring, -1, axis=0) for ring in rings)])
    window = window_of(starts, height, width)
    top, left = window[0].start, window[1].start
    rows, columns = window[0].stop - top, window[1].stop - left
    if not rows or not columns:
        return window, np.zeros((rows, columns), np.bool_)
    down = (starts[:, 1] <= ends[:, 1])[:, None]  # both directions of an edge cross at the very same place
    (x0, y0), (x1, y1) = np.where(down, starts, ends).T, np.where(down, ends, starts).T
    first = np.clip(np.ceil(y0 - 0.5) - top, 0, rows).astype(np.int64)
    number = np.clip(np.ceil(y1 - 0.5) - top, 0, rows).astype(np.int64) - first
    edge = np.repeat(np.arange(len(x0)), number)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(number) - number, number)
    x = x0[edge] + (row + top + 0.5 - y0[edge]) * ((x1 - x0)[edge] / (y1 - y0)[edge])
    column = np.clip(np.ceil(x - 0.5) - left, 0, columns).astype(np.int64)
    crossings = np.bincount(row * (columns + 1) + column, minlength=rows * (columns + 1))
    inside = np.bitwise_xor.accumulate((crossings & 1).astype(np.uint8).reshape(rows, columns + 1), axis=1)
    return window, inside[:, :-1].astype(np.bool_)


def line_window(line: Ring, line_width: float, height: int, width: int) -> tuple[Window, NDArray[np.bool_]]:
    """The pixels of a line: those whose centre is at most half of ``line_width`` away from it.

    Args:
        line: Its corners; the last is not joined to the first. One corner is a disc.
        line_width: In pixels; from 1 on it has no gap.
        height: Of the picture.
        width: The same.

    Returns:
        As `fill_window`.
    """
    radius = line_width / 2
    window = window_of(np.concatenate([line - radius, line + radius]), height, width)
    mask = np.zeros((height, width), np.bool_)[window]
    top, left = window[0].start, window[1].start
    for start, end in zip(line, line[1:] if len(line) > 1 else line, strict=False):
        rows, columns = window_of(np.stack([start - radius, start + radius, end - radius, end + radius]), height, width)
        along = end - start
        y, x = np.mgrid[rows, columns] + 0.5
        share = ((x - start[0]) * along[0] + (y - start[1]) * along[1]) / max(float(along @ along), 1e-12)
        share = np.clip(share, 0, 1)
        distance = np.hypot(x - start[0] - share * along[0], y - start[1] - share * along[1])
        part = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        mask[part] |= distance <= radius
    return window, mask


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0) -> Ring:
    """A ring of 180 corners on an ellipse, turned clockwise by ``degrees``."""
    angle = np.arange(180) * (2 * np.pi / 180)
    return turned(np.stack([x + radius_x * np.cos(angle), y + radius_y * np.sin(angle)], axis=1), (x, y), degrees)


def rectangle(left: float, top: float, right: float, bottom: float) -> Ring:
    """The ring of a rectangle."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)


def turned(ring: Ring, centre: tuple[float, float], degrees: float) -> Ring:
    """A ring that is turned clockwise, as it is seen, about a point."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    around: Ring = (ring - centre) @ np.array([[cosine, sine], [-sine, cosine]]) + centre
    return around


def window_of(points: Ring, height: int, width: int) -> Window:
    """The part of a picture with all pixels that some points touch."""
    if not len(points):
        return slice(0, 0), slice(0, 0)
    low = np.floor(points.min(axis=0))
    high = np.ceil(points.max(axis=0))
    left, right = (int(min(max(end, 0), width)) for end in (low[0], high[0]))
    top, bottom = (int(min(max(end, 0), height)) for end in (low[1], high[1]))
    return slice(top, bottom), slice(left, right)
