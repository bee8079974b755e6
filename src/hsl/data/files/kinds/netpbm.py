"""PBM, PGM and PPM: grey or colours as plain numbers, of 1 to 16 bits.

Pillow and OpenCV stretch numbers to 255, which a mask cannot stand; so they are read here as they are stored.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.errors import DataError

BEGINNINGS = tuple(f"P{number}".encode() + blank for number in range(1, 7) for blank in (b"\n", b" ", b"\r", b"\t"))
_SPACE = rb"(?:\s|#[^\n]*\n)+"
_BITMAP = re.compile(rb"P([14])" + _SPACE + rb"(\d{1,9})" + _SPACE + rb"(\d{1,9})\s")
_NUMBERS = re.compile(rb"P([2356])" + _SPACE + rb"(\d{1,9})" + _SPACE + rb"(\d{1,9})" + _SPACE + rb"(\d{1,5})\s")
_LONGEST = 4096  # bytes of a header, comments included


@dataclass(frozen=True, slots=True)
class NetpbmHeader:
    """Of a file: ``plain`` numbers are written as text; ``largest`` is what white is stored as."""

    height: int
    width: int
    channels: int
    largest: int
    plain: bool
    start: int


def netpbm_header(data: bytes) -> NetpbmHeader:
    """Read the header.

    Raises:
        ValueError: It is damaged.
    """
    head = data[:_LONGEST]
    found = _BITMAP.match(head) or _NUMBERS.match(head)
    if found is None:
        raise ValueError("the header of a netpbm file is damaged")
    kind, width, height, *rest = map(int, found.groups())
    largest = rest[0] if rest else 1
    if not 0 < largest < 2**16:
        raise ValueError("the largest number of a netpbm file is outside its range")
    return NetpbmHeader(height, width, 3 if kind in (3, 6) else 1, largest, kind < 4, found.end())


def netpbm_numbers(data: bytes, name: str) -> NDArray[Any]:
    """The numbers as they are stored: ``(H, W)`` or RGB ``(H, W, 3)``; in a bitmap 1 is black, as it is stored.

    Raises:
        DataError: The file is cut off, or holds something else than numbers.
    """
    header = netpbm_header(data)
    shape = (header.height, header.width, header.channels)
    wanted = header.height * header.width * header.channels
    numbers: NDArray[Any] | None
    if header.plain:
        numbers = _written(data[header.start :], bitmap=data[:2] == b"P1")
    elif data[:2] == b"P4":
        packed = -(-header.width // 8)
        rows = np.frombuffer(data, np.uint8, offset=header.start)[: packed * header.height]
        whole = rows[: len(rows) - len(rows) % packed].reshape(-1, packed)
        numbers = np.unpackbits(whole, axis=1)[:, : header.width].ravel()
    else:
        stored: np.dtype[Any] = np.dtype(np.uint8 if header.largest < 256 else ">u2")
        number = min((len(data) - header.start) // stored.itemsize, wanted)
        numbers = np.frombuffer(data, stored, number, header.start).astype(stored.newbyteorder("="))
    if numbers is None or numbers.size < wanted:
        raise DataError(f"`{name}` is cut off or damaged. Restore the file or remove it.")
    array = numbers[:wanted].reshape(shape)
    return array if header.channels == 3 else array[..., 0]


def _written(text: bytes, bitmap: bool) -> NDArray[np.uint16] | None:
    """Numbers that are written as text; those of a bitmap need no blanks between them."""
    without = re.sub(rb"#[^\n]*", b"", text)
    words = re.findall(rb"[01]", without) if bitmap else without.split()
    try:
        return np.array(words, np.bytes_).astype(np.int64).clip(0, 2**16 - 1).astype(np.uint16)
    except ValueError:
        return None
