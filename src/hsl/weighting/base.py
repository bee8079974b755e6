"""What every weighting shares: constant weights, the names of the objectives, and the calls of the task."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hsl.batch import Objectives
from hsl.errors import ConfigError


class Weighting(nn.Module, ABC):
    """Makes the total of the objectives. The task calls it in four places.

    In `training_step` it passes the encoder's features through `share`, then calls the weighting itself with the
    objectives; at the end of a training epoch it calls `end_epoch`; a callback asks for `diagnostics`. In evaluation
    mode, or where no gradients are recorded, the total is the sum with constant weights, whatever the method, so
    that validation losses compare between methods, and no state changes.

    An objective of constant weight 0 is computed and logged but left out, so it gives no gradient and a value that
    is infinite does not turn the total into NaN.

    Args:
        weights: objective name -> constant weight, at least 0, not all 0. A method works on the weighted objectives.

    Raises:
        ConfigError: a weight is negative or not finite, or none is above 0.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = {name: float(weight) for name, weight in weights.items()}
        values = self.weights.values()
        if not all(math.isfinite(value) and value >= 0 for value in values) or not any(values):
            raise ConfigError(
                f"`loss.weights` should be finite, at least 0, and one of them above 0. Found {self.weights}."
            )
        self.names = [name for name, weight in self.weights.items() if weight > 0]

    def forward(self, objectives: Objectives) -> Tensor:
        """Total of the objectives, to be differentiated once.

        Args:
            objectives: unweighted scalar per name. One that is exactly 0 had no label in the batch.

        Raises:
            ConfigError: objectives and weights do not have the same names.
        """
        if objectives.keys() != self.weights.keys():
            raise ConfigError(
                f"`loss.weights` should name every objective. Found weights for {sorted(self.weights)} "
                f"and objectives {sorted(objectives)}."
            )
        weighted = [self.weights[name] * objectives[name] for name in self.names]
        return self.combine(weighted) if self.training and torch.is_grad_enabled() else add(weighted)

    @abstractmethod
    def combine(self, weighted: list[Tensor]) -> Tensor:
        """Total of the weighted objectives while training; those of weight 0 are not among them."""

    def share(self, features: list[Tensor]) -> list[Tensor]:
        """What the decoder is to read in place of the encoder's features."""
        return features

    def end_epoch(self) -> None:
        """To be called once at the end of every training epoch, on every device."""

    @property
    @abstractmethod
    def factors(self) -> list[float]:
        """What the method multiplies each weighted objective of `names` with, as of the last step."""

    @property
    def degraded(self) -> bool:
        """Whether the solver failed in more than 1 % of the steps, so that the run is not one of this method."""
        return False

    def diagnostics(self) -> dict[str, float]:
        """Numbers of the last step: ``weight/<objective>`` is the factor of the unweighted objective.

        Waits for the device, so ask now and then only.
        """
        pairs = zip(self.names, self.factors, strict=True)
        return {f"weight/{name}": self.weights[name] * factor for name, factor in pairs}


def add(values: list[Tensor]) -> Tensor:
    """Sum of at least one tensor, in order."""
    return sum(values[1:], start=values[0])


def num_devices() -> int:
    """Processes of a distributed run, else 1."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_devices(values: Tensor) -> Tensor:
    """Mean over the processes of a distributed run, in place."""
    if num_devices() > 1:
        dist.all_reduce(values)
        values /= num_devices()
    return values
