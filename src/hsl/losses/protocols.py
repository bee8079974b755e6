"""What the task asks of a loss, and a loss of one dense head of its terms."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from hsl.batch import Batch, Objectives, Outputs


class Loss(Protocol):
    """A module that maps outputs and batch to one unweighted scalar per objective. Losses inherit the defaults.

    Attributes:
        weights: objective -> its weight in the total, for the weighting.
        required_heads: the only heads that it reads, so that others need not be built; ``None``: it does not say.
        primary: the tasks whose harmonic mean is monitored; ``None``: it knows no tasks.
        training_only: whether it reads targets that only training batches have; such a loss is not validated.
    """

    weights: Mapping[str, float]
    required_heads: Sequence[str] | None = None
    primary: Sequence[str] | None = None
    training_only: bool = False

    def __call__(self, outputs: Outputs, batch: Batch) -> Objectives:
        """The objectives, each a scalar with a gradient path."""
        ...


class Term(Protocol):
    """A module that gives one objective of a dense head.

    ``takes_class_weights`` says whether the third argument of the call has an effect; a term without it is
    given ``None``.
    """

    takes_class_weights: bool

    def __call__(self, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Scalar loss of ``logits (B, C, H, W)`` against ``target int64 (B, H, W)``."""
        ...
