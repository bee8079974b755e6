"""Where to cut: points of a foreground that keep their distance, with no room left for another one."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CANDIDATES = 6
"""Pixels tried in the ring around each accepted one. Bridson (2007) takes 30, which here only costs time: the sweep
finds what the ring missed, and 6 and 30 end with equally many centres."""
FAR = -(2**30)
"""Coordinate of a cell without a centre: further than the radius from everything."""
CHUNK = 8192
GATHERED = 32

Pixels = NDArray[np.int64]


def poisson_disk(mask: NDArray[np.bool_], radius: float, seed: int | Sequence[int] = 0) -> Pixels:
    """Pixels of a foreground, drawn at random, no two closer than the radius, and maximal.

    Fast Poisson disk sampling in arbitrary dimensions (Bridson 2007): around each accepted pixel candidates are drawn
    from the ring ``[radius, 2 radius]``, uniform in area; those in the foreground that keep the distance are accepted
    in turn. A grid of cells with side ``ceil(radius / sqrt 2)`` holds at most one centre each, so 21 cells decide on a
    pixel. Where we differ: candidates of all active pixels are compared at once (the result is that of one after the
    other), and growth begins at many pixels, because one would never reach another component.

    Growth leaves gaps. So every cell with foreground that no single disc covers is tried with a random pixel, from
    which growth goes on; what stays uncovered is quartered and tried again, down to single pixels (the flat quadtree of
    Ebeida et al. 2012, A simple algorithm for maximal Poisson-disk sampling in high dimensions). Then no admissible
    pixel is left. Squares inside a disc or without foreground are never looked into, so the work follows the number
    of centres more than that of pixels.

    Args:
        mask: ``bool (H, W)``, the foreground. May be a memory map.
        radius: Least distance between two centres in pixels, at least 1 (exactly this distance is allowed).
        seed: Equal seeds give equal centres.

    Returns:
        ``int64 (N, 2)``: row and column of the centres in the order of their acceptance; N = 0 without foreground.

    Raises:
        ValueError: The mask is not ``bool (H, W)``, or the radius is below 1.

    Example:
        >>> poisson_disk(np.ones((1, 4), bool), radius=4).shape
        (1, 2)
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"`mask` should be bool (H, W). Found {mask.dtype} {mask.shape}. Compare it with a class.")
    if not (radius >= 1 and math.isfinite(radius)):
        raise ValueError(f"`radius` should be at least 1. Found `radius = {radius}`. Give a distance in pixels.")
    discs = _Discs(mask, float(radius), np.random.default_rng(seed))
    side = discs.cell
    rows, columns = np.meshgrid(*(np.arange(0, length, side) for length in mask.shape), indexing="ij")
    places = np.stack([rows.ravel(), columns.ravel()], axis=1)
    while len(places := _with_foreground(mask, discs.uncovered(places, side), side)):
        discs.throw(places, side)
        if side == 1:
            break
        half = -(-side // 2)  # quarters of an odd side share a row and a column, which does no harm
        places = discs.uncovered(places, side)
        quarters = np.array([(0, 0), (0, half), (half, 0), (half, half)])
        places = (places[:, None] + quarters).reshape(-1, 2)
        places, side = places[(places < mask.shape).all(axis=1)], half
    return np.concatenate(discs.centres)


class _Discs:
    """The accepted centres, and a grid to find those around a pixel."""

    def __init__(self, mask: NDArray[np.bool_], radius: float, generator: np.random.Generator) -> None:
        self._mask, self._radius, self._generator = mask, radius, generator
        self._square = radius * radius
        # two pixels of one cell are at most (cell - 1) sqrt 2 < radius apart
        self.cell = math.ceil(radius / math.sqrt(2))
        self._columns = mask.shape[1] // self.cell + 5  # two cells of margin on every side
        cells = (mask.shape[0] // self.cell + 5) * self._columns
        self._y, self._x = np.full(cells, FAR, np.int64), np.full(cells, FAR, np.int64)
        steps = [(i, j) for i in range(-2, 3) for j in range(-2, 3) if abs(i * j) < 4]
        self._around = np.array([i * self._columns + j for i, j in steps])
        self._turn = np.full(cells, cells)
        self.centres = [np.empty((0, 2), np.int64)]

    def uncovered(self, places: Pixels, side: int) -> Pixels:
        """The squares, given by their first pixels, that do not lie in one disc."""
        chunks = [places[start : start + CHUNK] for start in range(0, len(places), CHUNK)]
        kept = [chunk[~self._covered(chunk[:, 0], chunk[:, 1], side)] for chunk in chunks]
        return np.concatenate(kept) if kept else places

    def throw(self, places: Pixels, side: int) -> None:
        """Try one random pixel of each square, and grow from those that are accepted."""
        active = self._admit(places + self._generator.integers(0, side, places.shape))
        while len(active):
            active = self._admit(self._ring(active).reshape(-1, 2))

    def _ring(self, centres: Pixels) -> Pixels:
        turn, reach = self._generator.random((2, len(centres), CANDIDATES))
        distance, angle = self._radius * np.sqrt(1 + 3 * reach), 2 * math.pi * turn
        steps = np.stack([distance * np.sin(angle), distance * np.cos(angle)], axis=-1)
        ring: Pixels = centres[:, None] + np.rint(steps).astype(np.int64)
        return ring

    def _admit(self, darts: Pixels) -> Pixels:
        """Accept pixels one after the other in random order, as if each were compared with all before it.

        A round tries the first of each cell, of which at most one can be accepted, and accepts at once all those that
        lie in no disc of an earlier one.
        """
        darts = darts[((darts >= 0) & (darts < self._mask.shape)).all(axis=1)]
        darts = self._generator.permutation(self.uncovered(darts[self._mask[darts[:, 0], darts[:, 1]]], 1))
        admitted = [darts[:0]]
        while len(darts):
            tried = darts[np.sort(np.unique(self._index(*darts.T), return_index=True)[1])]
            cells, order = self._index(*tried.T), np.arange(len(tried))
            self._turn[cells] = order
            others = self._turn[cells[:, None] + self._around]
            self._turn[cells] = len(self._turn)
            near = np.flatnonzero(others.ravel() < np.repeat(order, len(self._around)))
            later, earlier = near // len(self._around), others.ravel()[near]
            close = ((tried[later] - tried[earlier]) ** 2).sum(axis=1) < self._square
            free = np.ones(len(tried), bool)
            free[later[close]] = False
            self._y[cells[free]], self._x[cells[free]] = tried[free].T
            admitted.append(tried[free])
            darts = self.uncovered(darts, 1)
        self.centres += admitted
        return np.concatenate(admitted)

    def _covered(self, rows: Pixels, columns: Pixels, side: int) -> NDArray[np.bool_]:
        """Whether one disc (distance below the radius) holds all of the square that lies in the picture."""
        around = self._index(rows, columns)[:, None] + self._around
        squares = _furthest(self._y[around], rows, side, self._mask.shape[0])
        squares += _furthest(self._x[around], columns, side, self._mask.shape[1])
        covered: NDArray[np.bool_] = squares.min(axis=1, initial=FAR * FAR) < self._square
        return covered

    def _index(self, y: Any, x: Any) -> Any:
        return (y // self.cell + 2) * self._columns + x // self.cell + 2


def _furthest(centre: Pixels, first: Pixels, side: int, length: int) -> Pixels:
    """Square of the distance, along one axis, from each centre to the end of the square that is further off."""
    distance: Pixels = np.abs(centre - first[:, None])
    if side > 1:
        last = np.minimum(first + side, length) - 1
        distance = np.maximum(distance, np.abs(centre - last[:, None]))
    return distance * distance


def _with_foreground(mask: NDArray[np.bool_], places: Pixels, side: int) -> Pixels:
    """The squares that may hold foreground; for single pixels exact."""
    found = np.array(mask[places[:, 0], places[:, 1]])  # the first pixel, which spares most squares the search
    rest = np.flatnonzero(~found)
    if side > GATHERED:
        found[rest] = [mask[y : y + side, x : x + side].any() for y, x in places[rest].tolist()]
        return places[found]
    windows = np.lib.stride_tricks.sliding_window_view(mask, np.minimum(side, mask.shape).tolist())
    for start in range(0, len(rest), CHUNK):
        chunk = rest[start : start + CHUNK]
        # a square that reaches out of the picture is looked at a little further inside, so too much may be kept
        y, x = np.minimum(places[chunk], np.array(windows.shape[:2]) - 1).T
        found[chunk] = windows[y, x].any(axis=(1, 2))
    return places[found]
