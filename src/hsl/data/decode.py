"""From the bytes of a file to arrays: pictures as RGB, masks as class indices."""

import io
import logging
import struct
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import tifffile
from cv2.utils import logging as opencv_logging
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from hsl.batch import IGNORE_INDEX
from hsl.config import DataError

Palette = Mapping[tuple[int, int, int], int]

# Both report a broken file on stderr, across the progress bar; every refusal is raised below instead.
opencv_logging.setLogLevel(opencv_logging.LOG_LEVEL_SILENT)
tifffile.logger().setLevel(logging.CRITICAL)

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_AS_COLOUR = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
_MOST_UNPACKED = 2000  # above what deflate (1032) and LZW reach; a damaged header can ask for any memory
_PNG_GREY = 0  # colour type in the header of a PNG


def decode_image(data: bytes, name: str, value_range: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Decode a picture of any usual kind to 8-bit RGB.

    Grey becomes three equal channels, an alpha channel is dropped, and the picture is turned upright by its
    EXIF orientation. An 8-bit picture keeps its values. Of several pages the first is read.

    Args:
        data: The whole file: PNG, JPEG, TIFF, WebP or BMP.
        name: What an error calls the file.
        value_range: The two values that become 0 and 255 in a picture of more than 8 bits; values outside are
            clipped. Default: 0 and 65535 for 16 bits (division by 257). Any other kind of number needs it.

    Returns:
        ``uint8 (H, W, 3)``, contiguous.

    Raises:
        DataError: The file is broken, cut off, or of a kind that has no one meaning as RGB.
    """
    if data.startswith(_JPEG) and _JPEG_END not in data[-64:]:
        # OpenCV may fill up what is missing with grey; Pillow refuses a file that is cut off.
        _pillow_array(_open_with_pillow(data, name), name)
    if data.startswith(_TIFF):
        image = _decode_tiff(data, name)
    else:
        image = _decode_with_opencv(data, _AS_COLOUR)
    if image is None:
        raise _broken(data, name)
    if image.dtype == np.uint8:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    return np.ascontiguousarray(_to_uint8(image, name, value_range)[..., ::-1])


def decode_mask(
    data: bytes, name: str, palette: Palette | None = None, ignore_index: int = IGNORE_INDEX
) -> NDArray[np.uint8]:
    """Decode a mask to class indices. Whether they are classes of the data set is the audit's question.

    A palette PNG holds indices, whatever its colours are. Three channels are colours to be looked up in
    ``palette``; without one they have to be equal, and are then indices.

    Args:
        data: The whole file, of a lossless kind.
        name: What an error calls the file.
        palette: Colour ``(red, green, blue)`` -> class index.
        ignore_index: The index on disk that becomes 255.

    Returns:
        ``uint8 (H, W)``.

    Raises:
        DataError: The file is broken or a JPEG, a value does not fit into 8 bits, a colour is not in the
            palette, or the colours of a palette PNG contradict ``palette``.
    """
    if data.startswith(_JPEG):
        raise DataError(f"`{name}` is a JPEG, which blurs class indices. Store masks as PNG.")
    values = _mask_values(data, name, palette)
    if values.ndim == 3 and palette is not None:
        return _indices_of_colours(values[..., :3], name, palette)
    if values.ndim == 3:
        values = _indices_of_grey(values[..., :3], name)
    if ignore_index != IGNORE_INDEX:
        if (values == IGNORE_INDEX).any():
            raise DataError(
                f"`{name}` holds {IGNORE_INDEX}, neither a class nor `ignore_index = {ignore_index}`. "
                "Correct the mask, or the line `ignore_index` of dataset.yaml."
            )
        values = np.where(values == ignore_index, IGNORE_INDEX, values)
    outside = (values < 0) | (values > IGNORE_INDEX) if values.dtype.itemsize > 1 else np.zeros(0, dtype=bool)
    if outside.any():
        raise DataError(
            f"`{name}` should hold class indices in [0, {IGNORE_INDEX}]. Found {values[outside][0]} (in all "
            f"{outside.sum()} such pixels). If it is a map of instances, it belongs in instances/."
        )
    return np.array(values, dtype=np.uint8)


def decode_instances(data: bytes, name: str) -> NDArray[np.integer[Any]]:
    """Decode a map of object ids, 8 or 16 bits, 0 = no object.

    Returns:
        ``(H, W)``.

    Raises:
        DataError: the file is broken, holds colours, or an id is negative.
    """
    values = _mask_values(data, name, None)
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise DataError(
            f"`{name}` should hold one id per pixel. Found {values.dtype} {values.shape}. Store it as grey PNG."
        )
    if values.size and values.min() < 0:
        raise DataError(f"`{name}` should hold ids of at least 0. Found {values.min()}. Number the objects from 1.")
    return values


def _mask_values(data: bytes, name: str, palette: Palette | None) -> NDArray[Any]:
    """Raw values ``(H, W)``, or colours ``(H, W, 3 or 4)`` in the order red, green, blue."""
    depth, kind = (data[24], data[25]) if data.startswith(_PNG) and len(data) > 25 else (0, None)
    if depth == 16 and kind != _PNG_GREY:  # Pillow would keep the upper half of each number only
        raise DataError(f"`{name}` holds colours of 16 bits. Store them with 8 bits per channel.")
    picture = _open_with_pillow(data, name)
    array = _pillow_array(picture, name)
    if picture.mode == "P" and palette is not None:
        _check_colour_table(picture, array, name, palette)
    if kind == _PNG_GREY and depth in (2, 4):  # Pillow stretches these to 0..255
        array = array // (255 // (2**depth - 1))
    return array[..., 0] if picture.mode == "LA" else array


def _check_colour_table(picture: Image.Image, indices: NDArray[Any], name: str, palette: Palette) -> None:
    table = np.reshape(picture.getpalette("RGB") or [], (-1, 3)).tolist()
    for index in np.flatnonzero(np.bincount(indices.ravel(), minlength=1)).tolist():
        colour = tuple(table[index]) if index < len(table) else None
        meant = palette.get(colour, index) if colour else index
        if meant != index:
            raise DataError(
                f"`{name}` has index {index} in the colour {colour}, in dataset.yaml that of class {meant}. "
                "Store the mask as RGB if its colours are meant; remove `palette` if its indices are."
            )


def _indices_of_grey(colours: NDArray[Any], name: str) -> NDArray[Any]:
    if (colours != colours[..., :1]).any():
        raise DataError(
            f"`{name}` holds colours, not class indices. Name the colour of each class under `palette` in "
            "dataset.yaml, or store the masks as one channel of class indices."
        )
    return colours[..., 0]


def _indices_of_colours(colours: NDArray[Any], name: str, palette: Palette) -> NDArray[np.uint8]:
    packed = _packed(colours)
    keys = _packed(np.array(list(palette)))
    order = np.argsort(keys)
    position = np.minimum(np.searchsorted(keys[order], packed), len(keys) - 1)
    unknown, counts = np.unique(packed[keys[order][position] != packed], return_counts=True)
    if unknown.size:
        most = unknown[counts.argmax()].item()
        raise DataError(
            f"`{name}` holds {unknown.size} colours that `palette` does not name, most often "
            f"{(most >> 16, most >> 8 & 255, most & 255)} ({counts.max()} pixels). Add them to `palette` in "
            "dataset.yaml (under `ignore` if they are not to count) or correct the mask."
        )
    return np.array(list(palette.values()), dtype=np.uint8)[order][position]


def _packed(colours: NDArray[Any]) -> NDArray[np.int32]:
    numbers: NDArray[np.int32] = colours.astype(np.int32)
    return numbers[..., 0] << 16 | numbers[..., 1] << 8 | numbers[..., 2]


def _decode_with_opencv(data: bytes, flags: int) -> NDArray[Any] | None:
    if not data:
        return None
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _decode_tiff(data: bytes, name: str) -> NDArray[Any] | None:
    """The first page as ``(H, W, 3)`` in OpenCV's order of channels: blue, green, red."""
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            if page.nbytes > _MOST_UNPACKED * len(data):
                raise _broken(data, name)
            plain = not page.extrasamples and (page.planarconfig == 1 or page.bitspersample == 8)
            image = _decode_with_opencv(data, _AS_COLOUR) if plain else None
            if image is not None:
                return image
            if page.bitspersample == 8 and page.samplesperpixel == 4:
                # OpenCV would multiply the colours by alpha, tifffile knows few compressions
                image = _pillow_array(_open_with_pillow(data, name), name)[..., 2::-1]
            else:
                image = _bgr_page(page.asarray(), page.axes, int(page.tags.valueof(274, 1)), name)
            return np.ascontiguousarray(image)
    # a damaged file shows as whichever of these the parser meets first
    except (tifffile.TiffFileError, struct.error, LookupError, OSError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"`{name}` cannot be read as TIFF: {error}. Export it anew as PNG.") from error


def _bgr_page(array: NDArray[Any], axes: str, orientation: int, name: str) -> NDArray[Any]:
    if "S" in axes:
        array = np.moveaxis(array, axes.index("S"), -1)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] > 4:
        raise DataError(f"`{name}` should have 1 to 4 channels. Found shape {array.shape}. Export it as RGB.")
    array = array[..., 2::-1] if array.shape[2] >= 3 else array[..., :1].repeat(3, axis=2)
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array[::-1] if orientation in (3, 4, 7, 8) else array


