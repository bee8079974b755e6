"""Networks as predictors see them."""

from collections.abc import Mapping

from torch import nn

from hsl.heads import Head, Kind


class Answers(nn.Module):
    """A network that takes any size, with these heads."""

    stride = 1

    def __init__(self, **kinds: Kind) -> None:
        super().__init__()
        self.known_heads: Mapping[str, Head] = {name: Head(name, kind) for name, kind in kinds.items()}
