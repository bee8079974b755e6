"""Votes of several sources to one mask, and how far such a mask can be trusted: a score per image, and its tier."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes
from skimage.measure import perimeter_crofton

from hsl.batch import IGNORE_INDEX
from hsl.data.labels.label_table import LabelRow
from hsl.errors import ConfigError
from hsl.pseudo_labels.class_rules import ClassRule, parse_rule

ROUNDING = 1e-6  # votes are float32: 0.3 + 0.3 is not below 0.6
EVERY = "all"
"""The name under which a rule for every picture stands among those for a class."""
Tier = Literal["A", "B", "C"]
COVERED = 0.2  # a foreground of this share of the picture earns the whole part


def renormalise(weights: Mapping[str, float], sources: Iterable[str]) -> dict[str, float]:
    """The weights of the sources present, scaled to sum to 1.

    Args:
        weights: weight of each source, above 0.
        sources: names of those present.

    Raises:
        ValueError: no source is present, or one has no weight above 0.

    Example:
        >>> renormalise({"grabcut": 0.25, "gradcam": 0.5, "sam": 0.25}, ["gradcam", "sam"])
        {'gradcam': 0.6666666666666666, 'sam': 0.3333333333333333}
    """
    names = list(sources)
    if not names:
        raise ValueError(f"`votes` should hold one or more of the sources {sorted(weights)}. Found none.")
    without = [name for name in names if not weights.get(name, 0) > 0]
    if without:
        raise ValueError(
            f"`weights` should give every source a weight above 0. Found none for {without} in {dict(weights)}. "
            "Add it, or leave the source out."
        )
    total = sum(weights[name] for name in names)
    return {name: weights[name] / total for name in names}


def fuse_votes(
    votes: Mapping[str, NDArray[np.float32]], weights: Mapping[str, float], uncertain_below: float = 0.6
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The class with the largest weighted vote, where the sources agree enough.

    ``v[c] = sum over sources of weight * vote[c]``, class = argmax of v (the first of equals), confidence = max v / sum
    v. A source without opinion on a pixel (0 for all classes) takes no part there; where none has one the confidence
    is 0.

    Args:
        votes: source to its votes ``(C, H, W)``, not negative.
        weights: weight of each source; those of the sources present are scaled to sum to 1.
        uncertain_below: pixels of less confidence become 255.

    Returns:
        The mask ``uint8 (H, W)`` with 255 where uncertain, and the confidence ``float32 (H, W)`` in [0, 1].

    Raises:
        ValueError: there is no source, one has no weight, shapes differ, or a vote is negative or NaN.

    Example:
        >>> votes = {"grabcut": np.float32([[[0]], [[1]]]), "gradcam": np.float32([[[0.2]], [[0.8]]])}
        >>> mask, confidence = fuse_votes(votes, {"grabcut": 0.3, "gradcam": 0.5, "sam": 0.2})
        >>> mask.tolist(), round(float(confidence[0, 0]), 3)
        ([[1]], 0.875)
    """
    present = renormalise(weights, votes)
    _check_votes(votes)
    total = np.sum([weight * votes[name].astype(np.float64) for name, weight in present.items()], axis=0)
    best, summed = total.max(axis=0), total.sum(axis=0)
    confidence = np.divide(best, summed, out=np.zeros_like(best), where=summed > 0)
    uncertain = (confidence < uncertain_below - ROUNDING) | (summed == 0)
    mask = np.where(uncertain, IGNORE_INDEX, total.argmax(axis=0)).astype(np.uint8)
    return mask, confidence.astype(np.float32)


def _check_votes(votes: Mapping[str, NDArray[np.float32]]) -> None:
    shapes = {name: vote.shape for name, vote in votes.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 3 for shape in shapes.values()):
        raise ValueError(f"`votes` of all sources should have one shape (C, H, W). Found {shapes}.")
    bad = [name for name, vote in votes.items() if not (np.isfinite(vote) & (vote >= 0)).all()]
    if bad:
        raise ValueError(f"`votes` should be finite and not negative. Found others in {bad}.")


@dataclass(frozen=True)
class Judgement:
    """Rules and thresholds of one labelling.

    Attributes:
        rules: by image class, or ``all``; of a picture both have to hold.
        tiers: least quality of the tiers A and B.
    """

    rules: Mapping[str, ClassRule]
    tiers: Mapping[str, float]

    @classmethod
    def of(
        cls, rules: Mapping[str, str], tiers: Mapping[str, float], classes: Sequence[str], labels: Sequence[str]
    ) -> "Judgement":
        """Read the rules.

        Args:
            rules: image class, or ``all``, to the text of its rule; see `hsl.pseudo_labels.class_rules`.
            tiers: least quality of the tiers A and B.
            classes: names of the dense classes.
            labels: names of the image classes.

        Raises:
            ConfigError: a rule cannot be read or is for an unknown class, or the thresholds are out of order.
        """
        if unknown := sorted(set(rules) - {EVERY, *labels}):
            raise ConfigError(
                f"`rules` should be for image classes of the data, {sorted(labels)}, or `{EVERY}`. Found {unknown}. "
                "Correct the names."
            )
        if set(tiers) != {"A", "B"} or not 0 <= tiers["B"] <= tiers["A"] <= 1:
            raise ConfigError(f"`tiers` should hold 0 <= B <= A <= 1. Found `tiers = {dict(tiers)}`. Correct them.")
        return cls({label: parse_rule(text, classes) for label, text in rules.items()}, dict(tiers))

    def row(self, name: str, label: str, mask: NDArray[np.uint8], sources: Sequence[str], image: str) -> LabelRow:
        """Judge one mask.

        Args:
            name: id of the picture.
            label: its image class.
            mask: class indices ``(H, W)``, 255 = uncertain.
            sources: those that had a say.
            image: where the picture lies.
        """
        quality = mask_quality(mask)
        passed = all(self.rules[key].holds(mask) for key in (EVERY, label) if key in self.rules)
        return LabelRow(
            id=name,
            label=label,
            tier=tier_of(quality.score, passed, self.tiers),
            quality=quality.score,
            uncertain=quality.uncertain,
            foreground=quality.foreground,
            rule_passed=passed,
            sources=" ".join(sources),
            image=image,
        )


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
