"""What kind of errors a segmentation makes: disjoint shares of the valid pixels."""

import torch
from torch import Tensor
from torchmetrics import Metric

from hsl.batch import IGNORE_INDEX
from hsl.metrics.boundary import WIDTH_RATIO, boundary_width, contours, dilate, sizes_of
from hsl.metrics.confusion import predicted_classes
from hsl.metrics.functional import checked_classes, pair_counts

KINDS = ("background", "missed", "classification")
PLACES = ("interior", "boundary")


def near_contour(classes: Tensor, width: int) -> Tensor:
    """Valid pixels within ``width`` (chessboard distance) of another class in the target: ``bool (H, W)``."""
    return dilate(contours(classes), width - 1) & (classes != IGNORE_INDEX)


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


class ErrorBreakdown(Metric):
    """Error breakdown pooled over the pixels of the data set, summed over devices.

    Args:
        num_classes: C.
        ratio: d as a share of the picture's diagonal.
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False

    matrices: Tensor

    def __init__(self, num_classes: int, ratio: float = WIDTH_RATIO) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ratio = ratio
        zeros = torch.zeros(2, num_classes, num_classes, dtype=torch.int64)
        self.add_state("matrices", zeros, dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor, size: Tensor | None = None) -> None:
        """Add the pictures of a batch; arguments and errors as in ``boundary.Boundary``.

        Raises:
            ValueError: shapes do not fit, or a target is neither a class nor ``IGNORE_INDEX``.
        """
        classes = checked_classes(target, self.num_classes)
        prediction = predicted_classes(logits, self.num_classes)
        for picture, truth, (height, width) in zip(prediction, classes, sizes_of(target, size), strict=True):
            picture, truth = picture[:height, :width], truth[:height, :width]
            near = near_contour(truth, boundary_width(height, width, self.ratio))
            self.matrices += pair_counts(picture, truth, self.num_classes, near, 2)

    def compute(self) -> dict[str, Tensor]:
        """``error_<kind>_<place>`` of everything seen, see ``error_breakdown``."""
        return error_breakdown(self.matrices)
