"""Pictures whose models are right, with whatever mask."""

import numpy as np
from numpy.typing import NDArray

from hsl.suspects.scores import Evidence

Mask = NDArray[np.uint8]


def seen(truth: Mask, mask: Mask, classes: int = 3, sure: tuple[float, ...] = (0.95, 0.85)) -> Evidence:
    """Models that see ``truth``, each as surely as told, beside a mask."""
    one_hot = (np.arange(classes)[:, None, None] == truth).astype(float)
    maps = [one * one_hot + (1 - one) / classes for one in sure]
    return Evidence(mask, np.rint(255 * np.clip(maps, 0, 1)).astype(np.uint8))


def blobs(seed: int, size: tuple[int, int] = (64, 96), number: int = 4) -> Mask:
    """Rectangles of the classes 1 and 2."""
    generator = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    for _ in range(number):
        top, left = (int(generator.integers(6, side - 26)) for side in size)
        height, width = generator.integers(8, 20, 2).tolist()
        mask[top : top + height, left : left + width] = generator.integers(1, 3)
    return mask
