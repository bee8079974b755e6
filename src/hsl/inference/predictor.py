"""What a predictor is and asks of a network; how images get onto its grid, and logits back to the source pixels."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from hsl.batch import Outputs
from hsl.heads import Head


class Network(Protocol):
    """What a predictor asks of a network."""

    @property
    def known_heads(self) -> Mapping[str, Head]:
        """Its heads by name."""
        ...

    @property
    def stride(self) -> int:
        """Height and width of an image must be multiples of it, in pixels."""
        ...

    def __call__(self, image: Tensor, /) -> Outputs:
        """Normalised image ``(B, 3, H, W)`` to one output per head."""
        ...


Predictor = Callable[[Network, Tensor], Outputs]
"""Says what a network sees in images ``(B, 3, H, W)`` of any size: whole, by windows, or averaged over orientations."""


def to_source_size(logits: Tensor, size: Tensor) -> Tensor:
    """Resize each picture's logits to its own source size and stack them.

    The network sees every picture at one size; scores are counted on the untouched masks. So logits travel,
    never masks: a crack of one pixel that a shrunken mask would lose still counts.

    Args:
        logits: ``(B, C, H, W)``.
        size: ``int64 (B, 2)``, height and width of each source.

    Returns:
        ``(B, C, max height, max width)``, bilinear, zero where a smaller picture ends. The masks are padded with
        ``IGNORE_INDEX`` at the same places, so nothing there is ever counted.
    """
    sizes = [(int(height), int(width)) for height, width in size.tolist()]
    if all(one == tuple(logits.shape[-2:]) for one in sizes):
        return logits
    if len(set(sizes)) == 1:
        return F.interpolate(logits, sizes[0], mode="bilinear", align_corners=False)
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    canvas = logits.new_zeros((*logits.shape[:2], height, width))
    for i, (h, w) in enumerate(sizes):
        canvas[i, :, :h, :w] = F.interpolate(logits[i : i + 1], (h, w), mode="bilinear", align_corners=False)[0]
    return canvas


def reflected_to(images: Tensor, height: int, width: int) -> Tensor:
    """Grow pictures ``(..., H, W)`` at the bottom and at the right by reflection, without repeating the border pixel.

    ``a b c d`` goes on with ``c b a b ...``, as often as needed; a side of one pixel is repeated. A side that is long
    enough stays as it is.
    """
    for axis, target in ((-2, height), (-1, width)):
        if (size := images.shape[axis]) < target:
            images = images.index_select(axis, _reflected(size, target, images.device))
    return images


def _reflected(size: int, target: int, device: torch.device) -> Tensor:
    """Where each of ``target`` positions reads from: a triangle wave of period ``2 (size - 1)``."""
    period = max(1, 2 * (size - 1))
    position = torch.arange(target, device=device) % period
    return torch.where(position < size, position, period - position)
