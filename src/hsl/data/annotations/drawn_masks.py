"""Masks and maps of instances that are drawn from regions whenever they are read."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2

from hsl.data.annotations.shapes import Drawn, Painting, paint
from hsl.data.files.headers import MAX_MEGAPIXELS, check_size, read_header
from hsl.data.files.records import FileSource
from hsl.data.files.tiff_pages import turned_upright
from hsl.errors import DataError

MOST_REGIONS = 2**16 - 1


@dataclass(frozen=True, slots=True)
class DrawnMask:
    """The regions of a picture as a mask, drawn when it is read.

    Coordinates mean the picture as its annotation saw it: upright if the size that the annotation states is the one of
    the upright picture, else as it is stored, and the mask is then turned with the picture.

    Attributes:
        picture: The picture, whose header says its size and how it is turned.
        where: The annotation, for messages.
        size: Height and width that the annotation states; ``None``: it states none.
        regions: In the order in which they are drawn.
        as_ids: Whether it is the map of instances: numbers of regions, not classes.
        shares: Whether coordinates are shares of the width and height, not pixels.
        max_megapixels: A larger picture is refused before anything is drawn.
    """

    picture: Path
    where: str
    size: tuple[int, int] | None
    regions: tuple[Drawn, ...]
    as_ids: bool = False
    shares: bool = False
    max_megapixels: float = MAX_MEGAPIXELS

    @property
    def name(self) -> str:
        return self.where

    def read(self) -> bytes:
        painting = self.paint()
        if self.as_ids:
            _, data = cv2.imencode(".png", painting.ids, (cv2.IMWRITE_PNG_COMPRESSION, 1))
        else:
            _, data = cv2.imencode(".bmp", painting.mask)
        return data.tobytes()

    def paint(self) -> Painting:
        """The regions, drawn, as the picture is turned upright.

        Raises:
            DataError: The picture cannot be read, or has another size than the annotation states.
        """
        header = read_header(FileSource(self.picture).read(), str(self.picture))
        check_size(header, str(self.picture), self.max_megapixels)
        stored = header.height, header.width
        upright = stored[::-1] if header.orientation >= 5 else stored
        if self.size not in (None, stored, upright):
            stated = f"{self.size[0]} x {self.size[1]}" if self.size else ""
            raise DataError(
                f"`{self.where}` is of a picture of {stated} (height x width). `{self.picture}` has {upright[0]} x "
                f"{upright[1]}. Restore the picture that was annotated, or correct the size in the annotation."
            )
        height, width = self.size or upright
        drawn = paint(self.regions, height, width, (width, height) if self.shares else (1.0, 1.0))
        if (height, width) == upright:
            return drawn
        mask, ids = (turned_upright(each, header.orientation).copy() for each in (drawn.mask, drawn.ids))
        return Painting(mask, ids, drawn.num_contested, drawn.num_empty)

    def stamp(self) -> str:
        how = hashlib.sha256(repr((self.size, self.regions, self.shares, self.as_ids)).encode()).hexdigest()
        return f"{FileSource(self.picture).stamp()}-{how[:16]}"
