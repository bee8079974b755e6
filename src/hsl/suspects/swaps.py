"""Swapped files: the mask of one picture fits the prediction of another far better, and the other way round."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.suspects.scores import Evidence

CELLS = 16
"""Rows and columns of a small version."""
NOTHING = 0.5
"""Squared cells that are added on both sides: two empty maps are alike."""
LEAST_GAIN = 0.25
"""Share of the disagreement that a swap must take away."""
MOST_PER_PICTURE = 5
ROWS = 1024
"""Pictures that are compared with all others at once."""


@dataclass(frozen=True)
class Swap:
    """Two pictures whose masks fit each other's prediction.

    Attributes:
        first, second: ids, in order.
        straight: the higher one of the agreements of mask and prediction of one picture.
        crosswise: the lower one of the agreements of each mask with the other prediction.
    """

    first: str
    second: str
    straight: float
    crosswise: float

    @property
    def gain(self) -> float:
        """The share of the disagreement that the swap takes away; below 0 where it adds to it."""
        return (self.crosswise - self.straight) / max(1 - self.straight, 1e-9)

    @property
    def score(self) -> float:
        """The gain times the agreement that is reached."""
        return self.crosswise * self.gain


@dataclass
class SmallVersions:
    """Small versions of all masks and predictions, by size of the picture: all that is kept of those gone by."""

    _ids: dict[tuple[int, ...], list[str]] = field(default_factory=dict)
    _masks: dict[tuple[int, ...], list[NDArray[np.uint8]]] = field(default_factory=dict)
    _predictions: dict[tuple[int, ...], list[NDArray[np.uint8]]] = field(default_factory=dict)

    def add(self, name: str, evidence: Evidence) -> None:
        """Take a picture up."""
        size = evidence.mask.shape
        masks, predictions = ([_small(plane) for plane in planes] for planes in _planes(evidence, evidence))
        for store, values in ((self._masks, masks), (self._predictions, predictions)):
            store.setdefault(size, []).append(np.rint(255 * np.stack(values)).astype(np.uint8).ravel())
        self._ids.setdefault(size, []).append(name)

    def candidates(self) -> list[tuple[str, str]]:
        """Pairs of one size whose small versions fit crosswise, with half of `LEAST_GAIN`.

        At most `MOST_PER_PICTURE` of each picture.
        """
        pairs: set[tuple[str, str]] = set()
        for size, ids in self._ids.items():
            masks, predictions = (np.stack(store[size]) for store in (self._masks, self._predictions))
            for i, others in _crosswise(masks, predictions):
                pairs |= {(min(ids[i], ids[j]), max(ids[i], ids[j])) for j in others}
        return sorted(pairs)


def compare(first: str, second: str, one: Evidence, other: Evidence) -> Swap | None:
    """Judge a candidate by its full maps; none where the masks do not fit clearly better crosswise."""
    straight = max(_agreement(one, one), _agreement(other, other))
    crosswise = min(_agreement(one, other), _agreement(other, one))
    swap = Swap(first, second, straight, crosswise)
    return swap if swap.gain >= LEAST_GAIN else None


def best_pairs(swaps: Sequence[Swap]) -> list[Swap]:
    """The best pairs, so that no picture is in two."""
    taken: set[str] = set()
    chosen = []
    for swap in sorted(swaps, key=lambda swap: (-swap.score, swap.first, swap.second)):
        if not taken & {swap.first, swap.second}:
            taken |= {swap.first, swap.second}
            chosen.append(swap)
    return chosen


def _crosswise(masks: NDArray[np.uint8], predictions: NDArray[np.uint8]) -> Iterator[tuple[int, list[int]]]:
    """Place of a picture -> the places of those with which it may be swapped."""
    of_masks, of_predictions = _products(masks, masks), _products(predictions, predictions)
    own = _products(masks, predictions)
    straight = (2 * own + NOTHING) / (of_masks + of_predictions + NOTHING)
    for start in range(0, len(masks), ROWS):
        rows = slice(start, start + ROWS)
        best = np.full((len(straight[rows]), len(masks)), -np.inf)
        for columns in (slice(place, place + ROWS) for place in range(0, len(masks), ROWS)):
            here = _dice(masks[rows], predictions[columns], of_masks[rows], of_predictions[columns])
            there = _dice(predictions[rows], masks[columns], of_predictions[rows], of_masks[columns])
            now = np.maximum(straight[rows, None], straight[None, columns])
            best[:, columns] = (np.minimum(here, there) - now) / np.maximum(1 - now, 1e-9)
        for i, gains in enumerate(best, start):
            order = np.argsort(-gains, kind="stable")[:MOST_PER_PICTURE]
            yield i, [int(j) for j in order if gains[j] >= LEAST_GAIN / 2 and j != i]


def _products(rows: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float64]:
    """``(N,)``: each row times the other one of its place."""
    each = [row.astype(np.float64) @ other.astype(np.float64) for row, other in zip(rows, others, strict=True)]
    return np.asarray(each) / 255.0**2


def _dice(
    rows: NDArray[np.uint8], columns: NDArray[np.uint8], of_rows: NDArray[np.float64], of_columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    product = (rows.astype(np.float32) @ columns.astype(np.float32).T) / 255.0**2
    return np.asarray((2 * product + NOTHING) / (of_rows[:, None] + of_columns[None] + NOTHING))


def _agreement(mask: Evidence, prediction: Evidence) -> float:
    """Dice of squares of the classes but the first, at full size."""
    product, squares = 0.0, 0.0
    cell = mask.mask.size / CELLS**2
    for truth, seen in zip(*_planes(mask, prediction), strict=True):
        product += float((truth * seen).sum()) / cell
        squares += float((truth**2).sum() + (seen**2).sum()) / cell
    return (2 * product + NOTHING) / (squares + NOTHING)


def _planes(mask: Evidence, prediction: Evidence) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """The classes but the first of a mask and of a prediction, where the mask is known."""
    classes = range(1, len(prediction.mean))
    truth = [(mask.mask == index).astype(np.float32) for index in classes]
    return truth, [np.where(mask.known, prediction.mean[index], 0).astype(np.float32) for index in classes]


def _small(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(plane, (CELLS, CELLS), interpolation=cv2.INTER_AREA), dtype=np.float32)
