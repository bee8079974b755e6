"""How alike several models are: in what they see in the same images, and in what they get wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST = 4  # pictures that the estimate needs


def feature_similarity(features: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """Linear CKA of the features of every two models, with the unbiased estimate of HSIC.

    ``CKA(X, Y) = HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y))`` with ``K = X X^T``, ``L = Y Y^T``, their diagonals set to
    0, and ``HSIC = (tr(K L) + sum(K) sum(L) / ((N - 1) (N - 2)) - 2 / (N - 2) sum(K L)) / (N (N - 3))``. 1: alike up to
    rotation, shift and scale; about 0, also below: unrelated. The plain estimate would be near 1 for any two models
    where the pictures are fewer than the features. Kornblith 2019, "Similarity of Neural Network Representations
    Revisited"; the estimate is that of Song 2012, "Feature Selection via Dependence Maximization".

    Args:
        features: of R models, each ``(N, C)`` of the same N pictures; C may differ.

    Returns:
        ``(R, R)``; NaN with fewer than four pictures, or where a model gives the same for every picture.

    Example:
        >>> x = np.array([[0.0, 1], [1, 0], [3, 2], [2, 5], [4, 4]])
        >>> feature_similarity([x, 2 * x[:, ::-1] + 1]).round(3).tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    if len(features[0]) < LEAST:
        return np.full((len(features), len(features)), np.nan)
    grams = [_gram(one) for one in features]
    crossed = np.array([[_hsic(first, second) for second in grams] for first in grams])
    own = np.diag(crossed)
    scale = np.sqrt(np.maximum(np.outer(own, own), 0))
    known = np.outer(own > 0, own > 0)
    return np.asarray(np.divide(crossed, scale, out=np.full(crossed.shape, np.nan), where=known))


def _gram(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """``(N, N)``: products of the features about their mean, over their size; the diagonal is 0."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    size = np.abs(centred).max(initial=0)
    centred = centred / size if size > 0 else centred
    gram: NDArray[np.float64] = centred @ centred.T
    np.fill_diagonal(gram, 0)
    return gram


def _hsic(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    n = len(first)
    rows, columns = first.sum(axis=1), second.sum(axis=1)
    alike = (first * second).sum() + rows.sum() * columns.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows @ columns
    return float(alike / (n * (n - 3)))


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
