"""The dictionaries that travel between the rooms, and the letters used for shapes.

Shape legend: ``B`` pictures, ``C`` classes, ``H, W`` height and width in pixels, ``D`` embedding size.
Images are ``float32 (B, 3, H, W)``, class masks ``int64 (B, H, W)``, logits ``(B, C, H, W)``.
Class 0 is background or "clean". Pixels with ``IGNORE_INDEX`` enter no loss, weight, metric or class count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypeAlias, TypedDict

if TYPE_CHECKING:  # the processes that only read files do without torch
    from torch import Tensor

IGNORE_INDEX = 255


class Sample(TypedDict):
    """One picture as the data set hands it out.

    ``masks[head]`` is ``int64 (h, w)`` and may be larger or smaller than ``image``: at evaluation the network
    sees the picture at its own size while the mask keeps the size of the source.
    """

    id: str
    image: Tensor
    masks: dict[str, Tensor]
    size: tuple[int, int]


class Batch(TypedDict):
    """Several samples.

    ``image`` is ``(B, 3, H, W)``. ``masks[head]`` is ``(B, h, w)``; where the sources differ in size it is padded at
    the bottom and right with ``IGNORE_INDEX``. ``size`` is ``int64 (B, 2)``: height and width of each source.
    ``masks`` is absent when there are none (prediction).
    """

    id: list[str]
    image: Tensor
    size: Tensor
    masks: NotRequired[dict[str, Tensor]]


Outputs: TypeAlias = "dict[str, Tensor]"
"""What a network or predictor returns: one tensor per head. A dense head gives logits ``(B, C, H, W)``."""

Objectives: TypeAlias = "dict[str, Tensor]"
"""What a loss returns: one unweighted scalar per objective. The weighting makes the total."""
