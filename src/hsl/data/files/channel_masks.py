"""Masks of overlapping channels: one file that holds all, or one for each, read as the codes of `hsl.channels`."""

import hashlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX
from hsl.channels import pack
from hsl.data.files.decode import pillow_picture
from hsl.data.files.decode_masks import decode_mask, whole_numbers
from hsl.data.files.headers import MAX_MEGAPIXELS, Header, check_png, check_size, read_header
from hsl.data.files.mask_classes import indices_of_values
from hsl.data.files.records import FileSource
from hsl.data.files.tiff_pages import (
    BLACK_IS_ZERO,
    LOSSLESS,
    RGB,
    explained,
    first_page,
    num_pages,
    open_with_pillow,
    quiet_pillow,
    stored_numbers,
    turned_upright,
)
from hsl.errors import DataError

SUFFIXES = (".png", ".tif", ".tiff", ".npy")
_NUMPY = b"\x93NUMPY"
_ONE_EACH = "Store one grey PNG for each channel, `masks/CHANNEL/ID.png`."


@dataclass(frozen=True, slots=True)
class ChannelMask:
    """A mask that is packed into codes whenever it is read, as BMP: its bytes are hashed, and follow from the pixels.

    A pixel that any of the channels ignores is ignored in all.

    Attributes:
        paths: The file that holds all channels, or one for each in their order.
        channels: Their names.
        values: Number on disk -> 0 (absent), 1 (present) or 255 (ignored).
        max_megapixels: A larger file is refused before it is decoded.
    """

    paths: tuple[Path, ...]
    channels: tuple[str, ...]
    values: tuple[tuple[int, int], ...]
    max_megapixels: float = MAX_MEGAPIXELS

    @property
    def name(self) -> str:
        others = len(self.paths) - 1
        return f"{self.paths[0]}{f' and {others} more' if others else ''}"

    def read(self) -> bytes:
        _, bmp = cv2.imencode(".bmp", self.codes())
        return bmp.tobytes()

    def stamp(self) -> str:
        how = hashlib.sha256(repr((self.channels, self.values)).encode()).hexdigest()[:16]
        return "-".join([*(FileSource(path).stamp() for path in self.paths), how])

    def codes(self) -> NDArray[np.uint8]:
        """``uint8 (H, W)``: a bit for each channel, and 255 where it is ignored.

        Raises:
            DataError: A file cannot be read or has not the channels, or a number is not among ``values``.
        """
        planes = self._separate() if len(self.paths) > 1 else self._together(self.paths[0])
        codes = pack([plane == 1 for plane in planes])
        for plane in planes:
            codes[plane == IGNORE_INDEX] = IGNORE_INDEX
        return codes

    def _separate(self) -> list[NDArray[np.uint8]]:
        values, limit = dict(self.values), self.max_megapixels
        planes = [
            decode_mask(FileSource(path).read(), str(path), values=values, max_megapixels=limit) for path in self.paths
        ]
        for path, plane in zip(self.paths, planes, strict=True):
            if plane.shape != planes[0].shape:
                raise DataError(
                    f"`{path}` should be as large as `{self.paths[0]}`, {_size(planes[0])} (height x width). Found "
                    f"{_size(plane)}. Export all channels of a picture at one size."
                )
        return planes

    def _together(self, path: Path) -> list[NDArray[np.uint8]]:
        planes = whole_numbers(
            read_planes(FileSource(path).read(), str(path), self.channels, self.max_megapixels), str(path)
        )
        return [indices_of_values(plane, str(path), dict(self.values)) for plane in planes]


