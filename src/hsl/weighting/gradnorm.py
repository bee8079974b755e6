"""GradNorm: weights that learn to keep the gradient norms of the objectives in balance."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hsl.config.ranges import NonNegativeFloat, PositiveFloat
from hsl.errors import ConfigError
from hsl.weighting.base import add, mean_over_devices, num_devices
from hsl.weighting.shared_gradients import SharedGradients, gradients, wide

MIN_WEIGHT = 1e-3


class GradNorm(SharedGradients):
    """Gradient normalisation (Chen 2018, "GradNorm", algorithm 1).

    ``total = sum_i w_i L_i``, for heads and encoder alike. With ``G_i = w_i |grad L_i|`` over the shared features,
    their mean ``G``, and the inverse training rate ``r_i = (L_i / L_i(0)) / mean_j (L_j / L_j(0))``, the
    weights descend on ``sum_i |G_i - G r_i^alpha|``, the target held constant, and are brought back to their sum.

    Differs from the paper: the descent is on that sum divided by ``G``, so that `learning_rate` does not depend on the
    scale of the gradients; the gradients are those of the shared features, not of one layer's parameters; weights stay
    above 0.001. An objective without a label in the batch keeps its weight and does not move the others'.

    Args:
        weights: objective name -> constant weight; gradients are those of the weighted objectives.
        alpha: how strongly an objective that lags behind is pulled, at least 0; the paper takes 1.5.
        learning_rate: of the weights, above 0; the paper takes 0.025.

    Raises:
        ConfigError: a value is out of its range.
    """

    def __init__(
        self, weights: Mapping[str, float], alpha: NonNegativeFloat = 1.5, learning_rate: PositiveFloat = 0.025
    ) -> None:
        super().__init__(weights)
        if alpha < 0 or learning_rate <= 0:
            raise ConfigError(
                "`weighting.alpha` should be at least 0 and `weighting.learning_rate` above 0. "
                f"Found `weighting.alpha = {alpha}` and `weighting.learning_rate = {learning_rate}`."
            )
        self.alpha = alpha
        self.learning_rate = learning_rate
        self.register_buffer("task_weights", torch.ones(len(self.names)))
        self.register_buffer("first", torch.zeros(len(self.names)))  # L_i(0); 0: not seen yet
        self.register_buffer("norms", torch.zeros(len(self.names)))
        self.task_weights: Tensor
        self.first: Tensor
        self.norms: Tensor

    def combine(self, weighted: list[Tensor]) -> Tensor:
        views, values = self._take_views(), torch.stack(weighted)
        total = (self.task_weights.clone() * values).sum()
        if views:
            seed = self._seed(views)
            rows = (gradients(objective, views, seed) for objective in weighted)
            squares = torch.stack([add([wide(part).square().sum() for part in row]) / seed**2 for row in rows])
            squares, losses = mean_over_devices(torch.stack([squares, values.detach().to(squares.dtype)]))
            self._watch_scale(total)
            self.norms.copy_((squares / num_devices()).sqrt())
            self._adapt(losses.to(self.first.dtype))
        return total

    def _adapt(self, losses: Tensor) -> None:
        present = (self.norms > 0) & (losses > 0) & self.norms.isfinite()
        self.first.copy_(torch.where(present & (self.first == 0), losses, self.first))
        count = present.sum().clamp(min=1)
        rates = torch.where(present, losses / self.first, 0.0)
        rates = rates / (rates.sum() / count)
        weighted_norms = torch.where(present, self.task_weights * self.norms, 0.0)
        mean = weighted_norms.sum() / count
        slope = torch.sign(weighted_norms - mean * rates**self.alpha) * self.norms / mean
        moved = (self.task_weights - self.learning_rate * slope).clamp(min=MIN_WEIGHT)
        kept = torch.where(present, self.task_weights, 0.0).sum()
        moved = moved * kept / torch.where(present, moved, 0.0).sum()
        self.task_weights.copy_(torch.where(present, moved, self.task_weights))

    @property
    def factors(self) -> list[float]:
        return self.task_weights.tolist()

    def diagnostics(self) -> dict[str, float]:
        """Adds ``norm/<objective>``, the norm of the weighted objective's gradient."""
        norms = zip(self.names, self.norms.tolist(), strict=True)
        return super().diagnostics() | {f"norm/{name}": norm for name, norm in norms}
