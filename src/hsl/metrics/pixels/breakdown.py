"""What kind of errors a segmentation makes: disjoint shares of the valid pixels."""

from torch import Tensor

KINDS = ("background", "missed", "classification")
PLACES = ("interior", "boundary")


def error_breakdown(matrices: Tensor) -> dict[str, Tensor]:
    """Shares of the valid pixels that are wrong, by kind and place; their sum is 1 - pixel accuracy.

    ``background``: foreground predicted on background (class 0). ``missed``: the reverse. ``classification``:
    both foreground, unlike classes. Each is split into ``boundary`` (within d of a contour of the target) and
    ``interior``. NaN without a valid pixel.

    Args:
        matrices: ``int64 (..., 2, C, C)``: confusion matrices of interior and boundary pixels, rows target;
            leading dimensions are kept.

    Returns:
        ``float64 (...)``: ``error_<kind>_<place>``, six of them.

    Example:
        >>> import torch
        >>> interior, boundary = torch.tensor([[5, 1], [0, 2]]), torch.tensor([[0, 0], [2, 0]])
        >>> shares = error_breakdown(torch.stack([interior, boundary]))
        >>> shares["error_background_interior"].item(), shares["error_missed_boundary"].item()
        (0.1, 0.2)
    """
    total = matrices.sum((-3, -2, -1)).double()
    foreground = matrices[..., 1:, 1:]
    counts = (
        matrices[..., 0, 1:].sum(-1),
        matrices[..., 1:, 0].sum(-1),
        foreground.sum((-2, -1)) - foreground.diagonal(dim1=-2, dim2=-1).sum(-1),
    )
    return {
        f"error_{kind}_{place}": pixels[..., index] / total
        for kind, pixels in zip(KINDS, counts, strict=True)
        for index, place in enumerate(PLACES)
    }
