"""What the first bytes of a picture say: its kind, its size, how it is to be turned. Nothing is decoded."""

import contextlib
import operator
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hsl.data.bands.npy import NPY, npy_shape
from hsl.data.files.kinds import heif, jpeg2000, netpbm
from hsl.data.files.tiff_pages import first_page, num_pages, open_with_pillow, quiet_pillow
from hsl.errors import DataError, UserError

MAX_MEGAPIXELS = 300.0
"""Unless ``data.max_megapixels`` says otherwise."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GIF = (b"GIF87a", b"GIF89a")
_KINDS = "PNG, JPEG, TIFF, WebP, BMP, GIF, JPEG 2000 or PPM"
_OTHERS = (
    (0, b"\xff\x0a", "JPEG XL"), (0, b"\0\0\0\x0cJXL ", "JPEG XL"), (4, b"ftyp", "AVIF or a video"),
    (0, b"8BPS", "Photoshop"),
    (0, b"%PDF", "PDF"), (0, b"<svg", "SVG"), (0, b"PK\x03\x04", "a ZIP archive"), (0, b"\x1f\x8b", "gzip"),
    (0, b"v/1\x01", "OpenEXR"), (128, b"DICM", "DICOM"), (0, b"\x89HDF", "HDF5"),
)  # fmt: skip
_SAMPLES_OF_PNG = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_ORIENTATION = 274
_WHOLE = {1: "B", 3: "H", 4: "I"}  # kinds of whole numbers in EXIF
_COUNTED_BITS = 32  # a pixel of more counts as several
_INFLATED_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of a picture before it is decoded.

    Attributes:
        kind: ``PNG``, ``JPEG``, ``TIFF``, ``WEBP``, ``BMP``, ``GIF``, ``JPEG2000``, ``NETPBM``, ``HEIF`` or ``NPY``.
        height: Pixels as they are stored, before the picture is turned.
        width: The same.
        bits: Of a pixel, all channels together.
        depth: Of a channel.
        grey: Whether it has one channel and no palette.
        orientation: As EXIF counts, 1 to 8; 1 is upright.
        frames: Pages or frames; where they are not counted 2 stands for several.
        lossless: Whether the coding keeps every value.
    """

    kind: str
    height: int
    width: int
    bits: int = 24
    depth: int = 8
    grey: bool = False
    orientation: int = 1
    frames: int = 1
    lossless: bool = True


def read_header(data: bytes, name: str) -> Header:
    """Read the header of a picture.

    Raises:
        DataError: The file is empty, damaged, or of another kind.
    """
    try:
        header = _header(data, name)
    except (struct.error, LookupError, OSError, SyntaxError, ValueError, zlib.error) as error:
        if isinstance(error, UserError):
            raise
        raise broken(data, name) from error
    if header is None:
        for offset, magic, kind in _OTHERS:
            if data[offset : offset + len(magic)] == magic:
                raise DataError(f"`{name}` should be {_KINDS}. Found {kind}. Convert it to PNG.")
        raise broken(data, name)
    if min(header.height, header.width) < 1:
        raise broken(data, name)
    return header


def broken(data: bytes, name: str) -> DataError:
    """The error of a file that is no picture at all."""
    what = "is not a picture that can be read, or is cut off" if data else "is empty"
    return DataError(f"`{name}` {what}. Restore the file or remove it.")


def check_size(header: Header, name: str, max_megapixels: float) -> None:
    """Refuse a picture that would take too much memory, before anything is decoded.

    A pixel of more than 32 bits counts as several.

    Raises:
        DataError: There are too many pixels.
    """
    pixels = header.height * header.width
    counted = pixels / 1e6 * max(1.0, header.bits / _COUNTED_BITS)
    if counted <= max_megapixels:
        return
    wide = f" of {header.bits} bits, which count as {counted:.4g}" if header.bits > _COUNTED_BITS else ""
    needed = pixels * max(6.0, header.bits / 4) / 1e9  # decoded, and once more in the order of channels of RGB
    raise DataError(
        f"`{name}` should have at most {max_megapixels:g} megapixels. Found {header.width} x {header.height} pixels"
        f"{wide}: decoded it takes about {needed:.2g} GB. Cut it into parts, or raise `max_megapixels` "
        "(`data.max_megapixels` in training) if there is so much memory."
    )


