"""Losses of the overlap: Dice (Milletari et al. 2016), Tversky, Jaccard, and Lovasz-Softmax.

Tversky and Jaccard share the formula of Dice, `functional.soft_tversky`, and equal those of segmentation_models_pytorch
to 4e-7 in value and gradient where every class is present. smp also divides by the classes that the batch lacks, so
that its value depends on how many these are, and takes 2.8 times as long (40 ms against 14 ms for 4 pictures of
256 x 256 with 8 classes on one CPU core).
"""

import torch
from segmentation_models_pytorch.losses import LovaszLoss
from torch import Tensor, nn

from hsl.batch import IGNORE_INDEX
from hsl.config.ranges import AtLeastOne, NonNegativeFloat, PositiveFloat
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
        self.alpha, self.beta, self.gamma, self.smooth = alpha, beta, gamma, smooth

    def forward(self, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        functional.check_shapes(logits, target, class_weights)
        loss = functional.soft_tversky(logits, target, self.alpha, self.beta, self.smooth, class_weights)
        return loss**self.gamma


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
        self.smooth = smooth

    def forward(self, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        functional.check_shapes(logits, target, class_weights)
        return functional.soft_tversky(logits, target, 1.0, 1.0, self.smooth, class_weights)


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


class Lovasz(nn.Module):
    """Lovasz-Softmax: a convex surrogate of the mean IoU over the classes present in the batch.

    Source: Berman et al. 2018, "The Lovasz-Softmax loss", section 3. It has no class weights. smp
    returns an empty tensor for a batch without a valid pixel; here that is 0. smp computes in float32 only.
    """

    takes_class_weights = False

    def __init__(self) -> None:
        super().__init__()
        self.surrogate = LovaszLoss("multiclass", per_image=False, ignore_index=IGNORE_INDEX)

    def forward(self, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        functional.check_shapes(logits, target)
        if class_weights is not None:
            raise ValueError("`class_weights` should be None: Lovasz-Softmax takes no class weights.")
        loss: Tensor = self.surrogate(logits.float(), target)
        return loss.sum()
