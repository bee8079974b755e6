"""Losses of an image head: one class per picture, or any number of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hsl.batch import UNKNOWN_LABEL, Batch, Objectives, Outputs
from hsl.config.ranges import AtLeastOne, FractionAboveZero, FractionBelowOne, NonNegativeFloat
from hsl.errors import ConfigError
from hsl.losses.class_weights import Method, weigh_classes
from hsl.losses.protocols import Loss

OBJECTIVE = "classification"

Alpha = float | Sequence[float] | Literal["dynamic"] | None


class ImageCrossEntropy(nn.Module, Loss):
    """Cross-entropy of one class per picture, the mean over the pictures whose class is known.

    ``sum_i w_{t_i} v_i (-log p_{t_i}) / sum_i w_{t_i}``, with class weights w and picture weights v (1 unless given).

    Args:
        class_counts: head -> ``int64 (K,)`` pictures per class in the training part of the fold.
        class_weights: as for dense heads (``class_weights.weigh_classes``); ``None``: all alike.
        max_ratio: largest class weight over the smallest.
        label_smoothing: in [0, 1).
        head: the image head.
        weights: of the one objective, for the weighting.
        presence_pixels: head -> ``int64 (K,)``; taken because every loss is given it.
        hard_share: share of the batch's pictures that count, those of the largest loss; see `hardest`.

    Raises:
        ConfigError: the data have no image labels, or ``hard_share`` is out of range.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        class_counts: Mapping[str, Tensor],
        class_weights: Method | Sequence[float] | None = None,
        max_ratio: AtLeastOne = 40.0,
        label_smoothing: FractionBelowOne = 0.0,
        head: str = OBJECTIVE,
        weights: Mapping[str, NonNegativeFloat] | None = None,
        presence_pixels: Mapping[str, Tensor] | None = None,
        hard_share: FractionAboveZero = 1.0,
    ) -> None:
        super().__init__()
        del presence_pixels
        _check_head(head, class_counts)
        self.head, self.label_smoothing, self.hard_share = head, label_smoothing, _share(hard_share)
        self.weights = dict(weights or {OBJECTIVE: 1.0})
        made = None
        if class_weights is not None:
            made = weigh_classes(class_counts[head], class_weights, max_ratio=max_ratio)
        self.register_buffer("class_weights", made, persistent=False)

    def forward(self, outputs: Outputs, batch: Batch, picture_weights: Tensor | None = None) -> Objectives:
        """Logits ``(B, K)`` against ``int64 (B,)``; -1 counts nowhere.

        Raises:
            ConfigError: the labels are not one class per picture.
        """
        logits, labels = outputs[self.head].float(), batch["labels"][self.head]
        if labels.ndim != 1:
            raise ConfigError(
                "`loss` should be for several classes per picture, since `data.image_labels` lists columns. Found one "
                "for a single class. Choose `loss=focal_multilabel` or `loss=bce`, with a dense head beside it "
                "`loss=dual_head_multilabel`; or name one column."
            )
        known = labels != UNKNOWN_LABEL
        target = torch.where(known, labels, 0)
        losses = F.cross_entropy(
            logits, target, self.class_weights, reduction="none", label_smoothing=self.label_smoothing
        )
        known = hardest(losses, known, self.hard_share)
        mass = known.to(losses.dtype)
        if self.class_weights is not None:
            mass = mass * self.class_weights[target]
        values = losses * known
        if picture_weights is not None:
            values = values * picture_weights
        return {OBJECTIVE: values.sum() / mass.sum().clamp_min(torch.finfo(losses.dtype).tiny)}


