"""Masks of 1024x2048 to time the metrics of tier 2 on: truth, and a shifted and block-disturbed copy."""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

NUM_CLASSES = 16
SHIFT = (5, 8)
BLOCKS, SIDE = 60, 64
DATA = Path(os.environ.get("HSL_REAL_DATA", Path(__file__).parents[2] / "shared/data"))
Mask = npt.NDArray[np.uint8]


def mask_pairs() -> Iterator[tuple[Mask, Mask]]:
    """Prediction and truth; source classes are folded onto 16."""
    files = sorted((DATA / "coralscapes_sample" / "gtFine").rglob("*.png"))
    if not files:
        raise FileNotFoundError(f"{DATA / 'coralscapes_sample'} holds no masks: set HSL_REAL_DATA to the data.")
    rng = np.random.default_rng(0)
    for file in files:
        truth = cv2.imread(str(file), cv2.IMREAD_UNCHANGED) % np.uint8(NUM_CLASSES)
        copy = np.roll(truth, SHIFT, (0, 1)).copy()
        for _ in range(BLOCKS):
            top, left = rng.integers(0, truth.shape[0] - SIDE), rng.integers(0, truth.shape[1] - SIDE)
            copy[top : top + SIDE, left : left + SIDE] = rng.integers(0, NUM_CLASSES)
        yield copy, truth
