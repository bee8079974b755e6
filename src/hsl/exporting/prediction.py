"""What a model says of one picture, in NumPy: the one value that runner, gate and server hand on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hsl.heads import Head


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of one picture.

    Attributes:
        heads: what the outputs are, by name; dense and image heads.
        probabilities: by head; ``float32 (C, H, W)`` at the size of the picture, ``(K,)`` of an image head.
        thresholds: from which probability on a class is present, of image heads that may show several.
        objects: ``uint16 (H, W)``, ids from 1, of a model that cuts objects apart; else ``None``.

    Example:
        >>> head = Head("segmentation", "dense", ("background", "rust"))
        >>> said = Prediction({head.name: head}, {head.name: np.array([[[0.9, 0.2]], [[0.1, 0.8]]], np.float32)})
        >>> said.class_map("segmentation").tolist()
        [[0, 1]]
    """

    heads: Mapping[str, Head]
    probabilities: Mapping[str, NDArray[np.float32]]
    thresholds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    objects: NDArray[np.uint16] | None = None

    def class_map(self, head: str) -> NDArray[np.uint8]:
        """Most probable class of every pixel, ``(H, W)``."""
        return np.asarray(self.probabilities[head].argmax(axis=0), np.uint8)

    def labels(self, head: str) -> list[str]:
        """Classes that an image head finds present: the most probable one, or all from their thresholds on."""
        values, known = self.probabilities[head], self.heads[head]
        if not known.several:
            return [known.classes[int(values.argmax())]]
        limits = self.thresholds[head]
        shown = zip(known.classes, values.tolist(), limits, strict=True)  # in 64 bits, as the scores compare them
        return [name for name, value, limit in shown if value >= limit]
