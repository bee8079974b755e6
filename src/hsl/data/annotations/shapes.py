"""What an annotation covers: polygons, lines and runs of pixels. Kept as bytes: small, comparable, cheap to send."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX
from hsl.data.files.polygons import FARTHEST, Ring, Window, fill_window, line_window

_LEAST_CORNERS = 3


class Shape(Protocol):
    """Some pixels of a picture."""

    def cover(self, height: int, width: int, scale: tuple[float, float]) -> tuple[Window, NDArray[np.bool_]]:
        """The part of a picture that holds the shape, and its pixels there.

        Args:
            height: Of the picture.
            width: The same.
            scale: What x and y of the corners are multiplied by.
        """

    def bounds(self) -> tuple[float, float, float, float]:
        """Its left, top, right and bottom end."""

    def area(self) -> float:
        """About how much it covers; of shapes in one unit, the larger has the larger."""


@dataclass(frozen=True, slots=True)
class Area:
    """The union of polygons.

    Attributes:
        polygons: The rings of each, see `hsl.data.files.polygons.fill_polygon`; as the bytes of `packed`.
    """

    polygons: tuple[tuple[bytes, ...], ...]

    @classmethod
    def of(cls, *rings: Ring) -> "Area":
        """One polygon: an outline and its holes."""
        return cls((tuple(packed(ring) for ring in rings),))

    def cover(self, height: int, width: int, scale: tuple[float, float]) -> tuple[Window, NDArray[np.bool_]]:
        drawn = [fill_window([unpacked(ring) * scale for ring in rings], height, width) for rings in self.polygons]
        if len(drawn) == 1:
            return drawn[0]
        rows = slice(min(rows.start for (rows, _), _ in drawn), max(rows.stop for (rows, _), _ in drawn))
        columns = slice(min(c.start for (_, c), _ in drawn), max(c.stop for (_, c), _ in drawn))
        union = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.bool_)
        for (down, right), part in drawn:
            union[
                down.start - rows.start : down.stop - rows.start,
                right.start - columns.start : right.stop - columns.start,
            ] |= part
        return (rows, columns), union

    def bounds(self) -> tuple[float, float, float, float]:
        return _bounds(unpacked(b"".join(ring for rings in self.polygons for ring in rings)))

    def area(self) -> float:
        outlines = [unpacked(rings[0]) for rings in self.polygons]
        return sum(abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2 for x, y in (ring.T for ring in outlines))


@dataclass(frozen=True, slots=True)
class Line:
    """A line of some width; its corners as the bytes of `packed`, not scaled."""

    corners: bytes
    line_width: float

    def cover(self, height: int, width: int, scale: tuple[float, float]) -> tuple[Window, NDArray[np.bool_]]:
        return line_window(unpacked(self.corners) * scale, self.line_width, height, width)

    def bounds(self) -> tuple[float, float, float, float]:
        return _bounds(unpacked(self.corners))

    def area(self) -> float:
        return float(np.hypot(*np.diff(unpacked(self.corners), axis=0).T).sum()) * self.line_width


@dataclass(frozen=True, slots=True)
class Runs:
    """Pixels of a box in the picture, as lengths of runs that are alternately out and in, the first out.

    Attributes:
        counts: ``int64`` as bytes.
        height: Of the box.
        width: The same.
        top: Row at which it begins.
        left: The same, of columns.
        down: Whether runs go down the columns (COCO), not along the rows.
    """

    counts: bytes
    height: int
    width: int
    top: int = 0
    left: int = 0
    down: bool = False

    @classmethod
    def of(cls, mask: NDArray[np.bool_], top: int = 0, left: int = 0) -> "Runs":
        """The runs of a mask ``bool (H, W)`` whose corner lies at a place of the picture."""
        flat = np.concatenate([[False], mask.ravel(), [not mask.size or not mask.ravel()[-1]]])
        ends = np.flatnonzero(flat[1:] != flat[:-1])
        return cls(np.diff(ends, prepend=0).astype(np.int64).tobytes(), mask.shape[0], mask.shape[1], top, left)

    def cover(
        self,
        height: int,
        width: int,
        scale: tuple[float, float],  # noqa: ARG002 - runs are of pixels
    ) -> tuple[Window, NDArray[np.bool_]]:
        counts = np.frombuffer(self.counts, np.int64)
        flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        box = flat.reshape(self.width, self.height).T if self.down else flat.reshape(self.height, self.width)
        top, left = max(self.top, 0), max(self.left, 0)
        bottom = max(min(self.top + self.height, height), top)
        right = max(min(self.left + self.width, width), left)
        part = box[top - self.top : bottom - self.top, left - self.left : right - self.left]
        return (slice(top, top + part.shape[0]), slice(left, left + part.shape[1])), part

    def bounds(self) -> tuple[float, float, float, float]:
        return self.left, self.top, self.left + self.width, self.top + self.height

    def area(self) -> float:
        return float(np.frombuffer(self.counts, np.int64)[1::2].sum())


@dataclass(frozen=True, slots=True)
class Region:
    """One annotated object.

    Attributes:
        label: What it is called.
        shape: What it covers.
        rank: Regions are drawn in the order of their ranks; a later one covers an earlier one.
        crowd: Whether it is a group whose members are not told apart: its pixels do not count.
        group: Regions of one label and group are parts of one object; empty: it is an object of its own.
    """

    label: str
    shape: Shape
    rank: float = 0.0
    crowd: bool = False
    group: str = ""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A region as it is drawn: class index, or 255; the number of its object from 1; what it covers."""

    index: int
    number: int
    shape: Shape


