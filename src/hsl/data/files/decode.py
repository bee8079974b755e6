"""From the bytes of a picture to RGB."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.data.bands.npy import read_npy
from hsl.data.files.headers import MAX_MEGAPIXELS, Header, broken, check_size, read_header
from hsl.data.files.kinds import heif, jpeg2000, netpbm
from hsl.data.files.tiff_pages import (
    BLACK_IS_ZERO,
    PALETTE,
    RGB,
    WHITE_IS_ZERO,
    decode_with_opencv,
    first_page,
    open_with_pillow,
    quiet_pillow,
    stored_numbers,
    turned_upright,
)
from hsl.errors import DataError, UserError

if TYPE_CHECKING:
    from PIL import Image

Range = tuple[float, float] | None

FULL = (16, 16)
"""Bits of the largest number in a picture of 16 bits whose range nobody has named."""

RANGE_KEY = "data.value_range"
"""The key that says what becomes black and white."""

_JPEG_END = b"\xff\xd9"
_AS_COLOUR = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH


@dataclass(frozen=True, slots=True, eq=False)
class StoredImage:
    """A picture in the numbers that are stored, upright.

    Attributes:
        pixels: ``(H, W, 3)`` RGB, of 8 bits, or ``(H, W)`` or ``(H, W, 3)`` of any other kind of number.
        header: What the file says of itself.
        white_is_zero: Whether the numbers grow towards black.
    """

    pixels: NDArray[Any]
    header: Header
    white_is_zero: bool = False

    @property
    def largest(self) -> int:
        """The largest number in a picture of 16 bits; 0 for any other picture."""
        deep = self.pixels.dtype == np.uint16 and self.header.depth == 16
        return int(self.pixels.max()) if deep else 0

    def to_rgb(self, name: str, value_range: Range = None, key: str = RANGE_KEY) -> NDArray[np.uint8]:
        """``uint8 (H, W, 3)``, contiguous; see `decode_image`. ``key`` is the one that sets the range.

        Raises:
            DataError: The numbers have no one meaning.
        """
        if self.pixels.dtype == np.uint8:
            return np.ascontiguousarray(self.pixels)
        rgb = to_uint8(self.pixels, name, value_range, 2**self.header.depth - 1, key)
        if self.white_is_zero:
            rgb = np.subtract(255, rgb)
        return np.ascontiguousarray(rgb if rgb.ndim == 3 else rgb[..., None].repeat(3, axis=2))


def decode_image(
    data: bytes,
    name: str,
    value_range: Range = None,
    *,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> NDArray[np.uint8]:
    """Decode a picture of any usual kind to 8-bit RGB.

    Grey becomes three equal channels, an alpha channel is dropped, and the picture is turned upright by its
    EXIF orientation. An 8-bit picture keeps its values. Of several pages or frames the first is read.

    Args:
        data: The whole file: PNG, JPEG, TIFF, WebP, BMP, GIF, NPY, JPEG 2000, netpbm, or HEIC with pillow-heif.
        name: What an error calls the file.
        value_range: The two values that become 0 and 255 in a picture of more than 8 bits; values outside are
            clipped. Default: 0 and 65535 for 16 bits (division by 257), 0 and 4095 for 12 bits that are packed, and
            so on. Any other kind of number needs it.
        max_megapixels: A larger picture is refused before it is decoded.

    Returns:
        ``uint8 (H, W, 3)``, contiguous.

    Raises:
        DataError: The file is broken, cut off, too large, or of a kind that has no one meaning as RGB.
    """
    return read_stored(data, name, max_megapixels).to_rgb(name, value_range)


def read_stored(data: bytes, name: str, max_megapixels: float = MAX_MEGAPIXELS) -> StoredImage:
    """Decode a picture to the numbers that are stored in it; see `decode_image`.

    Raises:
        DataError: The file is broken, cut off, too large, or holds something else than grey or colours.
    """
    header = read_header(data, name)
    check_size(header, name, max_megapixels)
    if header.kind == "TIFF":
        return _read_tiff(data, name, header)
    if header.kind == "NPY":
        numbers = _channels(read_npy(data, name), name)
        grey = numbers.ndim == 2 and numbers.dtype == np.uint8
        return StoredImage(numbers[..., None].repeat(3, axis=2) if grey else numbers, header)
    if header.kind == "GIF":
        return StoredImage(np.asarray(pillow_picture(data, name, "GIF").convert("RGB")), header)
    if header.kind == "HEIF":
        return StoredImage(heif.heif_pixels(data, name), header)
    if header.kind == "NETPBM":
        return _read_netpbm(data, name, header)
    if header.kind == "JPEG2000":
        return _read_jpeg2000(data, name, header)
    if header.kind == "JPEG" and _JPEG_END not in data[-64:]:
        # OpenCV may fill up what is missing with grey; Pillow refuses a file that is cut off.
        pillow_picture(data, name, "JPEG")
    image = decode_with_opencv(data, _AS_COLOUR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise broken(data, name)
    return StoredImage(_rgb(turned_upright(image, header.orientation)), header)


def _read_jpeg2000(data: bytes, name: str, header: Header) -> StoredImage:
    if not jpeg2000.code_stream(data).whole:  # what is missing would be made up
        raise DataError(f"`{name}` is cut off. Restore the file or remove it.")
    image = decode_with_opencv(data, _AS_COLOUR)
    if image is not None:
        return StoredImage(_rgb(image), header)
    picture = pillow_picture(data, name, "JPEG2000")  # OpenCV does not know bare streams, nor grey with alpha
    deep = picture.mode.startswith("I")
    return StoredImage(np.asarray(picture).astype(np.uint16) if deep else np.asarray(picture.convert("RGB")), header)


def _read_netpbm(data: bytes, name: str, header: Header) -> StoredImage:
    numbers, largest = netpbm.netpbm_numbers(data, name), netpbm.netpbm_header(data).largest
    if numbers.max(initial=0) > largest:
        raise DataError(f"`{name}` should have numbers up to {largest}, as its header says. Found {numbers.max()}.")
    if data.startswith((b"P1", b"P4")):
        numbers = 1 - numbers
    if largest > 255:
        return StoredImage(numbers, header)
    scaled = np.rint(numbers * (255 / largest)).astype(np.uint8)
    return StoredImage(scaled if scaled.ndim == 3 else np.dstack([scaled] * 3), header)


def pillow_picture(data: bytes, name: str, kind: str) -> Image.Image:
    """Pillow's picture of a file, decoded.

    Raises:
        DataError: The file is cut off or damaged.
    """
    try:
        picture = open_with_pillow(data, kind)
        with quiet_pillow():
            picture.load()
    except (OSError, SyntaxError, ValueError, LookupError, struct.error, zlib.error) as error:
        if isinstance(error, UserError):
            raise
        raise DataError(f"`{name}` is cut off or damaged: {error}. Restore the file or remove it.") from error
    return picture


def check_bits(largest: int, name: str, value_range: Range, bits: tuple[int, int], key: str) -> None:
    """Refuse a picture of 16 bits whose numbers are of another range than ``value_range`` is meant for.

    Args:
        largest: Of its numbers; 0 if it is not of 16 bits.
        name: What an error calls it.
        value_range: What becomes black and white.
        bits: How many bits the largest may have, at least and at most.
        key: The key that sets another range.

    Raises:
        DataError: It has fewer or more.
    """
    found = largest.bit_length()
    if not found or bits[0] <= found <= bits[1]:
        return
    low, high = (0, 65535) if value_range is None else (f"{end:g}" for end in value_range)
    how = "dark" if found < bits[0] else "bright"
    raise DataError(
        f"`{name}` should fit the range {low} to {high}. Found numbers up to {largest}, as "
        f"{found} bits would have them. Set `{key}=[0,{2**found - 1}]`, or `{key}=[{low},{high}]` if it is that {how}."
    )


def _read_tiff(data: bytes, name: str, header: Header) -> StoredImage:
    with first_page(data, name) as (_, page):
        white_is_zero = page.photometric == WHITE_IS_ZERO
        if page.bitspersample > 8 or page.dtype is None or page.dtype.kind not in "ub":
            return StoredImage(_deep_page(data, page, name), header, white_is_zero)
        plain = not page.extrasamples and page.bitspersample in (1, 8)
        image = decode_with_opencv(data, _AS_COLOUR) if plain else None
        if image is not None and image.dtype == np.uint8:  # turned upright, and white made 255
            return StoredImage(_rgb(image), header)
        if page.photometric in (BLACK_IS_ZERO, WHITE_IS_ZERO) and page.bitspersample == 8:
            grey = _channels(stored_numbers(data, page, name), name)
            return StoredImage(
                grey if grey.ndim == 3 else np.dstack([255 - grey if white_is_zero else grey] * 3), header
            )
        # OpenCV would multiply the colours by alpha, and does not know grey of 2 and 4 bits
        picture = pillow_picture(data, name, "TIFF").convert("RGBA" if page.extrasamples else "RGB")
        return StoredImage(np.asarray(picture)[..., :3], header)


def _deep_page(data: bytes, page: Any, name: str) -> NDArray[Any]:
    numbers = stored_numbers(data, page, name)
    if page.photometric == PALETTE and page.colormap is not None and numbers.ndim == 2:
        if numbers.size and numbers.max() >= page.colormap.shape[1]:
            raise DataError(f"`{name}` has the index {numbers.max()}, which its palette lacks. Export it as RGB.")
        return np.moveaxis((page.colormap >> 8).astype(np.uint8)[:, numbers], 0, -1)
    if page.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
        kind = getattr(page.photometric, "name", page.photometric)
        raise DataError(f"`{name}` should be grey or RGB. Found {kind} of {page.bitspersample} bits. Export it as RGB.")
    return _channels(numbers, name)


def _channels(numbers: NDArray[Any], name: str) -> NDArray[Any]:
    """Grey ``(H, W)`` or RGB ``(H, W, 3)`` without alpha."""
    if numbers.dtype.kind == "c":
        raise DataError(f"`{name}` should hold real numbers. Found {numbers.dtype}. Export their magnitudes.")
    if numbers.ndim == 2:
        return numbers
    if numbers.shape[2] > 4:
        raise DataError(
            f"`{name}` should have 1 to 4 channels. Found shape {numbers.shape}. Export it as RGB, or "
            "name its channels with `bands` in dataset.yaml."
        )
    return numbers[..., :3] if numbers.shape[2] >= 3 else numbers[..., 0]


def _rgb(bgr: NDArray[Any]) -> NDArray[Any]:
    return cv2.cvtColor(np.ascontiguousarray(bgr), cv2.COLOR_BGR2RGB)


def to_uint8(numbers: NDArray[Any], name: str, value_range: Range, top: int, key: str) -> NDArray[np.uint8]:
    """Numbers of any kind, brought from their range to 0 ... 255; ``top`` is the largest of those of 16 bits.

    Raises:
        DataError: The range is not known, or a number is not finite.
    """
    if value_range is None:
        if numbers.dtype != np.uint16:
            in_file = "`value_range: [black, white]` in dataset.yaml, or " if key == RANGE_KEY else ""
            raise DataError(
                f"`{name}` holds {numbers.dtype} numbers, here from {numbers.min():.6g} to {numbers.max():.6g}, whose "
                f"black and white are not known. Set {in_file}`{key}=[black,white]`."
            )
        value_range = (0.0, float(top))
    if numbers.dtype == np.uint16:  # a table, because the picture as float would be four times as large
        table = _scaled(np.arange(2**16), value_range)
        return np.take(table, numbers)
    if not np.isfinite(numbers).all():
        raise DataError(f"`{name}` holds values that are not finite. Replace them in the picture.")
    return _scaled(numbers, value_range)


def _scaled(numbers: NDArray[Any], value_range: tuple[float, float]) -> NDArray[np.uint8]:
    low, high = value_range
    scaled = (numbers.astype(np.float32) - np.float32(low)) * np.float32(255.0 / (high - low))
    result: NDArray[np.uint8] = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    return result
