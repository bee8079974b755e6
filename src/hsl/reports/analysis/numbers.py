"""Where a classifier looks and what its stages give, in numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsl.batch import IGNORE_INDEX

DEAD_BELOW = 1e-6


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
