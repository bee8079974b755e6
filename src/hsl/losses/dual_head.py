"""The loss of a segmentation head whose masks are not equally sure, beside an image head."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hsl.batch import IGNORE_INDEX, Batch, Objectives, Outputs
from hsl.config.ranges import AtLeastOne, NonNegativeFloat
from hsl.errors import ConfigError
from hsl.losses import functional
from hsl.losses.class_weights import Method, weigh_classes
from hsl.losses.protocols import Loss

SEGMENTATION = "segmentation"


class DualHeadLoss(nn.Module, Loss):
    """``segmentation``: weighted Dice and cross-entropy of the masks; ``classification``: the loss of the image head.

    Args:
        classification: called with ``class_counts`` and ``presence_pixels``; the loss of the image head.
        class_counts: head -> counts in the training part of the fold.
        presence_pixels: head -> see `hsl.data.loading.sampling.presence`.
        weights: of both objectives, for the weighting; 0.4 and 0.6 where both heads learn.
        activation: ``softmax``: a pixel has one class; ``sigmoid``: the channels are independent of each other, and
            cross-entropy is the binary one, the mean over channels. The prediction is the largest channel in both.
        smooth: of Dice.
        class_weights: of the dense head, see ``class_weights.weigh_classes``; with ``softmax`` only.
        max_ratio: largest class weight over the smallest.
        focus: ``foreground``: each picture's classification loss is multiplied by the share of foreground that the
            segmentation head predicts for it, over the batch's mean share. ``None``: pictures count alike.

    Raises:
        ConfigError: an argument is unknown, or class weights are given for sigmoid channels.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        classification: Callable[..., nn.Module],
        class_counts: Mapping[str, Tensor],
        presence_pixels: Mapping[str, Tensor],
        weights: Mapping[str, NonNegativeFloat],
        activation: Literal["softmax", "sigmoid"] = "softmax",
        smooth: NonNegativeFloat = 1.0,
        class_weights: Method | Sequence[float] | None = None,
        max_ratio: AtLeastOne = 40.0,
        focus: Literal["foreground"] | None = None,
    ) -> None:
        super().__init__()
        if activation not in ("softmax", "sigmoid") or focus not in (None, "foreground"):
            raise ConfigError(
                "`loss.activation` should be softmax or sigmoid, `loss.focus` null or foreground. "
                f"Found {activation} and {focus}."
            )
        if activation == "sigmoid" and class_weights is not None:
            raise ConfigError(
                "`loss.class_weights` should be null with `loss.activation=sigmoid`. "
                f"Found {class_weights}: independent channels do not compete for a pixel."
            )
        self.classification = classification(class_counts=class_counts, presence_pixels=presence_pixels)
        self.weights = dict(weights)
        self.activation, self.smooth, self.focus = activation, smooth, focus
        made = None
        if class_weights is not None:
            made = weigh_classes(
                class_counts[SEGMENTATION],
                class_weights,
                max_ratio=max_ratio,
                presence_pixels=presence_pixels[SEGMENTATION],
            )
        self.register_buffer("class_weights", made, persistent=False)

    def forward(self, outputs: Outputs, batch: Batch) -> Objectives:
        """Unweighted scalar per objective.

        Args:
            outputs: logits ``(B, C, H, W)`` of the dense and ``(B, K)`` of the image head.
            batch: masks ``int64 (B, H, W)``, labels, and perhaps weights that broadcast to the masks.
        """
        logits, target = outputs[SEGMENTATION], batch["masks"][SEGMENTATION]
        pixel_weights = batch["weights"][SEGMENTATION] if "weights" in batch else None
        with torch.autocast(logits.device.type, enabled=False):
            segmentation = weighted_dice_ce(
                logits.float() if logits.dtype != torch.float64 else logits,
                target,
                pixel_weights,
                self.class_weights,
                activation=self.activation,
                smooth=self.smooth,
            )
            shares = self._foreground_shares(logits) if self.focus else None
            return {SEGMENTATION: segmentation, **self.classification(outputs, batch, shares)}

    def _foreground_shares(self, logits: Tensor) -> Tensor:
        foreground = 1 - logits.detach().float().softmax(dim=1)[:, 0].mean(dim=(1, 2))
        return foreground / foreground.mean().clamp_min(torch.finfo(torch.float32).tiny)


def weighted_dice_ce(
    logits: Tensor,
    target: Tensor,
    pixel_weights: Tensor | None = None,
    class_weights: Tensor | None = None,
    *,
    activation: str = "softmax",
    smooth: float = 1.0,
) -> Tensor:
    """Half Dice, half cross-entropy, with a weight for each pixel.

    With weights v and N valid pixels: cross-entropy is ``sum_i v_i c_i / N``; Dice takes its sums over ``v_i`` times
    the pixel and is multiplied by the mean weight ``sum_i v_i / N``. So weights of 1 give the plain losses, and weights
    that are all 0.5 give half of them.

    Args:
        logits: ``(B, C, H, W)``.
        target: ``int64 (B, H, W)``.
        pixel_weights: broadcasts to ``(B, H, W)``, at least 0.
        class_weights: ``(C,)``, with softmax only.
        activation: ``softmax`` or ``sigmoid``.
        smooth: of Dice.

    Returns:
        A scalar; 0 with a gradient path where no pixel counts.
    """
    functional.check_shapes(logits, target, class_weights)
    num_classes = logits.shape[1]
    valid = (target != IGNORE_INDEX).to(logits.dtype)
    weights = valid if pixel_weights is None else valid * pixel_weights.to(logits.dtype)
    truth = functional.one_hot(target, num_classes, logits.dtype)
    if activation == "softmax":
        losses = F.cross_entropy(logits, target, class_weights, ignore_index=IGNORE_INDEX, reduction="none")
        probabilities = logits.softmax(dim=1)
    else:
        losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(dim=1)
        probabilities = logits.sigmoid()
    tiny = torch.finfo(logits.dtype).tiny
    number = valid.sum().clamp_min(tiny)
    counted = weights[:, None]
    overlap, total = ((counted * both).sum(dim=(0, 2, 3)) for both in (probabilities * truth, probabilities + truth))
    present = ((truth * counted).sum(dim=(0, 2, 3)) > 0).to(logits.dtype)
    dice = 1 - functional.overlap_index(overlap, total / 2, smooth / 2)
    shares = present if class_weights is None else present * class_weights
    mean_dice = (dice * shares).sum() / shares.sum().clamp_min(tiny)
    return 0.5 * (losses * weights).sum() / number + 0.5 * mean_dice * weights.sum() / number
