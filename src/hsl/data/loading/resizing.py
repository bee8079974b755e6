"""How a picture gets to the size that a network sees. Without torch: an exported model does it too."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_MOST_AT_ONCE = 4  # channels that OpenCV averages


def resize(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """``(H, W, C)`` -> ``(*size, C)``: averaged along a side that shrinks, linear along one that grows."""
    height, width = image.shape[:2]
    if image.ndim == 3 and image.shape[2] > _MOST_AT_ONCE:
        parts = [image[..., start : start + _MOST_AT_ONCE] for start in range(0, image.shape[2], _MOST_AT_ONCE)]
        sized = [resize(np.ascontiguousarray(part), size) for part in parts]
        return np.concatenate([part.reshape(*size, -1) for part in sized], axis=2)
    shrunk = min(height, size[0]), min(width, size[1])
    if shrunk != (height, width):
        image = cv2.resize(image, shrunk[::-1], interpolation=cv2.INTER_AREA)
    if shrunk != tuple(size):
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    return image
