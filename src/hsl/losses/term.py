"""What a loss term is."""

from typing import Protocol

from torch import Tensor


class Term(Protocol):
    """A module that gives one objective of a dense head.

    ``takes_class_weights`` says whether the third argument of the call has an effect; a term without it is
    given ``None``.
    """

    takes_class_weights: bool

    def __call__(self, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Scalar loss of ``logits (B, C, H, W)`` against ``target int64 (B, H, W)``."""
        ...
