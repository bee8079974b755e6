"""What a predictor is, and what it asks of a network."""

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from hsl.batch import Outputs
from hsl.heads import Head


class Network(Protocol):
    """What a predictor asks of a network."""

    @property
    def known_heads(self) -> Mapping[str, Head]:
        """Its heads by name."""
        ...

    @property
    def stride(self) -> int:
        """Height and width of an image must be multiples of it, in pixels."""
        ...

    def __call__(self, image: Tensor, /) -> Outputs:
        """Normalised image ``(B, 3, H, W)`` to one output per head."""
        ...


Predictor = Callable[[Network, Tensor], Outputs]
"""Says what a network sees in images ``(B, 3, H, W)`` of any size: whole, by windows, or averaged over orientations."""
