"""Focal loss (Lin et al. 2017)."""

from torch import Tensor, nn

from hsl.config import ConfigError
from hsl.losses import functional


class Focal(nn.Module):
    """Focal loss, mean over valid pixels: see ``functional.focal``.

    Args:
        gamma: at least 0; 2.0 in the paper.

    Raises:
        ConfigError: ``gamma`` is negative.
    """

    takes_class_weights = True

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        if not gamma >= 0:
            raise ConfigError(f"`gamma` should be at least 0. Found `gamma = {gamma}`.")
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        functional.check_shapes(logits, target, class_weights)
        return functional.focal(logits, target, class_weights, self.gamma)
