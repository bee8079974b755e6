"""An analysis in numbers: where classifiers look, what their stages give, how alike they are, what they get wrong."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsl.batch import IGNORE_INDEX

DEAD_BELOW = 1e-6
LEAST = 4  # pictures that the estimate needs


class Attention(NamedTuple):
    """Of one heat map: its share inside the foreground, and the foreground's share of the area."""

    share: float
    area: float


def attention_share(cam: NDArray[np.floating], mask: NDArray[np.uint8]) -> Attention | None:
    """How much of a heat map lies on the foreground.

    ``share = sum(cam over foreground) / sum(cam)``, and ``area = foreground pixels / pixels``, which is the share of
    a map that is the same everywhere. Foreground is every class but 0; ignored pixels are in none of the four.

    Args:
        cam: ``(H, W)``, not negative.
        mask: class indices ``(H, W)``.

    Returns:
        None where there is nothing to share out: no foreground, or a heat map of 0.

    Raises:
        ValueError: the sizes differ.

    Example:
        >>> attention_share(np.array([[3.0, 1.0, 0.0, 5.0]]), np.array([[1, 0, 0, 255]], np.uint8))
        Attention(share=0.75, area=0.3333333333333333)
    """
    if cam.shape != mask.shape:
        raise ValueError(f"`cam` should have the size of the mask, {mask.shape}. Found {cam.shape}.")
    valid = mask != IGNORE_INDEX
    foreground = valid & (mask > 0)
    total = float(cam[valid].sum(dtype=np.float64))
    if not foreground.any() or total == 0:
        return None
    return Attention(float(cam[foreground].sum(dtype=np.float64)) / total, float(foreground.sum() / valid.sum()))


@dataclass(frozen=True)
class ClassAttention:
    """Means over the pictures of a class; None where no picture has a share.

    Attributes:
        num_pictures: those with a share.
        left_out: those without foreground, or with a heat map of 0.
        share: mean share of the attention inside the foreground.
        area: mean share of the area that is foreground: what a map without preference would have.
    """

    num_pictures: int
    left_out: int
    share: float | None
    area: float | None

    @classmethod
    def of(cls, found: Sequence[Attention | None]) -> "ClassAttention":
        """The means of what `attention_share` found."""
        known = [one for one in found if one is not None]
        if not known:
            return cls(0, len(found), None, None)
        share, area = np.mean(known, axis=0)
        return cls(len(known), len(found) - len(known), float(share), float(area))

    @property
    def ratio(self) -> float | None:
        """``share / area``: 1 is chance."""
        return None if self.share is None or self.area is None else self.share / self.area


@dataclass(frozen=True, eq=False)
class StageActivations:
    """Sums over the feature maps of one stage; add those of several batches.

    Attributes:
        num_values: values over all pictures, channels and pixels.
        total: their sum.
        squares: the sum of their squares.
        largest: ``(C,)``: the largest absolute value of each channel.
    """

    num_values: int
    total: float
    squares: float
    largest: NDArray[np.float64]

    @classmethod
    def of(cls, features: Tensor) -> "StageActivations":
        """The sums of one batch ``(B, C, H, W)``.

        >>> stage = StageActivations.of(torch.tensor([[[[3.0, -1.0]], [[0.0, 0.0]]]]))
        >>> stage.mean, round(stage.std, 4), stage.num_dead
        (0.5, 1.5, 1)
        """
        values = features.detach().to(torch.float64)
        largest = values.abs().amax(dim=(0, 2, 3)).cpu().numpy()
        return cls(values.numel(), float(values.sum()), float(values.square().sum()), largest)

    def __add__(self, other: "StageActivations") -> "StageActivations":
        return StageActivations(
            self.num_values + other.num_values,
            self.total + other.total,
            self.squares + other.squares,
            np.maximum(self.largest, other.largest),
        )

    @property
    def num_channels(self) -> int:
        """C."""
        return len(self.largest)

    @property
    def mean(self) -> float:
        """Of all values."""
        return self.total / self.num_values

    @property
    def std(self) -> float:
        """Of all values about their mean, divided by their number."""
        return math.sqrt(max(0.0, self.squares / self.num_values - self.mean**2))

    @property
    def num_dead(self) -> int:
        """Channels whose value is below ``DEAD_BELOW``, sign aside, in every pixel of every picture."""
        return int((self.largest < DEAD_BELOW).sum())

    @property
    def dead_share(self) -> float:
        """``num_dead / C``."""
        return self.num_dead / self.num_channels


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
