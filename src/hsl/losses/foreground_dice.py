"""Soft Dice loss of one mask among others that it may overlap."""

import torch
from torch import Tensor, nn

from hsl.config.ranges import PositiveFloat
from hsl.errors import ConfigError
from hsl.losses import functional


class ForegroundDice(nn.Module):
    r"""Soft Dice loss of class 1 of a head of two classes: that of a sigmoid mask.

    .. math:: L = 1 - \frac{2 \sum_i p_i y_i + s}{\sum_i p_i + \sum_i y_i + s}, \qquad
        p = \mathrm{softmax}(z)_1 = \sigma(z_1 - z_0)

    with sums over the valid pixels ``i`` of the batch. Unlike ``Dice`` it also counts where the batch does not show the
    class: whatever is predicted of it there costs. Source: Milletari et al. 2016, "V-Net", section 3, there with
    squares in the denominator.

    Args:
        smooth: s, above 0.

    Raises:
        ConfigError: ``smooth`` is out of range.

    Example:
        >>> logits, target = torch.zeros(1, 2, 1, 2), torch.tensor([[[1, 0]]])  # p = 1/2 on both
        >>> round(ForegroundDice(smooth=1.0)(logits, target).item(), 4)  # 1 - (1 + 1) / (1 + 1 + 1)
        0.3333
    """

    takes_class_weights = False

    def __init__(self, smooth: PositiveFloat = 1.0) -> None:
        super().__init__()
        if not smooth > 0:
            raise ConfigError(f"`smooth` should be above 0. Found `smooth = {smooth}`.")
        self.smooth = smooth

    def forward(self, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        functional.check_shapes(logits, target)
        if class_weights is not None:
            raise ValueError("`class_weights` should be None: the mask is one class against the rest.")
        if logits.shape[1] != 2:
            raise ValueError(f"`logits` should have the channels of two classes. Found {logits.shape[1]}.")
        only = torch.tensor([0.0, 1.0], device=logits.device)
        return functional.soft_dice(logits, target, only, self.smooth, "all")
