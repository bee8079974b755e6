"""Overlapping channels as codes: a pixel may show several, and bit k of its value says whether channel k is there.

The classes of such data are ``absent`` and the channels, in this order: channel k is class k + 1. 255 stays ignored.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX

MAX_CHANNELS = 7
"""So that every code lies below 255."""
ABSENT, PRESENT = "absent", "present"
"""The class of a pixel in a channel that it does not show; what a file of a channel calls one that it does."""
CHANNEL_VALUES = {0: ABSENT, 128: "ignore", 255: PRESENT}
"""What the numbers mean in a mask that is written for one channel."""


def holds(num_channels: int) -> NDArray[np.bool_]:
    """``bool (256, K)``: whether a value of a mask shows a channel; 255 shows none.

    Example:
        >>> holds(2)[[0, 1, 2, 3, 255]].astype(int).tolist()
        [[0, 0], [1, 0], [0, 1], [1, 1], [0, 0]]
    """
    table = np.arange(256)[:, None] >> np.arange(num_channels) & 1 > 0
    table[2**num_channels :] = False
    return table


def pack(channels: Sequence[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """Codes ``uint8 (H, W)`` of K maps ``bool (H, W)`` that say where each channel is.

    Example:
        >>> pack([np.array([[True, False]]), np.array([[True, True]])]).tolist()
        [[3, 2]]
    """
    codes = np.zeros(channels[0].shape, np.uint8)
    for bit, present in enumerate(channels):
        codes |= present.astype(np.uint8) << np.uint8(bit)
    return codes


def channel_mask(codes: NDArray[np.uint8], bit: int) -> NDArray[np.uint8]:
    """Where a channel is, in the numbers of `CHANNEL_VALUES`: what is written to a file of its own.

    Example:
        >>> channel_mask(np.array([[0, 1, 3, 255]], np.uint8), 1).tolist()
        [[0, 0, 255, 128]]
    """
    mask = np.where(codes >> np.uint8(bit) & 1, np.uint8(255), np.uint8(0))
    return np.where(codes == IGNORE_INDEX, np.uint8(128), mask)


def code_names(classes: Sequence[str]) -> list[str]:
    """What each code is called, from the classes ``absent`` and channels.

    Example:
        >>> code_names(["absent", "leaf", "spot"])
        ['absent', 'leaf', 'spot', 'leaf + spot']
    """
    channels = classes[1:]
    named = (" + ".join(np.array(channels)[row].tolist()) for row in holds(len(channels))[: 2 ** len(channels)])
    return [name or classes[0] for name in named]


def num_values(num_classes: int, overlapping: bool) -> int:
    """How many values a mask may have, from 0 on, besides 255."""
    return 2 ** (num_classes - 1) if overlapping else num_classes


def shown_classes(values: Sequence[int], classes: Sequence[str], overlapping: bool) -> list[str]:
    """The classes that the values of a mask show, in their order.

    Example:
        >>> shown_classes([0, 2, 6], ["absent", "leaf", "spot", "rim"], overlapping=True)
        ['absent', 'spot', 'rim']
    """
    if not overlapping:
        return [classes[value] for value in values]
    channels = np.flatnonzero(holds(len(classes) - 1)[list(values)].any(axis=0)) + 1
    return [classes[index] for index in [*([0] if 0 in values else []), *channels]]


def class_pixels(histogram: NDArray[Any], num_classes: int, overlapping: bool) -> NDArray[Any]:
    """Pixels of each class ``(..., C)`` from those of each value of a mask ``(..., 256)``; ignored ones are left out.

    Of overlapping channels a pixel counts once in each channel that it shows; class 0 has, over all channels, the
    pixels that do not show them.

    Example:
        >>> class_pixels(np.bincount([0, 3, 3, 2, 255], minlength=256), 3, overlapping=True).tolist()
        [3, 2, 3]
    """
    if not overlapping:
        return histogram[..., :num_classes]
    present = histogram @ holds(num_classes - 1).astype(np.int64)
    valid = histogram[..., : num_values(num_classes, overlapping)].sum(axis=-1, keepdims=True)
    counted: NDArray[Any] = np.concatenate([(valid - present).sum(axis=-1, keepdims=True), present], axis=-1)
    return counted
