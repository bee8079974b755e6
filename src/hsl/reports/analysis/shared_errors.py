"""Which pictures several models get wrong together, and which only one does."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


def wrong_pictures(target: NDArray[np.floating[Any]], predicted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """``(N,)``: whether any class whose presence is known is predicted otherwise.

    Args:
        target: ``(N, K)`` of 0 and 1, NaN where it is not known.
        predicted: ``(N, K)``.

    Example:
        >>> wrong_pictures(np.array([[1, 0], [np.nan, 0]]), np.array([[False, True], [True, False]])).tolist()
        [True, False]
    """
    wrong: NDArray[np.bool_] = (((target == 1) != predicted) & ~np.isnan(target)).any(axis=1)
    return wrong


@dataclass(frozen=True, eq=False)
class Errors:
    """The errors of R models on the same N pictures.

    Attributes:
        ids: of the pictures.
        runs: labels of the models.
        wrong: ``(R, N)``.
    """

    ids: Sequence[str]
    runs: Sequence[str]
    wrong: NDArray[np.bool_]

    @cached_property
    def num_wrong(self) -> NDArray[np.int64]:
        """``(N,)``: how many models get the picture wrong."""
        return np.asarray(self.wrong.sum(axis=0, dtype=np.int64))

    @property
    def wrong_in_all(self) -> list[str]:
        """Pictures that every model gets wrong."""
        return self._names(self.num_wrong == len(self.runs))

    @property
    def wrong_in_one(self) -> dict[str, list[str]]:
        """By model: pictures that it gets wrong and every other model right."""
        alone = self.num_wrong == 1
        return {run: self._names(alone & wrong) for run, wrong in zip(self.runs, self.wrong, strict=True)}

    @property
    def overlap(self) -> NDArray[np.float64]:
        """``(R, R)``, the Jaccard index of two models' errors: wrong in both / wrong in either.

        NaN where neither makes one.

        >>> Errors("abc", "xy", np.array([[True, True, False], [False, True, False]])).overlap.tolist()
        [[1.0, 0.5], [0.5, 1.0]]
        """
        counts = self.wrong.astype(np.int64)
        both = counts @ counts.T
        either = counts.sum(1)[:, None] + counts.sum(1)[None] - both
        return np.asarray(np.divide(both, either, out=np.full(both.shape, np.nan), where=either > 0))

    def _names(self, chosen: NDArray[np.bool_]) -> list[str]:
        return [self.ids[place] for place in np.flatnonzero(chosen).tolist()]
