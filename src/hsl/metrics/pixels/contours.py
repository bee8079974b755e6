"""Contours of one picture on the host, and where two masks disagree in them. No torch."""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX

WIDTH_RATIO = 0.02
Mask = NDArray[np.uint8]
Flags = NDArray[np.bool_]


def boundary_width(height: int, width: int, ratio: float = WIDTH_RATIO) -> int:
    """The distance d in pixels: a share of the picture's diagonal, at least 1.

    Example:
        >>> boundary_width(512, 512)
        14
    """
    return max(1, round(ratio * math.hypot(height, width)))


def contour_errors(prediction: Mask, truth: Mask, num_classes: int) -> Mask:
    """Where the contours agree, by the rule of boundary F1 with d = 2 % of the diagonal.

    Args:
        prediction: class indices ``(H, W)``.
        truth: the same, with ``IGNORE_INDEX``.
        num_classes: C.

    Returns:
        ``uint8 (H, W)``: 1 a contour pixel of truth or prediction within d of the other's contour of the same
        class, 2 a predicted contour pixel that is not, 3 a true one that is not, 0 elsewhere.
    """
    width = boundary_width(*truth.shape)
    predicted = np.where(truth == IGNORE_INDEX, truth, prediction)
    of_truth, of_prediction = _contours(truth), _contours(predicted)
    hit_true, hit_predicted = np.zeros_like(of_truth), np.zeros_like(of_truth)
    for index in range(num_classes):
        true, other = of_truth & (truth == index), of_prediction & (predicted == index)
        hit_true |= true & dilated(other, width)
        hit_predicted |= other & dilated(true, width)
    errors = (hit_true | hit_predicted).astype(np.uint8)
    errors[of_prediction & ~hit_predicted] = 2
    errors[of_truth & ~hit_true] = 3
    return errors


def dilated(flags: Flags, radius: int) -> Flags:
    """Whether any flag lies within a chessboard distance of ``radius``."""
    if not flags.any():
        return flags
    window = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    return np.asarray(cv2.dilate(flags.astype(np.uint8), window) > 0)


def _contours(classes: Mask) -> Flags:
    """Pixels with a neighbour (of eight) of another class; pixels with ``IGNORE_INDEX`` make no contour."""
    valid = classes != IGNORE_INDEX
    result: Flags = np.zeros_like(valid)
    for first, second in neighbours(classes.shape):
        differ = (classes[first] != classes[second]) & valid[first] & valid[second]
        result[first] |= differ
        result[second] |= differ
    return result


def neighbours(shape: Any) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Views that lay each pixel beside its right, lower, lower right and lower left neighbour."""
    height, width = shape
    up, down, left, right = slice(0, height - 1), slice(1, height), slice(0, width - 1), slice(1, width)
    every = slice(None)
    return [
        ((every, left), (every, right)),
        ((up, every), (down, every)),
        ((up, left), (down, right)),
        ((up, right), (down, left)),
    ]
