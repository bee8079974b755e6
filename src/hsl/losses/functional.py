"""Pure formulas of the segmentation losses.

All take raw logits ``(B, C, H, W)`` and class masks ``int64 (B, H, W)``. Half precision is raised to float32
before the softmax; float64 stays float64. Pixels with ``IGNORE_INDEX`` count nowhere. Without a valid pixel
each gives 0 that is still connected to the logits.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hsl.batch import IGNORE_INDEX

Classes = Literal["present", "all"]


def check_shapes(logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> None:
    """Compare the shapes of logits, target and class weights.

    Raises:
        ValueError: one of them does not fit the others; the message shows both shapes.
    """
    if (
        logits.ndim != 4
        or target.ndim != 3
        or logits.shape[0] != target.shape[0]
        or logits.shape[2:] != target.shape[1:]
    ):
        raise ValueError(
            "`logits` should be (B, C, H, W) and `target` (B, H, W) of the same B, H, W. Found "
            f"`logits.shape = {tuple(logits.shape)}` and `target.shape = {tuple(target.shape)}`. "
            "Resize the logits to the mask before the loss."
        )
    if target.dtype != torch.int64:
        raise ValueError(f"`target` should be int64. Found `target.dtype = {target.dtype}`. Convert with `.long()`.")
    if class_weights is not None and class_weights.shape != (logits.shape[1],):
        raise ValueError(
            f"`class_weights` should hold one weight for each of the {logits.shape[1]} channels of the "
            f"logits. Found `class_weights.shape = {tuple(class_weights.shape)}`."
        )


def as_float(logits: Tensor) -> Tensor:
    """Logits in float32 where they came in half precision; float32 and float64 pass through."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def one_hot(target: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Indicator ``(B, C, H, W)`` of each class; a pixel that is ignored is 0 in every channel."""
    classes = torch.arange(num_classes, device=target.device).view(1, -1, 1, 1)
    return (target.unsqueeze(1) == classes).to(dtype)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """``sum w x / sum w``, and 0 where every weight is 0."""
    return (values * weights).sum() / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)


def target_log_probability(logits: Tensor, target: Tensor) -> Tensor:
    """Log-softmax of each pixel's target class ``(B, H, W)``; that of class 0 where it is ignored."""
    index = torch.where(target == IGNORE_INDEX, 0, target)
    return F.log_softmax(as_float(logits), dim=1).gather(1, index.unsqueeze(1)).squeeze(1)


