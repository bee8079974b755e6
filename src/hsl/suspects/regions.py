"""Regions of a picture in which all models see another class than the label, each with how sure that is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.suspects.scores import Evidence

RegionKind = Literal["missed object", "spurious object", "wrong class"]
LEAST_AREA = 9
"""Pixels of a region."""
LEAST_SCORE = 0.05
"""Of a region that is told: less is a speck, a part of an object, or unsure."""
LARGE = 0.05
"""Radius, as a share of the picture, at which size counts half."""
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Region:
    """Connected pixels of one label that all models take for one other class.

    Attributes:
        label: class of the mask.
        predicted: class of the models.
        box: top, left, height, width.
        pixels: ``bool (height, width)``: the region inside the box.
        sureness: mean of `Evidence.sureness`.
        share: of the object that is in question, labelled or predicted, the part that lies in the region.
        radius: of the largest circle inside, in pixels.
        picture: sides of the picture.
    """

    label: int
    predicted: int
    box: tuple[int, int, int, int]
    pixels: Bools
    sureness: float
    share: float
    radius: float
    picture: tuple[int, int]

    @property
    def score(self) -> float:
        """In [0, 1]: how sure the models are, times the share of an object, times ``r / (r + R)``, where ``r`` is the
        radius and ``R`` is `LARGE` times the geometric mean of the sides: of two regions the larger one is worth more.
        """
        large = LARGE * float(np.sqrt(self.picture[0] * self.picture[1]))
        return self.sureness * self.share * self.radius / (self.radius + large)

    @property
    def pair(self) -> tuple[int, int]:
        """Class of the mask, and of the models."""
        return self.label, self.predicted

    @property
    def area(self) -> int:
        """Pixels."""
        return int(self.pixels.sum())

    @property
    def kind(self) -> RegionKind:
        """What the mask did wrong, if the models are right."""
        if self.label == 0:
            return "missed object"
        return "spurious object" if self.predicted == 0 else "wrong class"


def regions_of(evidence: Evidence) -> Iterator[Region]:
    """The regions of a picture, of at least `LEAST_SCORE`.

    Thin lines go first (opening by 3 x 3 pixels): contours are never drawn to the pixel.
    """
    number = len(evidence.mean)
    code = np.where(evidence.sureness > 0, evidence.mask.astype(np.int32) * number + evidence.predicted, -1)
    for value in np.unique(code[code >= 0]).tolist():
        label, predicted = divmod(value, number)
        opened = cv2.morphologyEx((code == value).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        count, places, stats, _ = cv2.connectedComponentsWithStats(opened)
        if count == 1 or stats[1:, cv2.CC_STAT_AREA].max() < LEAST_AREA:
            continue
        wholes = _wholes(evidence, label, predicted)
        for i in range(1, count):
            left, top, width, height, area = stats[i].tolist()
            if area < LEAST_AREA:
                continue
            window = np.s_[top : top + height, left : left + width]
            pixels = places[window] == i
            share = max(area / int(areas[np.bincount(parts[window][pixels]).argmax()]) for parts, areas in wholes)
            region = Region(
                label, predicted, (top, left, height, width), pixels,
                float(evidence.sureness[window][pixels].mean()), share,
                _radius(pixels), evidence.size,
            )  # fmt: skip
            if region.score >= LEAST_SCORE:
                yield region


def _wholes(evidence: Evidence, label: int, predicted: int) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """The connected parts of the labelled and of the predicted class, with their areas; not of the background."""
    found = []
    for shown, index in ((evidence.mask, label), (evidence.predicted, predicted)):
        if index > 0:
            _, parts, stats, _ = cv2.connectedComponentsWithStats((shown == index).astype(np.uint8))
            found.append((np.asarray(parts, np.int32), np.asarray(stats[:, cv2.CC_STAT_AREA], np.int32)))
    return found


def _radius(pixels: Bools) -> float:
    return float(cv2.distanceTransform(np.pad(pixels, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5).max())
