"""What the heads of overlapping channels say together: every channel that a pixel shows, and how surely."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hsl.batch import Outputs


def channel_codes(outputs: Outputs, channels: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The codes of `hsl.channels` of all heads, each by its own most probable class.

    Args:
        outputs: logits ``(B, 2, H, W)`` of each channel; class 1 is that it is there.
        channels: the heads, in the order of the bits.

    Returns:
        Codes ``uint8 (B, H, W)``, and the mean over the channels of the top probability ``float32 (B, H, W)``.

    Example:
        >>> sure = torch.tensor([-9.0, 9.0]).reshape(1, 2, 1, 1)
        >>> codes, confidence = channel_codes({"leaf": sure, "hole": -sure, "spot": sure}, ["leaf", "hole", "spot"])
        >>> codes.item(), round(confidence.item(), 3)
        (5, 1.0)
    """
    first = outputs[channels[0]]
    codes = torch.zeros((first.shape[0], *first.shape[2:]), dtype=torch.uint8, device=first.device)
    confidence = torch.zeros(codes.shape, dtype=torch.float32, device=first.device)
    for bit, channel in enumerate(channels):
        top, present = outputs[channel].float().softmax(dim=1).max(dim=1)
        codes |= present.to(torch.uint8) << bit
        confidence += top / len(channels)
    return codes, confidence