def cross_entropy(
    logits: Tensor, target: Tensor, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy, the mean over valid pixels weighted by the class weights.

    ``sum_i w_{t_i} (-log p_{t_i}) / sum_i w_{t_i}``, as ``torch.nn.functional.cross_entropy`` has it, except
    that a batch without a valid pixel gives 0 where torch gives NaN.

    Args:
        logits: ``(B, C, H, W)``.
        target: ``int64 (B, H, W)``.
        class_weights: ``(C,)``, at least 0.
        label_smoothing: in [0, 1).

    Returns:
        A scalar.

    Example:
        >>> logits = torch.zeros(1, 4, 2, 2)
        >>> round(cross_entropy(logits, torch.zeros(1, 2, 2, dtype=torch.int64)).item(), 4)  # log 4
        1.3863
    """
    logits = as_float(logits)
    weights = None if class_weights is None else class_weights.to(logits.dtype)
    total = F.cross_entropy(
        logits, target, weights, ignore_index=IGNORE_INDEX, reduction="sum", label_smoothing=label_smoothing
    )
    valid = target != IGNORE_INDEX
    mass = valid.sum() if weights is None else (weights[torch.where(valid, target, 0)] * valid).sum()
    return total / mass.to(logits.dtype).clamp_min(torch.finfo(logits.dtype).tiny)


def focal(logits: Tensor, target: Tensor, class_weights: Tensor | None = None, gamma: float = 2.0) -> Tensor:
    """Focal loss: cross-entropy in which a pixel that is already right counts less.

    ``-w_t (1 - p_t)^gamma log p_t``, the mean over valid pixels (the divisor is their number, not the sum of
    their weights). Source: Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 5, with the
    softmax in place of the sigmoid and ``w_t`` in place of alpha.

    Args:
        logits: ``(B, C, H, W)``.
        target: ``int64 (B, H, W)``.
        class_weights: ``(C,)``, at least 0.
        gamma: at least 0; 2.0 in the paper; 0 is cross-entropy.

    Returns:
        A scalar.

    Example:
        >>> logits = torch.zeros(1, 2, 1, 1)  # p_t = 1/2: 0.25 log 2
        >>> round(focal(logits, torch.zeros(1, 1, 1, dtype=torch.int64)).item(), 4)
        0.1733
    """
    log_p = target_log_probability(logits, target)
    # The clamp keeps the slope of (1 - p)^gamma finite at p = 1 for gamma < 1.
    miss = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).eps) if 0 < gamma < 1 else -torch.expm1(log_p)
    loss = -log_p * miss**gamma
    if class_weights is not None:
        loss = loss * class_weights.to(loss.dtype)[torch.where(target == IGNORE_INDEX, 0, target)]
    valid = target != IGNORE_INDEX
    return (loss * valid).sum() / valid.sum().clamp_min(1)


def soft_dice(
    logits: Tensor,
    target: Tensor,
    class_weights: Tensor | None = None,
    smooth: float = 1.0,
    classes: Classes = "present",
) -> Tensor:
    """Soft Dice loss over classes, with sums over batch and space.

    ``D_c = (2 sum_i p_ic y_ic + s) / (sum_i p_ic + sum_i y_ic + s)`` with the softmax ``p``, the one-hot
    target ``y``, valid pixels ``i`` and ``s = smooth``; the loss is ``sum_c w_c (1 - D_c) / sum_c w_c``.
    Source: Milletari et al. 2016, "V-Net", section 3, there with squares in the denominator and two classes.

    Args:
        logits: ``(B, C, H, W)``.
        target: ``int64 (B, H, W)``.
        class_weights: ``(C,)``, at least 0.
        smooth: at least 0. With 0 and ``classes="all"`` a class that is neither there nor predicted gives 0.
        classes: mean over the classes ``present`` in the batch's target, or over ``all``.

    Returns:
        A scalar.

    Example:
        >>> logits = torch.zeros(1, 2, 1, 2)  # p = 1/2 on two pixels of class 0: D_0 = (2 + 1) / (1 + 2 + 1)
        >>> soft_dice(logits, torch.zeros(1, 1, 2, dtype=torch.int64)).item()
        0.25
    """
    return soft_tversky(logits, target, 0.5, 0.5, smooth / 2, class_weights, classes)


def soft_tversky(
    logits: Tensor,
    target: Tensor,
    alpha: float,
    beta: float,
    smooth: float,
    class_weights: Tensor | None = None,
    classes: Classes = "present",
) -> Tensor:
    """Soft Tversky loss over classes, with sums over batch and space: ``sum_c w_c (1 - T_c) / sum_c w_c``.

    ``T_c = (TP + s) / (TP + alpha FP + beta FN + s)`` from the softmax and the one-hot target over the valid pixels.
    Dice is ``alpha = beta = 0.5`` with half the ``smooth``, Jaccard ``alpha = beta = 1``. Source: Salehi et al. 2017,
    "Tversky loss function for image segmentation".

    Args:
        logits: ``(B, C, H, W)``.
        target: ``int64 (B, H, W)``.
        alpha: price of a false positive, at least 0.
        beta: price of a false negative, at least 0.
        smooth: at least 0.
        class_weights: ``(C,)``, at least 0.
        classes: mean over the classes ``present`` in the batch's target, or over ``all``.

    Returns:
        A scalar.

    Example:
        >>> logits = torch.zeros(1, 2, 1, 2)  # p = 1/2 on two pixels of class 0: TP = FN = 1, FP = 0
        >>> round(soft_tversky(logits, torch.zeros(1, 1, 2, dtype=torch.int64), 0.3, 0.7, 0.0).item(), 4)  # 1 - 1 / 1.7
        0.4118
    """
    probabilities = F.softmax(as_float(logits), dim=1)
    indicator = one_hot(target, logits.shape[1], probabilities.dtype)
    valid = (target != IGNORE_INDEX).unsqueeze(1)
    overlap = (probabilities * indicator).sum(dim=(0, 2, 3))
    predicted = (probabilities * valid).sum(dim=(0, 2, 3))
    true = indicator.sum(dim=(0, 2, 3))
    # in this order the union of Dice is exact: half of predicted + true
    union = (1 - alpha - beta) * overlap + alpha * predicted + beta * true
    loss = 1 - overlap_index(overlap, union, smooth)
    weights = torch.ones_like(true) if class_weights is None else class_weights.to(true.dtype)
    return weighted_mean(loss, weights * (true > 0) if classes == "present" else weights)


def overlap_index(overlap: Tensor, union: Tensor, smooth: float) -> Tensor:
    """``(TP + s) / (union + s)``, and 1 where both are 0: what Dice, Tversky and Jaccard have in common.

    The union of Tversky is ``TP + alpha FP + beta FN``, that of Jaccard all three and that of Dice half the sum of what
    is predicted and what is true; Dice is usually written with twice the overlap, union and ``s``.

    Example:
        >>> overlap_index(torch.tensor(1.0), torch.tensor(5.0), smooth=3.0).item()
        0.5
    """
    tiny = torch.finfo(overlap.dtype).tiny
    return (overlap + smooth).clamp_min(tiny) / (union + smooth).clamp_min(tiny)
