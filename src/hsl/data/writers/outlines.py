"""A mask as polygons that give it back when they are filled by the rule of pixel centres.

Coordinates are continuous: the pixel in row ``i`` and column ``j`` covers ``[j, j + 1] x [i, i + 1]``, its centre is
``(j + 0.5, i + 0.5)``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import find_contours

from hsl.data.writers.regions import Region

Ring = NDArray[np.float64]

TOLERANCE = 0.35
"""How far, in pixels, an outline may be from the line midway between the centres inside and those outside. No centre is
nearer to that line than sqrt(2) / 4 = 0.3535, so that none changes sides."""

_EIGHT = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """A connected region: ``outer`` and ``holes`` are rings ``float64 (N, 2)`` of ``x, y`` that are not closed."""

    outer: Ring
    holes: tuple[Ring, ...]

    def bridged(self) -> Ring:
        """One ring for tools that know no holes: from the outer ring to each hole and back along the same line.

        Filled by the even-odd or the non-zero rule it is the region; the two ways along a bridge cancel.
        """
        ring = self.outer
        for hole in sorted(self.holes, key=lambda each: float(each[:, 0].min())):
            there, here = _nearest(ring, hole)
            turned = np.roll(hole, -here, axis=0)
            ring = np.concatenate([ring[: there + 1], turned, turned[:1], ring[there:]])
        return ring


def outlines_of(region: Region) -> list[Outline]:
    """The connected parts (8 neighbours) of a region, in the coordinates of its picture.

    The line midway between the centres (marching squares) is thinned by Douglas and Peucker within `TOLERANCE`:
    straight edges and diagonals cost two points.

    Example:
        >>> mask = np.array([[True, True], [True, True]])
        >>> [len(each.outer) for each in outlines_of(Region(1, 0, 0, mask))]
        [4]
    """
    numbers, _ = ndimage.label(region.mask, _EIGHT)
    found = []
    for number, place in enumerate(ndimage.find_objects(numbers), start=1):
        corner = np.array([region.left + place[1].start, region.top + place[0].start], dtype=np.float64)
        padded = np.pad(numbers[place] == number, 1).astype(np.float64)
        lines = find_contours(padded, 0.5, fully_connected="high")  # type: ignore[no-untyped-call]
        rings = [line[:-1, ::-1] - 0.5 + corner for line in lines]  # padding moved by 1, centres by half
        areas = [_area(ring) for ring in rings]
        outer = int(np.argmax(np.abs(areas)))
        holes = tuple(thinned(ring) for place, ring in enumerate(rings) if place != outer)
        found.append(Outline(thinned(rings[outer]), holes))
    return found


def thinned(ring: Ring, tolerance: float = TOLERANCE) -> Ring:
    """The fewest points of a ring that Douglas and Peucker keep: none that is left out is farther than ``tolerance``.

    Source: Douglas & Peucker 1973, "Algorithms for the reduction of the number of points".
    """
    far = int(np.argmax(((ring - ring[0]) ** 2).sum(axis=1)))
    closed = np.concatenate([ring, ring[:1]])
    keep = np.zeros(len(closed), dtype=bool)
    keep[[0, far]] = True
    todo = [(0, far), (far, len(ring))]
    while todo:
        start, end = todo.pop()
        if end - start < 2:
            continue
        away = _distances(closed[start + 1 : end], closed[start], closed[end])
        if away.max() > tolerance:
            worst = start + 1 + int(away.argmax())
            keep[worst] = True
            todo += [(start, worst), (worst, end)]
    return ring[keep[:-1]]


def _distances(points: Ring, start: Ring, end: Ring) -> NDArray[np.float64]:
    """From the segment, not from its line: a chain that turns back keeps its turning points."""
    way = end - start
    length = float(way @ way)
    along = np.clip((points - start) @ way / length, 0, 1) if length else np.zeros(len(points))
    away: NDArray[np.float64] = np.linalg.norm(points - start - along[:, None] * way, axis=1)
    return away


def _area(ring: Ring) -> float:
    x, y = ring.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _nearest(ring: Ring, hole: Ring) -> tuple[int, int]:
    """Places of the two points, one of each ring, that are nearest to each other."""
    distances, places = cKDTree(ring).query(hole)
    here = int(np.argmin(distances))
    return int(places[here]), here
