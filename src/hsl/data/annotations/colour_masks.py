"""Masks of colours, or of indices with colours, as class indices; and the maps of objects beside them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX
from hsl.data.files.decode import decode_image
from hsl.data.files.decode_masks import decode_mask
from hsl.data.files.headers import MAX_MEGAPIXELS, read_header
from hsl.data.files.mask_classes import indices_of_colours
from hsl.data.files.records import FileSource
from hsl.errors import DataError

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ColourMask:
    """A mask file whose classes are told by its colours, or by its numbers.

    Attributes:
        path: The file. Colours of an indexed PNG count as they are seen.
        colours: Class index of each colour; ``None``: the numbers in the file are class indices.
        objects: The map of objects: the mask is then that of objects, numbered in the order of their colours; what is
            background or does not count in ``path`` is none.
        max_megapixels: A larger file is refused before it is decoded.
    """

    path: Path
    colours: tuple[tuple[Colour, int], ...] | None
    objects: Path | None = None
    max_megapixels: float = MAX_MEGAPIXELS

    @property
    def name(self) -> str:
        return str(self.objects or self.path)

    def read(self) -> bytes:
        mask = self._classes()
        if self.objects is None:
            _, data = cv2.imencode(".bmp", mask)
            return data.tobytes()
        packed = _packed(_colours_of(self.objects, self.max_megapixels))
        if packed.shape != mask.shape:
            raise DataError(f"`{self.objects}` should be as large as `{self.path}`. Export both anew.")
        shown = np.where(np.isin(mask, (0, IGNORE_INDEX)), 0, packed)
        different, numbers = np.unique(shown, return_inverse=True)
        ids = numbers.reshape(mask.shape) + (different[0] != 0)
        if ids.max() >= 2**16:
            raise DataError(f"`{self.objects}` should have fewer than 65536 objects. Found {ids.max()}.")
        _, data = cv2.imencode(".png", ids.astype(np.uint16), (cv2.IMWRITE_PNG_COMPRESSION, 1))
        return data.tobytes()

    def stamp(self) -> str:
        how = hashlib.sha256(repr(self.colours).encode()).hexdigest()
        files = [self.path, *([self.objects] if self.objects else [])]
        return "-".join([*(FileSource(path).stamp() for path in files), how[:16]])

    def _classes(self) -> NDArray[np.uint8]:
        if self.colours is None:
            data = FileSource(self.path).read()
            return decode_mask(data, str(self.path), max_megapixels=self.max_megapixels)
        return indices_of_colours(_colours_of(self.path, self.max_megapixels), str(self.path), dict(self.colours))


def _colours_of(path: Path, max_megapixels: float) -> NDArray[np.uint8]:
    data = FileSource(path).read()
    if not read_header(data, str(path)).lossless:
        raise DataError(f"`{path}` is of a kind that blurs colours. Export masks as PNG.")
    return decode_image(data, str(path), max_megapixels=max_megapixels)


def _packed(colours: NDArray[np.uint8]) -> NDArray[np.int32]:
    wide = colours.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
