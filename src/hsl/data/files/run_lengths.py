"""Masks as run lengths: ``start length start length ...``, down the columns, pixels counted from 1."""

import numpy as np
from numpy.typing import NDArray

_MOST_DIGITS = 15  # far above any picture, and still exact in 64 bits


def read_runs(text: str, num_pixels: int) -> NDArray[np.int64]:
    """Read and check a line of run lengths.

    Args:
        text: Numbers from 1, apart by spaces; none at all is no run.
        num_pixels: Of the picture.

    Returns:
        ``int64 (N, 2)``: the first pixel of each run and the one past its last, counted from 0.

    Raises:
        ValueError: A word is no whole number from 1, a length is missing, or the runs are unsorted, overlap, or leave
            the picture.

    Example:
        >>> read_runs("1 3 10 5", 20).tolist()
        [[0, 3], [9, 14]]
    """
    words = text.split()
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) <= _MOST_DIGITS and int(word)):
            raise ValueError(f"Runs should be whole numbers from 1, apart by spaces. Found {word!r}.")
    if len(words) % 2:
        raise ValueError(f"Runs should be pairs of a start and a length. Found an odd count, {len(words)} numbers.")
    starts, lengths = np.array(words, dtype=np.int64).reshape(-1, 2).T
    starts, ends = starts - 1, starts - 1 + lengths
    backward = np.flatnonzero(starts[1:] < starts[:-1])
    if backward.size:
        first = int(backward[0])
        raise ValueError(f"Runs should be sorted by start. Found {starts[first + 1] + 1} after {starts[first] + 1}.")
    overlapping = np.flatnonzero(starts[1:] < ends[:-1])
    if overlapping.size:
        first = int(overlapping[0])
        raise ValueError(f"Runs should not overlap. Found start {starts[first + 1] + 1} in a run to {ends[first]}.")
    if ends.size and ends[-1] > num_pixels:
        raise ValueError(f"Runs should end in the picture, at pixel {num_pixels} or before. Found the end {ends[-1]}.")
    return np.stack([starts, ends], axis=1)


def decode_runs(text: str, height: int, width: int) -> NDArray[np.bool_]:
    """Run lengths to a mask.

    Args:
        text: As in `read_runs`.
        height: Of the picture in pixels; the second column starts at pixel ``height + 1``.
        width: Of the picture in pixels.

    Returns:
        ``bool (H, W)``, contiguous.

    Raises:
        ValueError: See `read_runs`.

    Example:
        >>> decode_runs("2 1 4 3", height=3, width=2).astype(int).tolist()
        [[0, 1], [1, 1], [0, 1]]
    """
    starts, ends = read_runs(text, height * width).T
    # the change at each pixel; where one run touches the next, the two changes cancel
    change = np.zeros(height * width + 1, dtype=np.int8)
    change[starts] += 1
    change[ends] -= 1
    return np.ascontiguousarray(np.cumsum(change[:-1], dtype=np.int8).astype(np.bool_).reshape(width, height).T)


def encode_runs(mask: NDArray[np.bool_]) -> str:
    """A mask to run lengths, the inverse of `decode_runs`; ``""`` where nothing is set.

    Args:
        mask: ``bool (H, W)``.

    Example:
        >>> encode_runs(np.array([[False, True], [True, True], [False, True]]))
        '2 1 4 3'
    """
    down = np.concatenate([[False], mask.T.ravel(), [False]])
    starts, ends = np.flatnonzero(down[1:] != down[:-1]).reshape(-1, 2).T
    return " ".join(str(number) for number in np.stack([starts + 1, ends - starts], axis=1).ravel().tolist())


def encode_classes(mask: NDArray[np.uint8]) -> dict[int, str]:
    """The run lengths of each class of a mask that has a pixel, by class index; index 0 is the background.

    Args:
        mask: ``uint8 (H, W)`` of class indices.

    Example:
        >>> encode_classes(np.array([[0, 2], [1, 2]], dtype=np.uint8))
        {1: '2 1', 2: '3 2'}
    """
    return {index: encode_runs(mask == index) for index in np.unique(mask).tolist() if index > 0}
