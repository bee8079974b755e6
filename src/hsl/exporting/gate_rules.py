"""The two rules of the gate, and the numbers that they look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.exporting.prediction import Prediction

Distance = Literal["neighbours", "mahalanobis"]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class SegmentationRule:
    """Is enough of the picture foreground, in one piece, or is there a coherent region of a class that is a signal?

    Attributes:
        head: the dense head, whose class 0 is the background.
        classes: of the head.
        channels: the heads of overlapping channels, in place of the planes of ``head``; else none.
        image_head: whose class chooses the threshold; ``None``: the lowest of all holds.
        thresholds: least share of foreground, by image class; ``all`` without labels.
        default: the same, of a class with too few pictures.
        min_component: least share of the picture of the largest region of foreground, or of a signal.
        signals: classes that accept a picture by themselves.
        min_signal_confidence: probability from which on a pixel shows a signal.
    """

    head: str
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    image_head: str | None
    thresholds: Mapping[str, float]
    default: float
    min_component: float
    signals: tuple[str, ...]
    min_signal_confidence: float

    def scores(self, prediction: Prediction) -> dict[str, float]:
        """Shares of the picture: ``foreground``, ``component``, its largest region, and ``signal``, that of a signal.

        Of overlapping channels a pixel is foreground where any has a probability of one half.
        """
        if self.channels:
            planes = {name: prediction.probabilities[name][1] for name in self.channels}
            foreground = np.any([plane >= 0.5 for plane in planes.values()], axis=0)
        else:
            planes = dict(zip(self.classes, prediction.probabilities[self.head], strict=True))
            foreground = prediction.class_map(self.head) != 0
        shown = (largest_region(planes[name] >= self.min_signal_confidence) for name in self.signals)
        return {
            "foreground": float(foreground.mean()),
            "component": largest_region(foreground) / foreground.size,
            "signal": max(shown, default=0) / foreground.size,
        }

    def shown(self, prediction: Prediction) -> list[str]:
        """The classes that the image head finds; none without one."""
        return [] if self.image_head is None else prediction.labels(self.image_head)

    def threshold(self, shown: Sequence[str]) -> tuple[str, float]:
        """The class and the least share of foreground that hold for a picture of these classes.

        They are the lowest of several, and the lowest of all where none is known.
        """
        limits = {name: self.thresholds.get(name, self.default) for name in shown or self.thresholds}
        return min(limits.items(), key=lambda item: item[1], default=("all", self.default))

    def broken(self, scores: Mapping[str, float], shown: Sequence[str]) -> list[str]:
        """A sentence for each part of the rule that is broken; none where a signal is large enough."""
        if self.signals and scores["signal"] >= self.min_component:
            return []
        name, threshold = self.threshold(shown)
        share, largest = scores["foreground"], scores["component"]
        sentences = []
        if not share >= threshold:
            of = "" if name == "all" else f" (class {name})"
            sentences.append(f"Foreground should be at least {threshold:.2%} of the picture{of}. Found {share:.2%}.")
        if not largest >= self.min_component:
            either = f" (or of {' or '.join(self.signals)})" if self.signals else ""
            sentences.append(
                f"The largest region of foreground{either} should be at least {self.min_component:.2%} of the "
                f"picture. Found {largest:.2%}."
            )
        return sentences


@dataclass(frozen=True)
class FeatureRule:
    """Is the picture as near to the training pictures as held-out ones are, to an encoder that never saw either?

    Attributes:
        distance: ``neighbours``, the mean Euclidean distance to the ``k`` nearest of the reference, all features of
            length 1; or ``mahalanobis``, to the mean of the reference, by its covariance shrunk after Ledoit and Wolf.
            Both after Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors" (2022), which takes the
            k-th distance, and Lee et al., "A Simple Unified Framework for Detecting
            Out-of-Distribution Samples" (2018).
        k: neighbours; of no meaning to ``mahalanobis``.
        threshold: largest distance that is accepted.
        coverage: share of new groups all of whose pictures the threshold accepts, at least on average.
    """

    distance: Distance
    k: int
    threshold: float
    coverage: float

    def distances(self, features: Floats, arrays: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float64]:
        """The distance ``(N,)`` of each row ``(N, D)``, with the arrays of a gate; NaN where a feature is none."""
        if self.distance == "neighbours":
            return neighbour_distances(features, arrays["reference"], self.k)
        return mahalanobis_distances(features, arrays["mean"], arrays["precision"])

    def broken(self, distance: float) -> list[str]:
        """The sentence of a picture that is too far away."""
        if distance <= self.threshold:
            return []
        to = f" to the {self.k} nearest" if self.distance == "neighbours" else ", after Mahalanobis, to the"
        return [f"The distance{to} training pictures should be at most {self.threshold:.4g}. Found {distance:.4g}."]


def largest_region(mask: NDArray[np.bool_]) -> int:
    """Pixels of the largest region of a mask ``(H, W)``; pixels that touch at a corner belong together.

    Example:
        >>> largest_region(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]], bool))
        2
    """
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return int(stats[1:, cv2.CC_STAT_AREA].max(initial=0))


def of_unit_length(features: Floats) -> NDArray[np.float32]:
    """Each row ``(N, D)`` divided by its length; a row of zeros stays."""
    lengths = np.linalg.norm(features.astype(np.float64), axis=-1, keepdims=True)
    return (features / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def neighbour_distances(features: Floats, reference: NDArray[np.float32], k: int) -> NDArray[np.float64]:
    """Mean Euclidean distance ``(N,)`` of each row ``(N, D)`` to the ``k`` nearest of ``(M, D)``, all of length 1.

    Example:
        >>> reference = np.array([[1, 0], [0, 1]], np.float32)
        >>> neighbour_distances(np.array([[2.0, 0.0]]), reference, 1), neighbour_distances(-reference[:1], reference, 1)
        (array([0.]), array([1.41421356]))
    """
    cosines = of_unit_length(features).astype(np.float64) @ of_unit_length(reference).astype(np.float64).T
    distances = np.sqrt(np.maximum(2 - 2 * cosines, 0))
    return np.asarray(np.partition(distances, k - 1, axis=1)[:, :k].mean(axis=1))


def mahalanobis_distances(features: Floats, mean: Floats, precision: Floats) -> NDArray[np.float64]:
    """``sqrt((x - mean)' precision (x - mean))`` of each row ``(N, D)``."""
    centred = features.astype(np.float64) - mean
    return np.asarray(np.sqrt(np.maximum(np.einsum("nd,de,ne->n", centred, precision.astype(np.float64), centred), 0)))
