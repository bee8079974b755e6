"""How far a mask made without a hand can be trusted: a score per picture, and its tier."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes
from skimage.measure import perimeter_crofton

from hsl.batch import IGNORE_INDEX

Tier = Literal["A", "B", "C"]
COVERED = 0.2  # a foreground of this share of the picture earns the whole part


@dataclass(frozen=True)
class MaskQuality:
    """The parts of a mask's score, each in [0, 1].

    Attributes:
        score: the weighted sum.
        largest_share: pixels of the largest foreground component / foreground pixels.
        uncertain: uncertain pixels / pixels.
        foreground: foreground pixels / pixels.
        compactness: of the largest component: 1 for a disc, towards 0 for ragged or thin shapes; 0 without foreground.
    """

    score: float
    largest_share: float
    uncertain: float
    foreground: float
    compactness: float


def mask_quality(mask: NDArray[np.uint8]) -> MaskQuality:
    """Score of one mask.

    ``0.4 largest_share + 0.3 (1 - uncertain) + 0.2 min(1, foreground / 0.2) + 0.1 compactness`` with ``compactness =
    min(1, 4 pi area / perimeter^2)``. Foreground is every class above 0, the classes taken together; uncertain pixels
    (255) are none. Components are 8-neighbour. Area and perimeter are those of the outer contour of the largest
    component (the first of equals): its holes belong to it, and the edge of the image counts. The perimeter is
    Crofton's, from the crossings of lines in four directions (scikit-image), as that of a digital disc comes near ``2
    pi r``; the length of the chain of pixels is 5 % above. Without foreground three parts are 0 and the score is ``0.3
    (1 - uncertain)``.

    Args:
        mask: ``uint8 (H, W)``, 0 background, 255 uncertain.

    Raises:
        ValueError: the mask has no pixel.

    Example:
        >>> square = np.zeros((10, 10), np.uint8)
        >>> square[:5, :5] = 1
        >>> round(mask_quality(square).compactness, 4)  # perimeter pi / 4 (10 + 2 * 9 / sqrt 2) = 17.85
        0.9859
    """
    if mask.ndim != 2 or not mask.size:
        raise ValueError(f"`mask` should be (H, W) with a pixel or more. Found shape {mask.shape}.")
    uncertain = float((mask == IGNORE_INDEX).mean())
    foreground = (mask > 0) & (mask != IGNORE_INDEX)
    area = int(foreground.sum())
    largest_share = compactness = 0.0
    if area:
        largest = _largest(foreground)
        largest_share, compactness = int(largest.sum()) / area, _compactness(largest)
    share = area / mask.size
    score = 0.4 * largest_share + 0.3 * (1 - uncertain) + 0.2 * min(1.0, share / COVERED) + 0.1 * compactness
    return MaskQuality(score, largest_share, uncertain, share, compactness)


def tier_of(score: float, rule_passed: bool, thresholds: Mapping[str, float]) -> Tier:
    """Tier of a score; a failed class rule takes one away.

    Args:
        score: of `mask_quality`.
        rule_passed: whether the rule of the picture's class holds, or there is none.
        thresholds: the least score of tiers A and B.

    Raises:
        ValueError: A or B has no threshold, or A's is below B's.

    Example:
        >>> tier_of(0.85, True, {"A": 0.8, "B": 0.5}), tier_of(0.85, False, {"A": 0.8, "B": 0.5})
        ('A', 'B')
    """
    if set(thresholds) != {"A", "B"} or thresholds["A"] < thresholds["B"]:
        raise ValueError(
            "`thresholds` should give the least score of A and of B, A's no lower. "
            f"Found `thresholds = {dict(thresholds)}`. The usual ones are A 0.8 and B 0.5."
        )
    order: tuple[Tier, ...] = ("A", "B", "C")
    place = 0 if score >= thresholds["A"] else 1 if score >= thresholds["B"] else 2
    return order[min(place + (not rule_passed), 2)]


def _largest(foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    _, components, stats, _ = cv2.connectedComponentsWithStats(foreground.astype(np.uint8), connectivity=8)
    largest: NDArray[np.bool_] = components == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
    return largest


def _compactness(component: NDArray[np.bool_]) -> float:
    filled = binary_fill_holes(component)
    length = float(perimeter_crofton(filled, directions=4))  # type: ignore[no-untyped-call]
    return min(1.0, 4 * np.pi * int(filled.sum()) / length**2)