@dataclass(frozen=True, slots=True)
class Painting:
    """Regions, drawn.

    Attributes:
        mask: ``uint8 (H, W)`` of class indices, 0 where no region is and 255 where none counts.
        ids: ``uint16 (H, W)``: the number of the object; 0 where none is or none counts.
        num_contested: Pixels in regions of more than one class.
        num_empty: Regions without a pixel.
    """

    mask: NDArray[np.uint8]
    ids: NDArray[np.uint16]
    num_contested: int
    num_empty: int


def paint(regions: Iterable[Drawn], height: int, width: int, scale: tuple[float, float] = (1.0, 1.0)) -> Painting:
    """Draw regions, each over those before it.

    Args:
        regions: In their order.
        height: Of the picture.
        width: The same.
        scale: What x and y of corners are multiplied by.
    """
    mask, ids = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint16)
    contested = np.zeros((height, width), np.bool_)
    num_empty = 0
    for region in regions:
        index = region.index
        window, part = region.shape.cover(height, width, scale)
        before = mask[window]
        contested[window] |= part & (before != index) & (before != 0) & (before != IGNORE_INDEX)
        before[part] = index
        ids[window][part] = region.number if index not in (0, IGNORE_INDEX) else 0
        num_empty += not part.any()
    return Painting(mask, ids, int(contested.sum()), num_empty)


def packed(ring: Ring) -> bytes:
    """Corners as bytes of ``float64``."""
    return np.ascontiguousarray(ring, np.float64).tobytes()


def unpacked(data: bytes) -> Ring:
    """The inverse of `packed`."""
    return np.frombuffer(data, np.float64).reshape(-1, 2)


def corners(points: Any) -> Ring:
    """Corners of pairs ``[[x, y], ...]`` or of one row ``[x, y, x, y, ...]``, as a file has them.

    Raises:
        ValueError: They are no pairs of finite numbers in [-1e9, 1e9].
    """
    if not isinstance(points, Sequence) or isinstance(points, str):
        raise ValueError(f"corners should be a list of numbers, found {type(points).__name__}")
    try:
        numbers = np.array(points)
    except ValueError:  # lists of unlike lengths
        raise ValueError("corners should be pairs of numbers, found rows of unlike lengths") from None
    if not numbers.size:
        return np.zeros((0, 2))
    if numbers.dtype.kind not in "iuf":
        odd = next(
            (each for each in _flat(points) if isinstance(each, bool) or not isinstance(each, int | float)), None
        )
        raise ValueError(f"corners should be numbers, found {odd!r:.40}")
    if numbers.ndim == 1 and numbers.size % 2 == 0:
        numbers = numbers.reshape(-1, 2)
    if numbers.ndim != 2 or numbers.shape[1] != 2:
        raise ValueError(f"corners should be pairs of x and y, found {numbers.size} numbers")
    if not (np.abs(numbers) <= FARTHEST).all():
        raise ValueError(
            f"corners should be finite, in [-1e9, 1e9], found {numbers[~(np.abs(numbers) <= FARTHEST)][0]}"
        )
    return numbers.astype(np.float64)


def is_area(ring: Ring) -> bool:
    """Whether there are at least three different corners."""
    different: set[tuple[float, ...]] = set()
    for corner in ring.tolist():
        different.add(tuple(corner))
        if len(different) == _LEAST_CORNERS:
            return True
    return False


def _flat(points: Any) -> Iterable[Any]:
    for each in points:
        if isinstance(each, list | tuple):
            yield from each
        else:
            yield each


def _bounds(points: Ring) -> tuple[float, float, float, float]:
    if not len(points):
        return 0.0, 0.0, 0.0, 0.0
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return left, top, right, bottom
