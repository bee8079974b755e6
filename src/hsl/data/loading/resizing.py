"""How a picture gets to the size that a network sees. Without torch: an exported model does it too."""

from typing import Any

import cv2
from numpy.typing import NDArray


def resize(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """``(H, W, 3)`` -> ``(*size, 3)``: averaged along a side that shrinks, linear along one that grows."""
    height, width = image.shape[:2]
    shrunk = min(height, size[0]), min(width, size[1])
    if shrunk != (height, width):
        image = cv2.resize(image, shrunk[::-1], interpolation=cv2.INTER_AREA)
    if shrunk != tuple(size):
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    return image