def read_planes(
    data: bytes, name: str, channels: tuple[str, ...], max_megapixels: float = MAX_MEGAPIXELS
) -> NDArray[Any]:
    """The channels of a file as they are stored, upright.

    Args:
        data: The whole file: a PNG of up to 4 channels, a TIFF of several channels or pages, or a NumPy array.
        name: What an error calls it.
        channels: Names of the K channels.
        max_megapixels: A larger file is refused before it is decoded.

    Returns:
        ``(K, H, W)``.

    Raises:
        DataError: It is damaged, too large, has a palette or a coding that may change numbers, or another number of
            channels.
    """
    if data.startswith(_NUMPY):
        return _of_numpy(data, name, channels)
    header = read_header(data, name)
    check_size(header, name, max_megapixels)
    if header.kind not in ("PNG", "TIFF"):
        raise DataError(
            f"`{name}` should be PNG, TIFF or NPY, which keep every number. Found {header.kind}. {_ONE_EACH}"
        )
    planes = _of_tiff(data, name) if header.kind == "TIFF" else _of_png(data, name, header)
    if len(planes) != len(channels):
        raise DataError(
            f"`{name}` should have {len(channels)} channels ({', '.join(channels)}). Found {len(planes)}. Export all "
            "of them, or correct `channels` in dataset.yaml."
        )
    return planes


def _of_png(data: bytes, name: str, header: Header) -> NDArray[Any]:
    check_png(data, name)
    if header.depth == 16 and not header.grey:  # Pillow would keep the upper half of each number only
        raise DataError(f"`{name}` has channels of 16 bits. Store 8 bits per channel, or TIFF.")
    picture = pillow_picture(data, name, "PNG")
    if picture.mode == "P":
        raise _palette(name)
    pixels = np.atleast_3d(turned_upright(np.asarray(picture), header.orientation))
    return np.moveaxis(pixels, -1, 0)


def _of_tiff(data: bytes, name: str) -> NDArray[Any]:
    with first_page(data, name) as (file, page):
        if page.compression not in LOSSLESS:
            coding = getattr(page.compression, "name", page.compression)
            raise DataError(
                f"`{name}` is compressed by {coding}, which may change numbers. Store it with deflate or LZW."
            )
        if page.colormap is not None:
            raise _palette(name)
        if page.photometric not in (BLACK_IS_ZERO, RGB):
            kind = getattr(page.photometric, "name", page.photometric)
            raise DataError(f"`{name}` says that its numbers are {kind}. Store them as grey (MINISBLACK) or RGB.")
        if num_pages(file) > 1:
            return _of_pages(data, name)
        return np.moveaxis(np.atleast_3d(stored_numbers(data, page, name)), -1, 0)


def _of_pages(data: bytes, name: str) -> NDArray[Any]:
    planes = []
    with explained(name, way_out=_ONE_EACH), quiet_pillow():
        picture = open_with_pillow(data, "TIFF")
        for page in range(getattr(picture, "n_frames", 1)):
            picture.seek(page)
            planes.append(np.asarray(picture))
    unlike = [plane.shape for plane in planes if plane.shape != planes[0].shape or plane.ndim != 2]
    if unlike:
        raise DataError(f"The pages of `{name}` should be grey and of one size. Found {unlike[0]}. {_ONE_EACH}")
    return np.stack(planes)


def _of_numpy(data: bytes, name: str, channels: tuple[str, ...]) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"`{name}` cannot be read as a NumPy array: {error} Store it anew.") from error
    number = len(channels)
    first, last = (array.ndim == 3 and array.shape[axis] == number for axis in (0, -1))
    if first and last:
        raise DataError(
            f"`{name}` can be read in two ways, as its first and its last axis are both as long as there are channels: "
            f"{array.shape}. {_ONE_EACH}"
        )
    if not first and not last:
        raise DataError(
            f"`{name}` should be an array {number} x H x W or H x W x {number} ({', '.join(channels)}). Found the "
            f"shape {array.shape}. Export all channels, or correct `channels` in dataset.yaml."
        )
    return array if first else np.moveaxis(array, -1, 0)


def _palette(name: str) -> DataError:
    return DataError(f"`{name}` has a palette, so each of its pixels has one colour only. {_ONE_EACH}")


def _size(plane: NDArray[Any]) -> str:
    return f"{plane.shape[0]} x {plane.shape[1]}"
