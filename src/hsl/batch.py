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
UNKNOWN_LABEL = -1
"""Class of a picture of which it is not known."""
DISTANCE = "hv"
"""The head, and the target, that says how deep a pixel lies in its object: in [0, 1], 0 outside of objects."""
ATTENTION = "attention"
"""The head, and what teachers say of it, that shows where the encoder looks: at least 0, of any scale."""


class Sample(TypedDict):
    """One picture as the data set hands it out.

    ``masks[head]`` is ``int64 (h, w)`` and may be larger or smaller than ``image``: at evaluation the network
    sees the picture at its own size while the mask keeps the size of the source. ``labels[head]`` is the label of the
    whole picture: ``int64 ()``, -1 where it is not known, or ``float32 (K,)`` of 0, 1 and NaN where several may be
    present. ``weights[head]`` is ``float32 (h, w)`` or ``(1, 1)``: what each pixel of the mask weighs in the loss.
    ``unlabelled``, ``targets`` and ``teachers`` are those of ``Batch``, of one picture.
    """

    id: str
    image: Tensor
    masks: dict[str, Tensor]
    size: tuple[int, int]
    labels: NotRequired[dict[str, Tensor]]
    weights: NotRequired[dict[str, Tensor]]
    unlabelled: NotRequired[dict[str, Tensor]]
    targets: NotRequired[dict[str, Tensor]]
    teachers: NotRequired[dict[str, Tensor]]


class Batch(TypedDict):
    """Several samples.

    ``image`` is ``(B, 3, H, W)``. ``masks[head]`` is ``(B, h, w)``; where the sources differ in size it is padded at
    the bottom and right with ``IGNORE_INDEX``. ``size`` is ``int64 (B, 2)``: height and width of each source.
    ``masks`` is absent when there are none (prediction). ``labels`` and ``weights`` are those of ``Sample``, stacked;
    they are absent where the data set has none. ``unlabelled[head]`` is bool ``(B, H, W)``, true where nobody annotated
    (absent: all is annotated). ``targets[head]`` is what a head that is no classifier should give: ``hv`` float32
    ``(B, H, W)`` in [0, 1], ``reconstruction`` float32 ``(B, 3, H, W)`` in [0, 1]. ``teachers[head]`` is what the
    teachers of a student say: probabilities float32 ``(B, C, H, W)`` of a dense head, ``(B, K)`` of an image head, and
    under ``ATTENTION`` where they look, ``(B, 1, H, W)``. ``spare`` is true where another process counts these samples;
    it is absent elsewhere.
    """

    id: list[str]
    image: Tensor
    size: Tensor
    spare: NotRequired[bool]
    masks: NotRequired[dict[str, Tensor]]
    labels: NotRequired[dict[str, Tensor]]
    weights: NotRequired[dict[str, Tensor]]
    unlabelled: NotRequired[dict[str, Tensor]]
    targets: NotRequired[dict[str, Tensor]]
    teachers: NotRequired[dict[str, Tensor]]


Outputs: TypeAlias = "dict[str, Tensor]"
"""What a network or predictor returns: one tensor per head. A dense head gives logits ``(B, C, H, W)``, an image head
``(B, K)``."""

Objectives: TypeAlias = "dict[str, Tensor]"
"""What a loss returns: one unweighted scalar per objective. The weighting makes the total."""
