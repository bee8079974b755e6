"""Tversky and Jaccard losses by segmentation_models_pytorch.

smp divides by all classes although a class that is absent from the target adds 0, so the value depends on how
many classes the batch lacks. Here the mean is over the classes present (as for Dice): smp's value times
``sum_c w_c / sum_{c present} w_c``.
"""

from segmentation_models_pytorch.losses import JaccardLoss, TverskyLoss
from torch import Tensor, nn

from hsl.batch import IGNORE_INDEX
from hsl.config.ranges import AtLeastOne, NonNegativeFloat
from hsl.errors import ConfigError
from hsl.losses import functional


class Tversky(nn.Module):
    """Tversky loss: Dice with unlike prices for false positives and false negatives.

    ``T_c = (TP + s) / (TP + alpha FP + beta FN + s)`` with soft counts over batch and space; the loss is
    ``(sum_c w_c (1 - T_c) / sum_c w_c)^gamma`` over the classes present. Source: Salehi et al. 2017, "Tversky
    loss function for image segmentation"; gamma from Abraham & Khan 2019, there per class and as
    1/gamma.

    Args:
        alpha: price of a false positive, at least 0; 0.3 in the paper.
        beta: price of a false negative, at least 0; 0.7 in the paper. ``alpha = beta = 0.5`` is Dice.
        gamma: exponent of the loss, at least 1.
        smooth: at least 0.

    Raises:
        ConfigError: an argument is out of range.
    """

    takes_class_weights = True

    def __init__(
        self,
        alpha: NonNegativeFloat = 0.3,
        beta: NonNegativeFloat = 0.7,
        gamma: AtLeastOne = 1.0,
        smooth: NonNegativeFloat = 1.0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("alpha", alpha, 0),
            ("beta", beta, 0),
            ("smooth", smooth, 0),
            ("gamma", gamma, 1),
        ):
            if not value >= least:
                raise ConfigError(f"`{name}` should be at least {least}. Found `{name} = {value}`.")
        self.gamma = gamma
        self.per_class = TverskyLoss("multiclass", alpha=alpha, beta=beta, smooth=smooth, ignore_index=IGNORE_INDEX)

    def forward(self, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        return _mean_over_present(self.per_class, logits, target, class_weights) ** self.gamma


class Jaccard(nn.Module):
    """Soft Jaccard loss ``1 - (TP + s) / (TP + FP + FN + s)``, mean over the classes present.

    Source: Rahman & Wang 2016, "Optimizing Intersection-Over-Union in Deep Neural Networks".

    Args:
        smooth: at least 0.

    Raises:
        ConfigError: ``smooth`` is negative.
    """

    takes_class_weights = True

    def __init__(self, smooth: NonNegativeFloat = 1.0) -> None:
        super().__init__()
        if not smooth >= 0:
            raise ConfigError(f"`smooth` should be at least 0. Found `smooth = {smooth}`.")
        self.per_class = JaccardLoss("multiclass", smooth=smooth, ignore_index=IGNORE_INDEX)

    def forward(self, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        return _mean_over_present(self.per_class, logits, target, class_weights)


def _mean_over_present(
    loss: TverskyLoss | JaccardLoss, logits: Tensor, target: Tensor, class_weights: Tensor | None
) -> Tensor:
    functional.check_shapes(logits, target, class_weights)
    logits = functional.as_float(logits)
    weights = logits.new_ones(logits.shape[1]) if class_weights is None else class_weights.to(logits.dtype)
    loss.class_weights = weights
    present = functional.class_presence(target, logits.shape[1], logits.dtype)
    over_all: Tensor = loss(logits, target)
    return over_all * weights.sum() / (weights * present).sum().clamp_min(1e-12)
