"""What a predictor is and asks of a network, and the plain one: one look at the whole image.

Also how images get onto the grid of a network, and its logits back to the pixels of the source.
"""

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from hsl.batch import Outputs
from hsl.config.ranges import PositiveInt
from hsl.errors import ConfigError
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


class Whole:
    """Runs the network on the whole picture, padded to a size that the network can take.

    The picture grows at the bottom and at the right by reflection without repeating the border pixel (``a b c
    d`` goes on with ``c b a b ...``), as often as needed, so that also a picture smaller than the padding
    works. A picture of one pixel has nothing to reflect and is repeated. What was padded is cropped off the
    outputs.

    Args:
        stride: height and width are padded to a multiple of it, >= 1, and of ``network.stride``. The total downsampling
            of the encoder.

    Raises:
        ConfigError: ``stride`` is below 1.
    """

    def __init__(self, stride: PositiveInt) -> None:
        if stride < 1:
            raise ConfigError(
                f"`stride` should be at least 1. Found `stride = {stride}`. Give the encoder's downsampling."
            )
        self.stride = stride

    def __call__(self, network: Network, images: Tensor) -> Outputs:
        """Outputs of ``network`` for ``images`` ``(B, 3, H, W)``; all but image heads are cropped to it.

        Raises:
            ValueError: a head that is no image head answers at another size than its input.
        """
        height, width = images.shape[-2:]
        stride = math.lcm(self.stride, network.stride)  # windows of attention may ask for more
        padded = reflected_to(images, height + -height % stride, width + -width % stride)
        outputs: Outputs = network(padded)
        spatial = {name for name in outputs if network.known_heads[name].kind != "image"}
        for head, output in outputs.items():
            if head in spatial and output.shape[-2:] != padded.shape[-2:]:
                raise ValueError(
                    f"Head `{head}` should answer at the size of its input, {tuple(padded.shape[-2:])}. "
                    f"Found {tuple(output.shape[-2:])}. Give the head an upsampling to the input size."
                )
        return {head: output[..., :height, :width] if head in spatial else output for head, output in outputs.items()}
