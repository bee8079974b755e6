"""A mask of several files: each shows one class, and a later one lies above the earlier."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.data.files.decode_masks import decode_presence
from hsl.data.files.headers import MAX_MEGAPIXELS
from hsl.data.files.records import FileSource
from hsl.errors import DataError


@dataclass(frozen=True, slots=True)
class LayeredMask:
    """Class indices that are painted, file by file, whenever they are read, as BMP: its bytes follow from the pixels.

    Where no file shows anything the class is 0.

    Attributes:
        layers: File and class index, the lowest first.
        nearest: Whether files may be blurred: what is nearer to 255 than to 0 is shown.
        max_megapixels: A larger file is refused before it is decoded.
    """

    layers: tuple[tuple[Path, int], ...]
    nearest: bool = False
    max_megapixels: float = MAX_MEGAPIXELS

    @property
    def name(self) -> str:
        others = len(self.layers) - 1
        return f"{self.layers[0][0]}{f' and {others} more' if others else ''}"

    def read(self) -> bytes:
        _, bmp = cv2.imencode(".bmp", self._painted()[0])
        return bmp.tobytes()

    def stamp(self) -> str:
        indices = hashlib.sha256(repr([index for _, index in self.layers]).encode()).hexdigest()[:16]
        return "-".join([*(FileSource(path).stamp() for path, _ in self.layers), indices, str(self.nearest)])

    def overlap(self) -> int:
        """Pixels that files of different classes show.

        Raises:
            DataError: A file cannot be read, or they are unlike in size.
        """
        return self._painted()[1]

    def _painted(self) -> tuple[NDArray[np.uint8], int]:
        first = self._presence(self.layers[0][0])
        classes, claimed = np.zeros(first.shape, np.uint8), np.zeros(first.shape, np.bool_)
        for path, index in self.layers:
            shown = self._presence(path)
            if shown.shape != first.shape:
                raise DataError(
                    f"`{path}` should be as large as `{self.layers[0][0]}`, {_size(first)} (height x width). Found "
                    f"{_size(shown)}. Export all masks of a picture at one size."
                )
            claimed |= shown & (classes != 0) & (classes != index)
            classes[shown] = index
        return classes, int(claimed.sum())

    def _presence(self, path: Path) -> NDArray[np.bool_]:
        return decode_presence(FileSource(path).read(), str(path), self.nearest, self.max_megapixels)


def _size(array: NDArray[Any]) -> str:
    return f"{array.shape[0]} x {array.shape[1]}"
