"""The shapes of annotations, checked: what is wrong with any, and what is left out, is said once of each kind."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hsl.data.annotations.settings import Settings
from hsl.data.annotations.shapes import Area, Line, Region, Shape, corners, is_area, packed
from hsl.data.files.polygons import Ring, rectangle, turned
from hsl.data.formats.findings import Findings, shown

Size = tuple[int, int]

_OUTSIDE = "regions reach beyond their picture and are cut at its edge"
_FEW = "polygons have fewer than 3 corners, cover nothing and are left out"
_POINTS = "points have no area and are left out"
_NO_LINES, _NO_BOXES = (
    "lines are left out (`data.reader.line_width=0`)",
    "boxes are left out (`data.reader.boxes=skip`)",
)
_BOXES = {
    "fill": "boxes count as the objects in them (`data.reader.boxes=fill`)",
    "ignore": "boxes do not count (`data.reader.boxes=ignore`)",
}

_MOST_NAMED = 3


class Remarks:
    """What is true of some annotations and stops nothing: counted by kind, the first few named."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.places: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, where: str) -> None:
        """Count one; ``kind`` is what is said, after the number."""
        self.counts[kind] += 1
        places = self.places[kind]
        if len(places) < _MOST_NAMED and where not in places:
            places.append(where)

    def sentences(self) -> list[str]:
        """One of each kind."""
        return [
            f"{number} {kind}, as in {', '.join(f'`{place}`' for place in self.places[kind])}."
            for kind, number in sorted(self.counts.items())
        ]


class Gatherer:
    """Makes regions of what a file says; each of its methods returns one, or none.

    Attributes:
        settings: Of the reader.
        remarks: What is left out or changed.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.remarks = Remarks()
        self._wrong: list[str] = []
        self._boxes: list[str] = []
        self._lines: list[str] = []

    def polygon(
        self, where: str, label: str, points: Any, size: Size | None, rank: float = 0.0, holes: Sequence[Any] = ()
    ) -> Region | None:
        """The region of one outline with its holes."""
        return self.polygons(where, label, [[points, *holes]], size, rank)

    def polygons(
        self, where: str, label: str, polygons: Sequence[Sequence[Any]], size: Size | None, rank: float = 0.0
    ) -> Region | None:
        """The region of several polygons, each an outline and its holes."""
        kept = []
        for rings in polygons:
            read = [self._corners(where, ring) for ring in rings]
            outline = read[0] if read else None
            if outline is None:
                continue
            if not is_area(outline):
                self.remarks.add(_FEW, where)
                continue
            kept.append(tuple(packed(ring) for ring in read if ring is not None))
        return self.region(where, label, Area(tuple(kept)), size, rank) if kept else None

    def ring(self, where: str, label: str, ring: Ring, size: Size | None, rank: float = 0.0) -> Region:
        """The region of a ring that was computed, as of an ellipse."""
        return self.region(where, label, Area.of(ring), size, rank)

    def region(self, where: str, label: str, shape: Shape, size: Size | None, rank: float = 0.0) -> Region:
        """The region of any shape; one that reaches beyond its picture is counted."""
        if size is not None:
            left, top, right, bottom = shape.bounds()
            if min(left, top) < 0 or right > size[1] or bottom > size[0]:
                self.remarks.add(_OUTSIDE, where)
        return Region(label, shape, rank)

    def box(
        self,
        where: str,
        label: str,
        ends: Any,
        size: Size | None,
        rank: float = 0.0,
        degrees: float = 0.0,
        about_centre: bool = True,
    ) -> Region | None:
        """The region of a box: two opposite corners as ``x, y, x, y``, turned about its centre or upper left corner."""
        points = self._corners(where, ends)
        if points is None or len(points) != 2:
            return None
        if self.settings.boxes is None:
            self._boxes.append(f"`{where}`")
            return None
        if self.settings.boxes == "skip":
            self.remarks.add(_NO_BOXES, where)
            return None
        self.remarks.add(_BOXES[self.settings.boxes], where)
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        pivot = ((left + right) / 2, (top + bottom) / 2) if about_centre else (left, top)
        ring = turned(rectangle(left, top, right, bottom), pivot, degrees)
        region = self.region(where, label, Area.of(ring), size, rank)
        return Region(label, region.shape, rank, crowd=self.settings.boxes == "ignore")

    def line(self, where: str, label: str, points: Any, rank: float = 0.0) -> Region | None:
        """The region of a line."""
        read = self._corners(where, points)
        if read is None or not len(read):
            return None
        if self.settings.line_width is None:
            self._lines.append(f"`{where}`")
        elif self.settings.line_width == 0:
            self.remarks.add(_NO_LINES, where)
        else:
            return Region(label, Line(packed(read), self.settings.line_width), rank)
        return None

    def point(self, where: str) -> None:
        """A point, which is no region."""
        self.remarks.add(_POINTS, where)

    def wrong(self, where: str, what: str) -> None:
        """Something that should be corrected."""
        self._wrong.append(f"`{where}` ({what})")

    def report(self, root: Path, findings: Findings) -> None:
        """Hand over all that was found."""
        findings.add_places(
            self._wrong,
            f"Annotations of `{root}` should be complete. {len(self._wrong)} cannot be read:",
            "Correct or delete them.",
        )
        findings.add_places(
            self._boxes,
            f"{len(self._boxes)} objects of `{root}` are boxes without an outline, such as",
            "Say what a box is: `data.reader.boxes=fill` (all of it is the object), `ignore` (its pixels do not count) "
            "or `skip` (it is left out).",
        )
        findings.add_places(
            self._lines,
            f"{len(self._lines)} objects of `{root}` are lines, which cover nothing, such as",
            "Say how wide they are in pixels, as `data.reader.line_width=3`; 0 leaves them out.",
        )
        findings.not_read += [f"`{root}`: {sentence}" for sentence in self.remarks.sentences()]

    def _corners(self, where: str, points: Any) -> Ring | None:
        try:
            return corners(points)
        except ValueError as error:
            self.wrong(where, str(error))
            return None


def text_of(value: Any) -> str | None:
    """A name that a file has, without blanks around it; ``None`` where it is none. A number is a name too."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value).strip() or None


def size_of(height: Any, width: Any) -> Size | None:
    """The size that a file states; ``None`` where it states none."""
    whole = [isinstance(each, int | float) and not isinstance(each, bool) and each >= 1 for each in (height, width)]
    return (int(height), int(width)) if all(whole) else None


def kind_of(value: Any) -> str:
    """What a file has where something else should be, for a message."""
    return "nothing" if value is None else shown(value)
