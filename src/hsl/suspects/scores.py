"""How far labels are from what models say that were not trained on them: of pixels, of a whole picture."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX

TEMPERATURE = 0.1
"""Of `softmin`, as cleanlab has it."""
Floats = NDArray[np.float64]


def softmin(values: NDArray[np.floating], temperature: float = TEMPERATURE) -> float:
    """A mean in which low values weigh most: ``sum(v * w)``, ``w = softmax((1 - v) / temperature)``.

    Of the probabilities that a model gives to the labels of the pixels it is the label quality of cleanlab's
    segmentation module (method ``softmin``; Lad and Mueller 2023, "Estimating label quality and errors in semantic
    segmentation data via any model"). 0 is the worst.

    Args:
        values: any number of values in [0, 1], at least one.
        temperature: above 0; towards 0 it is the minimum, towards infinity the mean.

    Example:
        >>> round(softmin(np.array([1.0, 1.0, 0.0])), 4), round(softmin(np.array([0.9, 0.9])), 4)
        (0.0001, 0.9)
    """
    flat = np.asarray(values, dtype=np.float64).ravel()
    weights = np.exp((flat.min() - flat) / temperature)
    return float((flat * weights).sum() / weights.sum())


@dataclass(frozen=True, eq=False)
class Evidence:
    """One picture: its mask, and what M models say of it that were not trained on it.

    Attributes:
        mask: ``uint8 (H, W)``, 255 unknown; class 0 is the background.
        maps: ``uint8 (M, C, H, W)``: ``round(255 p)``.
    """

    mask: NDArray[np.uint8]
    maps: NDArray[np.uint8]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.mask.shape
        return height, width

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """``(H, W)``: pixels that have a label."""
        return np.asarray(self.mask != IGNORE_INDEX)

    @cached_property
    def mean(self) -> NDArray[np.float32]:
        """``(C, H, W)``: of the models."""
        return np.asarray(self.maps.mean(axis=0, dtype=np.float32) / np.float32(255))

    @cached_property
    def predicted(self) -> NDArray[np.uint8]:
        """``(H, W)``: the class of the highest mean."""
        return np.asarray(self.mean.argmax(axis=0), dtype=np.uint8)

    @cached_property
    def sureness(self) -> NDArray[np.float32]:
        """``(H, W)``, in [0, 1]: how much more of the predicted class than of the label that model sees which comes
        nearest to the label; 0 where one agrees with it or nothing is known.
        """
        least = np.full(self.mask.shape, 255, np.int16)
        for planes in self.maps:
            seen, own = (_of_class(planes, shown).astype(np.int16) for shown in (self.predicted, self._label))
            np.minimum(least, seen - own, out=least)
        return np.where(self.known, np.maximum(least, 0), 0).astype(np.float32) / np.float32(255)

    @property
    def softmin(self) -> float:
        """`softmin` of the mean probabilities of the labels; NaN where nothing is known."""
        if not self.known.any():
            return float("nan")
        return softmin(_of_class(self.mean, self._label)[self.known])

    @property
    def counts(self) -> NDArray[np.int64]:
        """``(C, C)``: known pixels by label and prediction."""
        number = len(self.mean)
        code = self.mask[self.known].astype(np.int64) * number + self.predicted[self.known]
        return np.bincount(code, minlength=number * number).reshape(number, number)

    @property
    def _label(self) -> NDArray[np.uint8]:
        return np.where(self.known, self.mask, 0).astype(np.uint8)


def _of_class(planes: NDArray[Any], index: NDArray[np.uint8]) -> NDArray[Any]:
    """``(H, W)``: of every pixel the plane of its class."""
    return np.asarray(np.take_along_axis(planes, index[None].astype(np.intp), axis=0)[0])


def trust(label: int, predicted: int, area: int, picture: NDArray[np.int64], total: NDArray[np.int64]) -> float:
    """How far models that contradict a label are right about these classes elsewhere, in [0, 1].

    The recall of the labelled class times the precision of the predicted one, over the rest of the picture. The data
    set stands in with as many pixels as the region has, and so alone where the picture has no more of the class. A
    model that does not know the large nuclei of stained tissue contradicts their labels surely, all over the picture.

    Args:
        label: class of the mask.
        predicted: class of the models.
        area: pixels of the region.
        picture: pixels of the picture by label and prediction, the region's with them; see `Evidence.counts`.
        total: the same of all pictures.

    Example:
        >>> seen = np.array([[80, 0], [10, 10]])  # the models miss half of class 1, and this region is that half
        >>> round(trust(1, 0, 10, seen, seen), 3)
        0.741
    """
    rest = picture.copy()
    rest[label, predicted] -= area

    recall = _shrunk(rest[label], total[label], label, area)
    precision = _shrunk(rest[:, predicted], total[:, predicted], predicted, area)
    return recall * precision


def _shrunk(here: NDArray[np.int64], everywhere: NDArray[np.int64], right: int, weight: int) -> float:
    """The share of `right` here, with `weight` further pixels as they are everywhere."""
    usual = float(everywhere[right]) / max(1.0, float(everywhere.sum()))
    return (float(here[right]) + weight * usual) / (float(here.sum()) + weight)
