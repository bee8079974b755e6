"""From the bytes of a mask, or of a map of instances, to class indices and ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX
from hsl.data.files.decode import pillow_picture, read_stored
from hsl.data.files.headers import MAX_MEGAPIXELS, Header, check_png, check_size, read_header
from hsl.data.files.kinds.arrays import array_of, is_array_file
from hsl.data.files.kinds.netpbm import netpbm_numbers
from hsl.data.files.mask_classes import (
    Palette,
    check_colour_table,
    indices_of_colours,
    indices_of_grey,
    indices_of_nearest,
    indices_of_numbers,
    indices_of_values,
    one_channel,
)
from hsl.data.files.tiff_pages import (
    BLACK_IS_ZERO,
    LOSSLESS,
    PALETTE,
    RGB,
    WHITE_IS_ZERO,
    first_page,
    stored_numbers,
    turned_upright,
)
from hsl.errors import DataError

_LOSSY = {"JPEG": "JPEG", "WEBP": "lossy WebP", "JPEG2000": "JPEG 2000", "HEIF": "HEIC"}
_INSTEAD = (
    "Store masks as PNG. With `data=folder`, `data.reader.nearest=true` takes them by the nearest of `palette` "
    "or `values`."
)
_MOST_LISTED = 1000
_MOST_EXACT = 2**53  # in a number of 64 bits with a fraction


@dataclass(frozen=True, slots=True, eq=False)
class _Numbers:
    """What a mask stores: whole numbers ``(H, W)``, or colours ``uint8 (H, W, 3)``.

    ``table`` holds the colours of indices, if they have any; ``step`` is what 1 is shown as in grey of few bits.
    """

    pixels: NDArray[Any]
    table: Sequence[Sequence[int]] | None
    step: int


def decode_mask(
    data: bytes,
    name: str,
    palette: Palette | None = None,
    ignore_index: int = IGNORE_INDEX,
    values: Mapping[int, int] | None = None,
    *,
    classes: Sequence[str] = (),
    nearest: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> NDArray[np.uint8]:
    """Decode a mask to class indices. Whether they are classes of the data set is the audit's question.

    A mask is turned as its picture would be by the same orientation. The pixels of a palette PNG or TIFF are indices,
    whatever their colours are; those of a GIF are colours. Three channels are colours to be looked up in ``palette``;
    without one they have to be equal, and are then one channel. One channel is looked up in ``values``, or as grey in
    ``palette``; without either it holds class indices.

    Args:
        data: The whole file, of a lossless kind, or an array as `hsl.data.files.kinds.arrays` reads them.
        name: What an error calls the file.
        palette: Colour ``(red, green, blue)`` -> class index.
        ignore_index: The index on disk that becomes 255.
        values: Number on disk -> class index.
        classes: Names of the classes, for what an error advises.
        nearest: Whether the mask may be blurred, or be a JPEG: each pixel is of the class of the nearest colour of
            ``palette``, or number of ``values``.
        max_megapixels: A larger mask is refused before it is decoded.

    Returns:
        ``uint8 (H, W)``.

    Raises:
        DataError: The file is broken, too large, or its coding may change numbers; a number is not whole or has no
            class; a colour is not in the palette, or the colours of a palette PNG contradict ``palette``.
    """
    stored = _read(data, name, max_megapixels, lossy=nearest)
    pixels = stored.pixels
    if nearest and stored.table is None:
        return indices_of_nearest(
            pixels, palette or {(number, number, number): i for number, i in (values or {}).items()}
        )
    if palette is not None and stored.table is not None:
        check_colour_table(stored.table, pixels, name, palette)
        return indices_of_numbers(pixels, name, ignore_index, classes)
    if palette is not None and pixels.ndim == 3:
        return indices_of_colours(pixels, name, palette)
    if palette is not None:
        return indices_of_grey(pixels * np.uint8(stored.step) if stored.step > 1 else pixels, name, palette)
    if pixels.ndim == 3:
        pixels = one_channel(pixels, name)
    if values is not None:
        return indices_of_values(pixels, name, values, stored.step)
    return indices_of_numbers(pixels, name, ignore_index, classes)


def decode_presence(
    data: bytes, name: str, nearest: bool = False, max_megapixels: float = MAX_MEGAPIXELS
) -> NDArray[np.bool_]:
    """Decode a mask of one class: shown is what is not 0, or black.

    Args:
        data: The whole file, as in `decode_mask`.
        name: What an error calls it.
        nearest: Whether it may be blurred: shown is what is nearer to 255 than to 0.
        max_megapixels: A larger file is refused before it is decoded.

    Returns:
        ``(H, W)``.

    Raises:
        DataError: The file is broken, too large, or its coding may change numbers.
    """
    pixels = _read(data, name, max_megapixels, lossy=nearest).pixels
    shown: NDArray[np.bool_] = pixels > 127 if nearest else pixels != 0
    return np.asarray(shown.any(axis=2)) if shown.ndim == 3 else shown


@dataclass(frozen=True, slots=True, eq=False)
class MaskContent:
    """The different numbers or colours of a mask, most of them; ``lossy`` is whether its coding may change them."""

    numbers: tuple[int, ...]
    colours: tuple[tuple[int, int, int], ...]
    lossy: bool


def mask_content(data: bytes, name: str, max_megapixels: float = MAX_MEGAPIXELS) -> MaskContent:
    """What a mask holds, before anything is known of its classes; three equal channels are numbers.

    Raises:
        DataError: The file is broken or too large, or holds something else.
    """
    pixels = _read(data, name, max_megapixels, lossy=True).pixels
    lossy = not is_array_file(data) and not read_header(data, name).lossless
    spread = 16 if lossy else 0
    if pixels.ndim == 3 and (np.ptp(pixels.astype(np.int16), axis=2) <= spread).all():
        pixels = pixels[..., 0]
    if pixels.ndim == 2:
        return MaskContent(tuple(np.unique(pixels)[:_MOST_LISTED].tolist()), (), lossy)
    colours = np.unique(pixels.reshape(-1, 3), axis=0)[:_MOST_LISTED].tolist()
    return MaskContent((), tuple((red, green, blue) for red, green, blue in colours), lossy)


def decode_instances(data: bytes, name: str, max_megapixels: float = MAX_MEGAPIXELS) -> NDArray[np.integer[Any]]:
    """Decode a map of object ids, 0 = no object.

    Returns:
        ``(H, W)``.

    Raises:
        DataError: the file is broken, too large or its coding may change numbers; it holds colours, or numbers that are
            negative or not whole.
    """
    ids = _read(data, name, max_megapixels).pixels
    if ids.ndim != 2:
        raise DataError(f"`{name}` should hold one id per pixel. Found {ids.dtype} {ids.shape}. Store it as grey PNG.")
    if ids.size and ids.min() < 0:
        raise DataError(f"`{name}` should hold ids of at least 0. Found {ids.min()}. Number the objects from 1.")
    return ids


def _read(data: bytes, name: str, max_megapixels: float, lossy: bool = False) -> _Numbers:
    if is_array_file(data):
        return _Numbers(whole_numbers(array_of(data, name, max_megapixels), name), None, 1)
    header = read_header(data, name)
    check_size(header, name, max_megapixels)
    if header.frames > 1:
        raise DataError(
            f"`{name}` should be one mask. Found several pages or frames. Export the one that belongs to the picture."
        )
    if not header.lossless:
        if lossy:
            return _Numbers(read_stored(data, name, max_megapixels).to_rgb(name), None, 1)
        raise DataError(f"`{name}` is a {_LOSSY[header.kind]}, which blurs class indices. {_INSTEAD}")
    pixels, table = _read_tiff(data, name) if header.kind == "TIFF" else _read_other(data, name, header)
    if pixels.ndim == 3:
        pixels = _without_alpha(pixels, name)
    step = 255 // (2**header.depth - 1) if header.depth in (1, 2, 4) else 1
    return _Numbers(whole_numbers(pixels, name), table, step)


def _read_other(data: bytes, name: str, header: Header) -> tuple[NDArray[Any], Sequence[Sequence[int]] | None]:
    if header.kind == "PNG":
        check_png(data, name)
        if header.depth == 16 and not header.grey:  # Pillow would keep the upper half of each number only
            raise DataError(f"`{name}` holds colours, or grey with alpha, of 16 bits. Store 8 bits per channel.")
    if header.kind == "NETPBM":
        return netpbm_numbers(data, name), None
    picture = pillow_picture(data, name, header.kind)
    if header.kind == "GIF":  # whoever writes one sorts the colours anew, so an index means nothing
        return np.asarray(picture.convert("RGB")), None
    pixels = turned_upright(np.asarray(picture), header.orientation)
    if header.kind == "PNG" and header.grey and header.depth in (2, 4):  # Pillow stretches these to 0..255
        pixels = pixels // (255 // (2**header.depth - 1))
    return pixels, np.reshape(picture.getpalette("RGB") or [], (-1, 3)).tolist() if picture.mode == "P" else None


def _read_tiff(data: bytes, name: str) -> tuple[NDArray[Any], Sequence[Sequence[int]] | None]:
    with first_page(data, name) as (_, page):
        if page.compression not in LOSSLESS:
            raise DataError(
                f"`{name}` is compressed by {getattr(page.compression, 'name', page.compression)}, which may change "
                "class indices. Store masks as PNG, or as TIFF with deflate or LZW."
            )
        if page.photometric == WHITE_IS_ZERO:
            raise DataError(
                f"`{name}` says that 0 is white (photometric MINISWHITE), so its numbers can be read in two ways. "
                "Store it as PNG, or as TIFF in which 0 is black."
            )
        if page.photometric not in (BLACK_IS_ZERO, RGB, PALETTE):
            kind = getattr(page.photometric, "name", page.photometric)
            raise DataError(f"`{name}` holds colours as {kind}. Store masks as grey, palette or RGB.")
        pixels = stored_numbers(data, page, name)
        if pixels.ndim == 3 and pixels.shape[2] >= 3 and pixels.dtype != np.uint8:
            raise DataError(f"`{name}` holds colours of {pixels.dtype}. Store 8 bits per channel.")
        if page.photometric != PALETTE or page.colormap is None:
            return pixels, None
        return pixels, (page.colormap >> 8).T.tolist()


def _without_alpha(pixels: NDArray[Any], name: str) -> NDArray[Any]:
    if pixels.shape[2] > 4:
        raise DataError(f"`{name}` should have one channel, or three of colour. Found shape {pixels.shape}.")
    if pixels.shape[2] == 3:
        return pixels
    shown, alpha = pixels[..., :-1], pixels[..., -1]
    if pixels.size and (alpha != alpha[0, 0]).any() and (shown == shown[0, 0]).all():
        raise DataError(f"`{name}` has its shapes in the alpha channel. Store that channel as grey PNG.")
    return shown if shown.shape[2] == 3 else shown[..., 0]


def whole_numbers(pixels: NDArray[Any], name: str) -> NDArray[Any]:
    """Whole numbers; those that are stored as floating point have to be whole.

    Raises:
        DataError: They are not, or no numbers at all.
    """
    if pixels.dtype.kind in "iu":
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8)
    if pixels.dtype.kind != "f":
        raise DataError(f"`{name}` should hold whole numbers. Found {pixels.dtype}. Store the mask as grey PNG.")
    wrong = ~np.isfinite(pixels) | (pixels != np.rint(pixels)) | (abs(pixels) > _MOST_EXACT)
    if wrong.any():
        raise DataError(
            f"`{name}` should hold whole numbers. Found {pixels[wrong][0]:g} (in all {wrong.sum()} such pixels). Store "
            "class indices, and 255 where nothing is known."
        )
    return pixels.astype(np.int64)
