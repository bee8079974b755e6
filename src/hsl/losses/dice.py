"""Soft Dice loss (Milletari et al. 2016)."""

from torch import Tensor, nn

from hsl.config.ranges import NonNegativeFloat
from hsl.errors import ConfigError
from hsl.losses import functional


class Dice(nn.Module):
    """Soft Dice loss over classes, sums over batch and space: see ``functional.soft_dice``.

    Args:
        smooth: at least 0.
        classes: ``present`` (in the batch's target) or ``all``.

    Raises:
        ConfigError: an argument is out of range.
    """

    takes_class_weights = True

    def __init__(self, smooth: NonNegativeFloat = 1.0, classes: functional.Classes = "present") -> None:
        super().__init__()
        if not smooth >= 0:
            raise ConfigError(f"`smooth` should be at least 0. Found `smooth = {smooth}`.")
        if classes not in ("present", "all"):
            raise ConfigError(f"`classes` should be 'present' or 'all'. Found `classes = {classes!r}`.")
        self.smooth = smooth
        self.classes = classes

    def forward(self, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        functional.check_shapes(logits, target, class_weights)
        return functional.soft_dice(logits, target, class_weights, self.smooth, self.classes)
