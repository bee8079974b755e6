"""Cross-entropy by torch, and the focal loss (Lin et al. 2017)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hsl.config.ranges import Fraction, FractionBelowOne, NonNegativeFloat
from hsl.errors import ConfigError
from hsl.losses import functional


class CrossEntropy(nn.Module):
    """Cross-entropy, mean over valid pixels weighted by class: see ``functional.cross_entropy``.

    Args:
        label_smoothing: in [0, 1); 0 is off.

    Raises:
        ConfigError: ``label_smoothing`` is out of range.
    """

    takes_class_weights = True

    def __init__(self, label_smoothing: FractionBelowOne = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"`label_smoothing` should be in [0, 1). Found `label_smoothing = {label_smoothing}`.")
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        functional.check_shapes(logits, target, class_weights)
        return functional.cross_entropy(logits, target, class_weights, self.label_smoothing)


class Focal(nn.Module):
    """Focal loss, mean over valid pixels: see ``functional.focal``.

    Args:
        gamma: at least 0; 2.0 in the paper.
        alpha: one factor for all classes or one for each, in [0, 1] and not all 0; it multiplies the class weights.
            ``None`` is 1. The paper takes 0.25 for the one class of its binary form; for several classes a number makes
            the loss lighter beside others and changes nothing else.

    Raises:
        ConfigError: ``gamma`` is negative, or ``alpha`` is out of its range; on the first call, where there are not as
            many as classes.

    Example:
        >>> logits = torch.zeros(1, 2, 1, 1)  # 0.25 log 2, a quarter of it
        >>> round(Focal(alpha=0.25)(logits, torch.zeros(1, 1, 1, dtype=torch.int64)).item(), 4)
        0.0433
    """

    takes_class_weights = True

    alpha: Tensor | None

    def __init__(self, gamma: NonNegativeFloat = 2.0, alpha: Fraction | Sequence[Fraction] | None = None) -> None:
        super().__init__()
        if not gamma >= 0:
            raise ConfigError(f"`gamma` should be at least 0. Found `gamma = {gamma}`.")
        self.gamma = gamma
        values = [alpha] if isinstance(alpha, int | float) else alpha
        if values is not None and not (all(0 <= value <= 1 for value in values) and any(values)):
            raise ConfigError(
                f"`alpha` should be one number or one for each class, in [0, 1] and not all 0. "
                f"Found `alpha = {alpha}`. Change it, or set null for none."
            )
        made = None if values is None else torch.tensor([float(value) for value in values])
        self.register_buffer("alpha", made, persistent=False)  # it comes from the config

    def forward(self, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        functional.check_shapes(logits, target, class_weights)
        if self.alpha is not None:
            if len(self.alpha) not in (1, logits.shape[1]):
                raise ConfigError(
                    f"`alpha` should be one number or {logits.shape[1]} of them, one for each class. "
                    f"Found {len(self.alpha)}. Give as many as there are classes."
                )
            alpha = self.alpha.expand(logits.shape[1])
            class_weights = alpha if class_weights is None else alpha * class_weights
        return functional.focal(logits, target, class_weights, self.gamma)
