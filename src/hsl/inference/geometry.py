"""From the network's grid back to the pixels of the source pictures."""

from torch import Tensor
from torch.nn import functional as F


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
