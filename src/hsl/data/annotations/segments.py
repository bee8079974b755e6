"""Masks whose pixels hold the number of a segment, with a table that says what each segment is."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX
from hsl.data.files.decode import decode_image
from hsl.data.files.headers import MAX_MEGAPIXELS
from hsl.data.files.records import FileSource
from hsl.errors import DataError


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment: the number of its pixels, its label, whether it does not count, whether it is one object."""

    id: int
    label: str
    crowd: bool
    is_object: bool


@dataclass(frozen=True, slots=True)
class SegmentMask:
    """A file of segments as a mask of classes or of objects, made when it is read.

    Attributes:
        path: A PNG whose colour is the number of a segment: red + 256 green + 65536 blue; 0 does not count.
        where: The annotation, for messages.
        table: Number, class index (or 255) and number of the object (or 0) of each segment, sorted.
        as_ids: Whether it is the map of instances.
        max_megapixels: A larger file is refused before it is decoded.
    """

    path: Path
    where: str
    table: tuple[tuple[int, int, int], ...]
    as_ids: bool = False
    max_megapixels: float = MAX_MEGAPIXELS

    @property
    def name(self) -> str:
        return f"{self.path} (instances)" if self.as_ids else str(self.path)

    def read(self) -> bytes:
        colours = decode_image(FileSource(self.path).read(), str(self.path), max_megapixels=self.max_megapixels)
        numbers = colours.astype(np.int64) @ np.array([1, 2**8, 2**16])
        table = np.array([(0, IGNORE_INDEX, 0), *self.table], np.int64)
        place = np.minimum(np.searchsorted(table[:, 0], numbers), len(table) - 1)
        unknown = numbers[table[place, 0] != numbers]
        if unknown.size:
            raise DataError(
                f"`{self.path}` holds segments that `{self.where}` does not list, such as {unknown[0]} ({unknown.size} "
                "pixels in all). Export both anew."
            )
        mask: NDArray[np.uint8] = table[place, 1].astype(np.uint8)
        if self.as_ids:
            ids = np.where(np.isin(mask, (0, IGNORE_INDEX)), 0, table[place, 2]).astype(np.uint16)
            _, data = cv2.imencode(".png", ids, (cv2.IMWRITE_PNG_COMPRESSION, 1))
        else:
            _, data = cv2.imencode(".bmp", mask)
        return data.tobytes()

    def stamp(self) -> str:
        how = hashlib.sha256(repr((self.table, self.as_ids)).encode()).hexdigest()
        return f"{FileSource(self.path).stamp()}-{how[:16]}"


def number_segments(segments: Sequence[Segment], index: Mapping[str, int | None]) -> tuple[tuple[int, int, int], ...]:
    """The table of a `SegmentMask`: segments of labels that are left out are background, objects count from 1."""
    table, number = [], 0
    for segment in sorted(segments, key=lambda segment: segment.id):
        number += segment.is_object
        class_index = IGNORE_INDEX if segment.crowd else index.get(segment.label) or 0
        table.append((segment.id, class_index, number if segment.is_object else 0))
    return tuple(table)