def _header(data: bytes, name: str) -> Header | None:
    if data.startswith(_PNG):
        return _png(data)
    if data.startswith(_JPEG):
        return _jpeg(data)
    if data.startswith(_TIFF):
        return tiff_header(data, name)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith(b"BM"):
        return _bmp(data)
    if data.startswith(NPY):
        shape, kind = npy_shape(data, name)
        channels = 1 if len(shape) == 2 else min(shape)  # the side of the channels is the shortest
        height, width = shape[:2] if len(shape) == 2 or shape[2] <= shape[0] else shape[1:]
        return Header("NPY", height, width, 8 * kind.itemsize * channels, 8 * kind.itemsize, channels == 1)
    if data.startswith(_GIF):
        picture = open_with_pillow(data, "GIF")
        with quiet_pillow():
            several = bool(getattr(picture, "is_animated", False))
        return Header("GIF", picture.height, picture.width, 8, frames=1 + several)
    return _met_now_and_then(data, name)


def _met_now_and_then(data: bytes, name: str) -> Header | None:
    if data.startswith(jpeg2000.BEGINNINGS):
        stream = jpeg2000.code_stream(data)
        bits, grey = stream.depth * stream.channels, stream.channels == 1
        return Header("JPEG2000", stream.height, stream.width, bits, stream.depth, grey, lossless=False)
    if data.startswith(netpbm.BEGINNINGS):
        found = netpbm.netpbm_header(data)
        depth = found.largest.bit_length()
        return Header("NETPBM", found.height, found.width, depth * found.channels, depth, found.channels == 1)
    if heif.is_heif(data):
        return Header("HEIF", *heif.heif_size(data, name), lossless=False)
    return None


