"""The loss of one dense head: named terms in, named objectives out."""

import warnings
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from hsl.batch import Batch, Objectives, Outputs
from hsl.config.ranges import AtLeastOne, FractionBelowOne, NonNegativeFloat
from hsl.errors import ConfigError
from hsl.losses.class_weights import Method, weigh_classes
from hsl.losses.protocols import Loss, Term


class SegmentationLoss(nn.Module, Loss):
    """Evaluates every term on one head's logits and returns the unweighted scalars; the weighting makes the
    total.

    Runs in float32 under automatic mixed precision.

    Args:
        terms: objective name -> module with ``Term``'s call.
        weights: objective name -> its share of the total, for the weighting.
        class_counts: head -> ``int64 (C,)`` valid pixels in the training part of the fold.
        class_weights: how to weigh the classes (see ``class_weights.weigh_classes``), a list of weights, or
            ``None``.
        max_ratio: largest class weight over the smallest.
        beta: of ``effective_number``.
        head: the dense head whose logits and masks are compared.
        presence_pixels: head -> ``int64 (C,)``, for ``median_frequency`` only.

    Raises:
        ConfigError: terms and weights do not name the same objectives, the head is unknown, or no term takes
            the class weights asked for.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        terms: Mapping[str, nn.Module],
        weights: Mapping[str, NonNegativeFloat],
        class_counts: Mapping[str, Tensor],
        class_weights: Method | Sequence[float] | None = "inverse_sqrt",
        max_ratio: AtLeastOne = 40.0,
        beta: FractionBelowOne = 0.9999,
        head: str = "segmentation",
        presence_pixels: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        if set(terms) != set(weights) or not terms:
            raise ConfigError(
                f"`loss.weights` should name the terms of the loss. Found weights for {sorted(weights)} "
                f"and terms {sorted(terms)}."
            )
        if head not in class_counts:
            raise ConfigError(
                f"`loss.head` should be one of {sorted(class_counts)}. Found `loss.head = {head}`. "
                "Set it, or choose the loss of such a task: `hsl options loss` lists them."
            )
        self.head = head
        self.terms = nn.ModuleDict(dict(terms))
        self.weights = {name: float(weight) for name, weight in weights.items()}
        made = None
        if class_weights is not None:
            _check_takers({name: cast(Term, term) for name, term in terms.items()})
            pixels = None if presence_pixels is None else presence_pixels[head]
            made = weigh_classes(
                class_counts[head], class_weights, max_ratio=max_ratio, beta=beta, presence_pixels=pixels
            )
        # Derived from config and data, so not part of a checkpoint.
        self.register_buffer("class_weights", made, persistent=False)

    def forward(self, outputs: Outputs, batch: Batch) -> Objectives:
        """Unweighted scalar per term.

        Args:
            outputs: holds ``outputs[head]``, logits ``(B, C, H, W)``.
            batch: holds ``batch["masks"][head]``, ``int64 (B, H, W)``.

        Raises:
            ValueError: shapes or dtypes do not fit.
        """
        logits, target = outputs[self.head], batch["masks"][self.head]
        with torch.autocast(logits.device.type, enabled=False):
            return {
                name: term(logits, target, self.class_weights if term.takes_class_weights else None)
                for name, term in self.terms.items()
            }


def _check_takers(terms: Mapping[str, Term]) -> None:
    unweighted = sorted(name for name, term in terms.items() if not term.takes_class_weights)
    if len(unweighted) == len(terms):
        raise ConfigError(f"No term of the loss takes class weights: {unweighted}. Set `loss.class_weights=null`.")
    if unweighted:
        warnings.warn(f"These terms take no class weights, the others do: {', '.join(unweighted)}.", stacklevel=3)