class MultilabelFocal(nn.Module, Loss):
    """Binary focal loss of several classes per picture, the mean over the labels that are known.

    ``-a_t (1 - p_t)^gamma log p_t`` with ``a_t = alpha_c`` where the class is present and ``1 - alpha_c`` where it is
    not. Source: Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 5. With ``alpha`` null and
    ``gamma`` 0 it is binary cross-entropy.

    Equal to ``torchvision.ops.sigmoid_focal_loss`` to 1e-6, which takes no alpha per class and forms ``1 - p_t`` by
    subtraction: with gamma 0.5 its gradient is NaN from a logit of 17 on, and it takes 2.6 times as long.

    Args:
        class_counts: head -> ``int64 (K,)`` training pictures that show each class.
        presence_pixels: head -> ``int64 (K,)`` training pictures of which it is known whether they do.
        alpha: one number for all classes, one for each, ``dynamic``: ``alpha_c = 1 - n_c / N`` over the training part
            of the fold, or ``None``: no factor. In [0, 1].
        gamma: at least 0; 2.0 in the paper.
        head: the image head.
        weights: of the one objective, for the weighting.
        hard_share: share of the batch's pictures that count, those of the largest loss; see `hardest`.

    Raises:
        ConfigError: an argument is out of range, or the data have no image labels.
    """

    alpha: Tensor | None

    def __init__(
        self,
        class_counts: Mapping[str, Tensor],
        presence_pixels: Mapping[str, Tensor],
        alpha: Alpha = "dynamic",
        gamma: NonNegativeFloat = 2.0,
        head: str = OBJECTIVE,
        weights: Mapping[str, NonNegativeFloat] | None = None,
        hard_share: FractionAboveZero = 1.0,
    ) -> None:
        super().__init__()
        _check_head(head, class_counts)
        if not gamma >= 0:
            raise ConfigError(f"`loss.gamma` should be at least 0. Found `loss.gamma = {gamma}`.")
        self.head, self.gamma, self.hard_share = head, gamma, _share(hard_share)
        self.weights = dict(weights or {OBJECTIVE: 1.0})
        self.register_buffer("alpha", _alpha(alpha, class_counts[head], presence_pixels[head]), persistent=False)

    def forward(self, outputs: Outputs, batch: Batch, picture_weights: Tensor | None = None) -> Objectives:
        """Logits ``(B, K)`` against ``float32 (B, K)`` of 0 and 1; NaN counts nowhere.

        Raises:
            ConfigError: the labels are one class per picture.
        """
        logits, labels = outputs[self.head].float(), batch["labels"][self.head]
        if labels.shape != logits.shape:
            raise ConfigError(
                "`loss` should be for one class per picture, since `data.image_labels` names one column. Found one for "
                "several. Choose `loss=image_ce`, with a dense head beside it `loss=dual_head`; or list columns."
            )
        known = ~labels.isnan()
        target = torch.where(known, labels, 0.0)
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        if self.gamma:
            # 1 - p_t from the logits: no cancellation at either end; not 0, where the slope is infinite for gamma < 1
            miss = torch.sigmoid(logits * (1 - 2 * target)).clamp_min(torch.finfo(losses.dtype).tiny)
            losses = losses * miss.pow(self.gamma)
        if self.alpha is not None:
            losses = losses * torch.where(target > 0, self.alpha, 1 - self.alpha)
        means = (losses * known).sum(dim=1) / known.sum(dim=1).clamp_min(1)
        known = known & hardest(means, known.any(dim=1), self.hard_share)[:, None]
        if picture_weights is not None:
            losses = losses * picture_weights[:, None]
        return {OBJECTIVE: (losses * known).sum() / known.sum().clamp_min(1)}


def hardest(losses: Tensor, known: Tensor, share: float) -> Tensor:
    """Which pictures of a batch count: of the known ones that share, rounded up, which has the largest loss.

    Source: Shrivastava et al. 2016, "Training Region-based Object Detectors with Online Hard Example Mining", 4.
    Where memory backoff cuts a batch, each slice keeps that share of its own pictures.

    Args:
        losses: ``(B,)``, one a picture.
        known: ``bool (B,)``.
        share: in (0, 1]; 1 keeps all.

    Returns:
        ``bool (B,)``, True only where ``known`` is.

    Example:
        >>> hardest(torch.tensor([0.1, 3.0, 2.0, 9.0]), torch.tensor([True, True, True, False]), 0.5).tolist()
        [False, True, True, False]
    """
    if share == 1:
        return known
    order = torch.where(known, losses.detach(), -torch.inf).argsort(descending=True, stable=True)
    kept = torch.arange(len(losses), device=losses.device) < torch.ceil(share * known.sum())
    return torch.zeros_like(known).scatter(0, order, kept) & known


def _share(share: float) -> float:
    if not 0 < share <= 1:
        raise ConfigError(
            f"`hard_share` is the share of a batch that counts and should be in (0, 1]. Found `hard_share = {share}`. "
            "Set 1.0 to let every picture count."
        )
    return float(share)


def _alpha(alpha: Alpha, counts: Tensor, known: Tensor) -> Tensor | None:
    if alpha is None:
        return None
    if alpha == "dynamic":
        return 1 - counts.float() / known.clamp_min(1)
    values: Any = [alpha] * len(counts) if isinstance(alpha, int | float) else alpha
    made = torch.tensor([float(value) for value in values] if not isinstance(values, str) else [-1.0])
    if len(made) != len(counts) or made.min() < 0 or made.max() > 1:
        raise ConfigError(
            f"`loss.alpha` should be dynamic, null, or numbers in [0, 1], one or {len(counts)} of them. "
            f"Found `loss.alpha = {alpha}`."
        )
    return made


def _check_head(head: str, class_counts: Mapping[str, Tensor]) -> None:
    if head not in class_counts:
        raise ConfigError(
            f"`loss.head` should be a head of the data, {sorted(class_counts)}. Found `loss.head = {head}`. "
            "Give the column of the image labels with `data.image_labels`."
        )
