"""JPEG 2000, as a file of boxes (jp2) or as a bare stream of code (j2k)."""

import struct
from dataclasses import dataclass

BEGINNINGS = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
_STREAM = b"\xff\x4f\xff\x51"
_END = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class CodeStream:
    """What the marker SIZ says; ``whole`` is whether the stream has its end."""

    height: int
    width: int
    channels: int
    depth: int
    whole: bool


def code_stream(data: bytes) -> CodeStream:
    """Read the marker SIZ (ISO/IEC 15444-1, A.5.1).

    Raises:
        ValueError: There is none.
        struct.error: It is cut off.
    """
    start = data.find(_STREAM)
    if start < 0:
        raise ValueError("there is no code stream")
    right, bottom, left, top = struct.unpack(">IIII", data[start + 8 : start + 24])
    channels, depth = struct.unpack(">HB", data[start + 40 : start + 43])
    whole = data.rstrip(b"\0").rfind(_END) > start
    return CodeStream(bottom - top, right - left, channels, (depth & 0x7F) + 1, whole)
