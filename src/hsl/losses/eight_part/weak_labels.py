"""What a binary mask with weak labels says of each pixel, and the targets of the segmentation part made of it."""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from hsl.batch import IGNORE_INDEX
from hsl.losses.functional import as_float, check_shapes


@dataclass(frozen=True)
class Pixels:
    """The logits of the dense head beside what is known of each pixel; every tensor is ``(B, H, W)``.

    ``probabilities``: sigmoid of the logits. ``valid``: not ignored. ``positive``: annotated as object. ``unknown``:
    valid and not annotated; ``None`` where every pixel is annotated. These three are bool.
    """

    logits: Tensor
    probabilities: Tensor
    valid: Tensor
    positive: Tensor
    unknown: Tensor | None

    @cached_property
    def log_probabilities(self) -> Tensor:
        """``log p``, finite for every finite logit; ``log(1 - p)`` is this minus the logit."""
        return F.logsigmoid(self.logits)

    @cached_property
    def weight(self) -> Tensor:
        """``valid`` as 0 and 1 in the type of the logits."""
        return self.valid.to(self.logits.dtype)


def read_pixels(logits: Tensor, mask: Tensor, unlabelled: Tensor | None = None) -> Pixels:
    """Logits in float32 and the three kinds of pixels.

    Args:
        logits: ``(B, 1, H, W)``.
        mask: ``int64 (B, H, W)``: 1 object, 0 background or not annotated, 255 ignored.
        unlabelled: bool ``(B, H, W)``, true where no annotator looked, whatever the mask says there. ``None``: the
            mask is fully annotated, so every 0 is background.

    Raises:
        ValueError: shapes or types do not fit.
    """
    check_shapes(logits, mask)
    if logits.shape[1] != 1:
        raise ValueError(
            "`logits` should have one channel, the logit of class 1. "
            f"Found `logits.shape = {tuple(logits.shape)}`. Build the head with one output."
        )
    valid, raised = mask != IGNORE_INDEX, as_float(logits[:, 0])
    if unlabelled is None:
        return Pixels(raised, raised.sigmoid(), valid, mask == 1, None)
    if unlabelled.shape != mask.shape or unlabelled.dtype != torch.bool:
        raise ValueError(
            f"`unlabelled` should be bool of the mask's shape {tuple(mask.shape)}. Found "
            f"`unlabelled.shape = {tuple(unlabelled.shape)}`, `unlabelled.dtype = {unlabelled.dtype}`."
        )
    return Pixels(raised, raised.sigmoid(), valid, (mask == 1) & ~unlabelled, valid & unlabelled)


def weak_targets(
    pixels: Pixels, t_pos: float, t_neg: float, pseudo_weight: float, rest_weight: float, opening: int = 0
) -> tuple[Tensor, Tensor]:
    """Target and weight of each pixel for the segmentation part.

    | pixel | target | weight |
    |---|---|---|
    | annotated | the mask | 1 |
    | not annotated, ``p > t_pos`` (pseudo-positive) | 1 | ``pseudo_weight`` |
    | not annotated, ``p < t_neg`` (pseudo-negative) | 0 | ``pseudo_weight`` |
    | not annotated, the rest | 0 | ``rest_weight (1 - annotated object pixels / valid pixels of the picture)`` |
    | ignored | 0 | 0 |

    Args:
        pixels: as read.
        t_pos: as above.
        t_neg: as above.
        pseudo_weight: as above.
        rest_weight: as above.
        opening: side of the square with which both pseudo-masks are opened, so that what is narrower falls back
            to the rest; 0 is off.

    Returns:
        Target, bool, and weight, both ``(B, H, W)``.
    """
    if pixels.unknown is None:
        return pixels.positive, pixels.weight
    pseudo_positive = opened((pixels.probabilities > t_pos) & pixels.unknown, opening)
    pseudo_negative = opened((pixels.probabilities < t_neg) & pixels.unknown, opening)
    labelled_share = pixels.positive.sum((1, 2)) / pixels.valid.sum((1, 2)).clamp_min(1)
    rest = (rest_weight * (1 - labelled_share)).to(pixels.weight.dtype).view(-1, 1, 1)
    weight = torch.where(pixels.unknown, rest, pixels.weight)
    weight = weight.masked_fill_(pseudo_positive | pseudo_negative, pseudo_weight)
    return pixels.positive | pseudo_positive, weight


def opened(mask: Tensor, size: int) -> Tensor:
    """Morphological opening of bool ``(B, H, W)`` with a square of odd side: what the square does not fit into goes.

    The border of the picture takes nothing away. The result lies inside the mask.

    Example:
        >>> mask = torch.tensor([[[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 0]]]).bool()
        >>> opened(mask, 3).int().tolist()
        [[[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0]]]
    """
    if size <= 1:
        return mask
    outside = (~mask).float()
    eroded = 1 - F.max_pool2d(outside, size, stride=1, padding=size // 2)
    return F.max_pool2d(eroded, size, stride=1, padding=size // 2) > 0


def resize_labels(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """``(B, H, W)`` at another size: each new pixel reads the old one below its centre.

    Example:
        >>> resize_labels(torch.arange(8).view(1, 2, 4), (1, 2)).tolist()
        [[[5, 7]]]
    """
    if tuple(mask.shape[1:]) == size:
        return mask
    rows, columns = (
        ((torch.arange(new, device=mask.device) + 0.5) * (old / new)).long()
        for old, new in zip(mask.shape[1:], size, strict=True)
    )
    return mask[:, rows[:, None], columns]
