"""Run lengths as annotation tools write them: COCO's counts, plain and as text, and the brush of Label Studio."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.data.annotations.shapes import Runs

_LONGEST = 2**40


def coco_runs(segmentation: Any) -> Runs:
    """The runs of ``{"size": [height, width], "counts": ...}``, down the columns; counts are numbers, or text.

    Raises:
        ValueError: The size or the counts are none, or the counts do not fill the size.

    Example:
        >>> np.frombuffer(coco_runs({"size": [2, 3], "counts": "132"}).counts, np.int64).tolist()
        [1, 3, 2]
    """
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(end) is int and 0 < end < 2**31 for end in size)):
        raise ValueError(f"`size` of run lengths should be height and width, found {size!r:.60}")
    numbers = _of_text(counts) if isinstance(counts, str) else counts_of(counts)
    total, pixels = int(numbers.sum()), size[0] * size[1]
    if total != pixels:
        raise ValueError(f"run lengths should fill {size[0]} x {size[1]} = {pixels} pixels, found {total}")
    return Runs(numbers.tobytes(), size[0], size[1], down=True)


def brush_mask(packed: Any, height: int, width: int) -> NDArray[np.bool_]:
    """The pixels of a brush of Label Studio, whose run lengths are those of the bytes of an RGBA picture.

    A stream of bits: how many bytes follow (32 bits), the bits of a byte less 1 (5), four times the bits of a length
    less 1 (4 each), then blocks: whether it is a run (1), which of the four widths its length has (2), the length less
    1, and one byte, or as many as the length says.

    Args:
        packed: The bytes, as a list of numbers.
        height: Of the picture.
        width: The same.

    Returns:
        ``bool (H, W)``: where alpha is above 0.

    Raises:
        ValueError: They are no such stream, or of another size.
    """
    numbers = counts_of(packed)
    if numbers.size < 8 or numbers.max() > 255:
        raise ValueError("the bytes of a brush should be whole numbers up to 255, at least 8")
    bits = np.unpackbits(numbers.astype(np.uint8))
    place = 0

    def number(length: int) -> int:
        nonlocal place
        if place + length > bits.size:
            raise ValueError("the run lengths of a brush are cut off")
        value = int("".join(map(str, bits[place : place + length].tolist())), 2)
        place += length
        return value

    total = number(32)
    if total != height * width * 4:
        raise ValueError(f"a brush should have {height} x {width} pixels of 4 bytes, found {total} bytes")
    word = number(5) + 1
    widths = [number(4) + 1 for _ in range(4)]
    values = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        is_run, length = number(1), number(widths[number(2)]) + 1
        if done + length > total:
            raise ValueError("the run lengths of a brush are longer than the picture")
        if is_run:
            values[done : done + length] = number(word)
        else:
            if place + length * word > bits.size:
                raise ValueError("the run lengths of a brush are cut off")
            block = bits[place : place + length * word].reshape(length, word)
            values[done : done + length] = block @ (1 << np.arange(word)[::-1])
            place += length * word
        done += length
    return values.reshape(height, width, 4)[..., 3] > 0


def counts_of(counts: Any) -> NDArray[np.int64]:
    """Run lengths of a list.

    Raises:
        ValueError: They are no whole numbers from 0.
    """
    numbers = np.array(counts) if isinstance(counts, list) else None
    if numbers is None or numbers.ndim != 1 or (numbers.size and numbers.dtype.kind != "i"):
        raise ValueError("run lengths should be whole numbers")
    if numbers.size and (numbers.min() < 0 or numbers.max() >= _LONGEST):
        raise ValueError(f"run lengths should be at least 0, found {numbers.min()}, and in a picture")
    return numbers.astype(np.int64)


def _of_text(text: str) -> NDArray[np.int64]:
    """COCO's text: five bits a letter, the least first, and a sixth where the number goes on in the next letter."""
    letters = np.frombuffer(text.encode("utf8", "replace"), np.uint8).astype(np.int64) - 48
    if letters.size and (letters.min() < 0 or letters.max() > 63):
        raise ValueError("run lengths as text should hold the letters `0` to `o` alone")
    ends = np.flatnonzero(letters & 32 == 0)
    if letters.size and (not ends.size or ends[-1] != letters.size - 1):
        raise ValueError("run lengths as text are cut off")
    starts = np.concatenate([[0], ends[:-1] + 1]) if ends.size else ends
    if ends.size and (ends - starts).max() > 8:
        raise ValueError("run lengths as text hold a number of more than 45 bits")
    within = np.arange(letters.size) - np.repeat(starts, ends - starts + 1)
    numbers: NDArray[np.int64] = (
        np.add.reduceat((letters & 31) << 5 * within, starts) if ends.size else np.zeros(0, np.int64)
    )
    negative = letters[ends] & 16 != 0
    numbers = numbers - (negative.astype(np.int64) << 5 * (ends - starts + 1))
    for parity in (1, 2):  # from the fourth on each is less the one two before it
        numbers[parity::2] = np.cumsum(numbers[parity::2])
    if numbers.size and (numbers.min() < 0 or numbers.max() >= _LONGEST):
        raise ValueError("run lengths as text should be at least 0, and in a picture")
    return numbers