def _png(data: bytes) -> Header:
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    if data[12:16] != b"IHDR" or colour not in _SAMPLES_OF_PNG:
        raise ValueError("the header of a PNG is missing")
    orientation, frames = 1, 1
    for kind, start, length in _png_chunks(data):
        if kind == b"eXIf":
            orientation = _orientation(data[start : start + length])
        elif kind == b"acTL":
            (frames,) = struct.unpack(">I", data[start : start + 4])
    bits = depth * _SAMPLES_OF_PNG[colour] if colour != 3 else 24
    return Header("PNG", height, width, bits, depth, colour == 0, orientation, max(1, frames))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and length of what each chunk holds."""
    place = len(_PNG)
    while place + 8 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        yield data[place + 4 : place + 8], place + 8, length
        place += length + 12


def check_png(data: bytes, name: str) -> None:
    """Refuse a PNG with a wrong CRC-32 where it counts, or fewer or more rows than its header says.

    Pillow does not look at the checksums of the pixels; libraries fill up or cut rows without a word.

    Raises:
        DataError: A byte has changed, or the rows are not those of the header.
    """
    if len(data) < 29:
        raise broken(data, name)
    for kind, start, length in _png_chunks(data):
        end = start + length
        if kind[:1].isupper() and zlib.crc32(data[start - 4 : end]).to_bytes(4, "big") != data[end : end + 4]:
            raise DataError(f"`{name}` is damaged: a checksum in it does not match. Restore the file or remove it.")
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    bits = depth * _SAMPLES_OF_PNG[colour]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    expected = sum(h * (1 + -(-w * bits // 8)) for w, h in sizes if w > 0 and h > 0)
    row = 1 + -(-width * bits // 8)
    found = _inflated_length([data[start : start + length] for kind, start, length in _png_chunks(data)
                              if kind == b"IDAT"], expected + row)  # fmt: skip
    if found < expected or found >= expected + row:
        raise DataError(
            f"`{name}` should have {height} rows of {width} pixels, as its header says. Found "
            f"{'fewer' if found < expected else 'more'}. Restore the file or remove it."
        )


def _inflated_length(parts: list[bytes], enough: int) -> int:
    """Bytes that the parts inflate to; counted up to ``enough``."""
    inflate, length = zlib.decompressobj(), 0
    for part in parts:
        rest = part
        while rest and length < enough:
            try:
                length += len(inflate.decompress(rest, _INFLATED_AT_ONCE))
            except zlib.error:
                return length
            rest = inflate.unconsumed_tail
    return length + (len(inflate.flush()) if length < enough else 0)


def _jpeg(data: bytes) -> Header:
    place, orientation, header = 2, 1, None
    while header is None or data[place + 1] not in (0xD9, 0xDA):  # up to the first scan
        while data[place + 1] == 0xFF:
            place += 1
        marker = data[place + 1]
        if data[place] != 0xFF or marker in (0xD9, 0xDA):
            raise ValueError("the header of a JPEG has no size")
        if marker == 1 or 0xD0 <= marker <= 0xD7:
            place += 2
            continue
        (length,) = struct.unpack(">H", data[place + 2 : place + 4])
        if marker == 0xE1 and data[place + 4 : place + 10] == b"Exif\0\0" and orientation == 1:
            orientation = _orientation(data[place + 10 : place + 2 + length])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            depth, height, width, samples = struct.unpack(">BHHB", data[place + 4 : place + 10])
            header = height, width, depth * samples, depth, samples == 1
        place += 2 + length
    return Header("JPEG", *header, orientation=orientation, lossless=False)


def tiff_header(data: bytes | Path, name: str) -> Header:
    """The same of a TIFF, or of one at a place, of which the pixels are not read."""
    with first_page(data, name) as (file, page):
        numbers = page.imagelength, page.imagewidth, page.bitspersample, page.samplesperpixel
        height, width, depth, samples = map(operator.index, numbers)  # of a damaged file they may be anything
        orientation = int(page.tags.valueof(_ORIENTATION, 1))
        return Header("TIFF", height, width, depth * samples, depth, samples == 1, orientation, num_pages(file))


def _webp(data: bytes) -> Header:
    size, orientation, lossless, frames = None, 1, True, 0
    place = 12
    while place + 8 <= len(data):
        kind, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        content = data[place + 8 : place + 8 + min(length, 64)]
        if kind == b"VP8X":
            size = 1 + int.from_bytes(content[4:7], "little"), 1 + int.from_bytes(content[7:10], "little")
        elif kind in (b"VP8 ", b"VP8L"):
            size, lossless, frames = size or _webp_size(kind, content), lossless and kind == b"VP8L", frames + 1
        elif kind == b"ANMF":  # a frame of its own: 16 bytes of place, then perhaps alpha, then the picture
            lossless, frames = lossless and b"VP8 " not in content[16:20] and b"ALPH" not in content[16:20], frames + 1
        elif kind == b"EXIF":
            orientation = _orientation(data[place + 8 : place + 8 + length])
        place += 8 + length + length % 2
    if size is None or not frames:
        raise ValueError("the header of a WebP has no size")
    return Header("WEBP", size[1], size[0], 32, orientation=orientation, frames=frames, lossless=lossless)


def _webp_size(kind: bytes, content: bytes) -> tuple[int, int]:
    if kind == b"VP8L":
        packed = int.from_bytes(content[1:5], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", content[6:10])
    return width & 0x3FFF, height & 0x3FFF


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack("<I", data[14:18])
    if size == 12:
        width, height, _, bits = struct.unpack("<HHHH", data[18:26])
    else:
        width, height, _, bits = struct.unpack("<iiHH", data[18:30])
    return Header("BMP", abs(height), abs(width), max(bits, 1), depth=1 if bits == 1 else 8)


def _orientation(block: bytes) -> int:
    """Of an EXIF block; 1 where it says none, or nonsense."""
    content, found = block.removeprefix(b"Exif\0\0"), 1
    with contextlib.suppress(struct.error, LookupError):  # of one that is cut off, what came before counts
        order = {b"II": "<", b"MM": ">"}[content[:2]]
        (place,) = struct.unpack(f"{order}I", content[4:8])
        (entries,) = struct.unpack(f"{order}H", content[place : place + 2])
        for start in range(place + 2, place + 2 + 12 * entries, 12):
            tag, kind, number, value = struct.unpack(f"{order}HHI4s", content[start : start + 12])
            if tag == _ORIENTATION and kind in _WHOLE and number == 1:
                (found,) = struct.unpack_from(order + _WHOLE[kind], value)
    return found if found in range(1, 9) else 1
