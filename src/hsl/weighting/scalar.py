"""Weightings that multiply each objective by a number."""

import math
from collections.abc import Mapping

from torch import Tensor, nn

from hsl.batch import Objectives
from hsl.config import ConfigError


class Fixed(nn.Module):
    """Constant weights: ``total = sum_k w_k L_k``.

    An objective of weight 0 is computed and logged but left out of the total, so it gives no gradient and a
    value that is infinite does not turn the total into NaN.

    Args:
        weights: objective name -> weight, at least 0, not all 0.

    Raises:
        ConfigError: a weight is negative or not finite, or none is above 0.

    Example:
        >>> import torch
        >>> objectives = {"dice": torch.tensor(1.0), "focal": torch.tensor(3.0)}
        >>> Fixed({"dice": 0.5, "focal": 2.0})(objectives).item()
        6.5
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = {name: float(weight) for name, weight in weights.items()}
        values = self.weights.values()
        if not all(math.isfinite(value) and value >= 0 for value in values) or not any(values):
            raise ConfigError(
                f"`loss.weights` should be finite, at least 0, and one of them above 0. Found {self.weights}."
            )

    def forward(self, objectives: Objectives) -> Tensor:
        """Total of the objectives.

        Args:
            objectives: unweighted scalar per name.

        Raises:
            ConfigError: objectives and weights do not have the same names.
        """
        if objectives.keys() != self.weights.keys():
            raise ConfigError(
                f"`loss.weights` should name every objective. Found weights for {sorted(self.weights)} "
                f"and objectives {sorted(objectives)}."
            )
        first, *others = (weight * objectives[name] for name, weight in self.weights.items() if weight > 0)
        return sum(others, start=first)
