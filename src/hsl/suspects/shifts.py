"""Masks that lie beside their picture: the move of a mask by which it agrees best with what models predict."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.suspects.scores import Evidence, Floats

SIDE = 256
"""Pixels of the longer side at which moves are tried."""
RANGE = 0.12
"""The farthest move, as a share of the shorter side."""
LEAST_GAIN = 0.15
"""Share of the disagreement that a move must take away."""


@dataclass(frozen=True)
class Shift:
    """A better place of a mask.

    Attributes:
        down, right: pixels by which the mask is to be moved.
        before, after: soft Dice overlap of the foreground with the prediction, as the mask lies and moved.
    """

    down: int
    right: int
    before: float
    after: float

    @property
    def gain(self) -> float:
        """The share of the disagreement that the move takes away."""
        return (self.after - self.before) / max(1 - self.before, 1e-9)

    @property
    def score(self) -> float:
        """The gain times the overlap that is reached."""
        return self.after * self.gain


def best_shift(evidence: Evidence) -> Shift | None:
    """The move by which a mask agrees best with the mean of the models; none where no move is clearly better.

    All moves up to `RANGE` are tried at once, by the Fourier transforms of both at a size of at most `SIDE`: overlap
    ``2 sum_c sum_x m_c(x - s) p_c(x) / (sum m + sum p)`` over the classes but the first. Moves that win less than
    `LEAST_GAIN`, and those of less than two pixels of that size, do not count.
    """
    classes = evidence.mean.shape[0]
    height, width = evidence.mask.shape
    scale = min(1.0, SIDE / max(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    far = max(2, round(RANGE * min(small)))
    shape = (small[1] + far, small[0] + far)
    product: NDArray[np.complex128] | float = 0.0
    total = 0.0
    for index in range(1, classes):
        truth = _shrunk((evidence.mask == index).astype(np.float32), small)
        seen = _shrunk(np.where(evidence.known, evidence.mean[index], 0).astype(np.float32), small)
        total += float(truth.sum() + seen.sum())
        product = product + np.conj(np.fft.rfft2(truth, shape)) * np.fft.rfft2(seen, shape)
    if total <= 0:
        return None
    overlap: Floats = 2 * np.fft.irfft2(product, shape) / total
    window = np.roll(overlap, (far, far), axis=(0, 1))[: 2 * far + 1, : 2 * far + 1]
    down, right = (int(place) - far for place in np.unravel_index(window.argmax(), window.shape))
    before, after = float(window[far, far]), float(window.max())
    shift = Shift(round(down / scale), round(right / scale), before, after)
    return shift if shift.gain >= LEAST_GAIN and max(abs(down), abs(right)) >= 2 else None


def moved(mask: NDArray[np.uint8], down: int, right: int) -> NDArray[np.uint8]:
    """A mask moved by whole pixels; what comes in is background.

    >>> moved(np.array([[1, 2], [3, 4]], np.uint8), 1, 0).tolist()
    [[0, 0], [1, 2]]
    """
    result = np.zeros_like(mask)
    height, width = mask.shape
    result[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = mask[
        max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return result


def _shrunk(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), dtype=np.float32)