def _to_uint8(image: NDArray[Any], name: str, value_range: tuple[float, float] | None) -> NDArray[np.uint8]:
    if value_range is None:
        if image.dtype != np.uint16:
            raise DataError(
                f"`{name}` holds {image.dtype} numbers, whose black and white are not known. Set "
                "`value_range: [black, white]` in dataset.yaml."
            )
        value_range = (0.0, 65535.0)
    if not np.isfinite(image).all():
        raise DataError(f"`{name}` holds values that are not finite. Replace them in the picture.")
    low, high = value_range
    scaled = (image.astype(np.float32) - np.float32(low)) * np.float32(255.0 / (high - low))
    result: NDArray[np.uint8] = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    return result


def _open_with_pillow(data: bytes, name: str) -> Image.Image:
    try:
        if data.startswith(_PNG):
            # not Image.open: its limit on pixels would refuse the masks of large scans
            return PngImagePlugin.PngImageFile(io.BytesIO(data))
        return Image.open(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _broken(data, name) from error


def _pillow_array(picture: Image.Image, name: str) -> NDArray[Any]:
    try:
        return np.asarray(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"`{name}` is cut off or damaged: {error}. Restore the file or remove it.") from error


def _broken(data: bytes, name: str) -> DataError:
    what = "is no picture that can be read, or is cut off" if data else "is empty"
    return DataError(f"`{name}` {what}. Restore the file or remove it.")
