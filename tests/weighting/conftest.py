"""A small network whose two tasks share an encoder of two levels."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hsl.weighting.base import Weighting


class Encoder(nn.Module):
    def __init__(self, norm: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), norm()
        self.second = nn.Conv2d(4, 4, 3, stride=2, padding=1)

    def forward(self, image: Tensor) -> list[Tensor]:
        fine = torch.tanh(self.norm(self.first(image)))
        return [image, fine, torch.tanh(self.second(fine))]  # the deep level is made from the fine one


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fine, self.deep, self.last = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 3, 1), nn.Conv2d(3, 2, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        _, fine, deep = features
        out: Tensor = self.last(torch.tanh(self.fine(fine) + F.interpolate(self.deep(deep), scale_factor=2.0)))
        return out


class Network(nn.Module):
    """``crossed``: the first task also reads the second one's output, as attention between tasks does."""

    def __init__(self, tasks: int = 3, crossed: bool = False, norm: Callable[[], nn.Module] = nn.Identity) -> None:
        super().__init__()
        self.encoder = Encoder(norm)
        self.decoders = nn.ModuleList(Decoder() for _ in range(tasks))
        self.gate = nn.Parameter(torch.tensor(0.5)) if crossed else None

    def forward(self, image: Tensor, share: Callable[[list[Tensor]], list[Tensor]] = list) -> list[Tensor]:
        features = share(self.encoder(image))
        outputs = [decoder(features) for decoder in self.decoders]
        if self.gate is not None:
            outputs[0] = outputs[0] + self.gate * outputs[1].tanh()
        return outputs

    def gradients(self) -> dict[str, Tensor]:
        return {name: p.grad.clone() for name, p in self.named_parameters() if p.grad is not None}


def objectives(outputs: list[Tensor], masks: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of each task; 0 with a path where it has no label."""
    values = [
        F.cross_entropy(out.to(torch.promote_types(out.dtype, torch.float32)), mask, ignore_index=255, reduction="sum")
        / (mask != 255).sum().clamp(min=1)
        for out, mask in zip(outputs, masks.unbind(1), strict=True)
    ]
    return {f"task{i}": value * 3.0**i for i, value in enumerate(values)}


class Problem:
    """Network and batch in float64, and what the gradients should be."""

    def __init__(self, **network: Any) -> None:
        torch.manual_seed(0)
        self.network = Network(**network).double()
        self.image = torch.randn(4, 3, 6, 6, dtype=torch.float64)
        self.masks = torch.randint(0, 2, (4, len(self.network.decoders), 6, 6))
        self.weights = {f"task{i}": 1.0 + 0.5 * i for i in range(len(self.network.decoders))}

    def objectives(self, share: Callable[[list[Tensor]], list[Tensor]] = list) -> dict[str, Tensor]:
        return objectives(self.network(self.image, share), self.masks)

    def objectives_of(self, features: list[Tensor]) -> dict[str, Tensor]:
        return objectives([decoder(features) for decoder in self.network.decoders], self.masks)

    def total(self, weighting: Weighting) -> Tensor:
        total: Tensor = weighting(self.objectives(weighting.share))
        return total

    def step(self, weighting: Weighting, factor: float = 1.0) -> dict[str, Tensor]:
        """Gradient of every parameter after one backward pass."""
        self.network.zero_grad(set_to_none=True)
        (factor * self.total(weighting)).backward()
        return self.network.gradients()

    def separate(self) -> list[dict[str, Tensor]]:
        """Gradient of every parameter for each weighted objective alone."""
        rows = []
        for name in self.weights:
            self.network.zero_grad(set_to_none=True)
            (self.weights[name] * self.objectives()[name]).backward()
            rows.append(self.network.gradients())
        return rows

    def expected(self, factors: list[float]) -> dict[str, Tensor]:
        """The encoder has the sum with these factors, all else the plain sum."""
        rows = self.separate()
        return {
            name: sum(
                (f if name.startswith("encoder") else 1.0) * row[name]
                for f, row in zip(factors, rows, strict=True)
                if name in row
            )
            for name, _ in self.network.named_parameters()
        }  # type: ignore[return-value]


@pytest.fixture
def problem() -> Callable[..., Problem]:
    return Problem
