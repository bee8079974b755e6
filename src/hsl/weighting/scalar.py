"""Weightings that look at the values of the objectives only and multiply each by a number."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hsl.config.ranges import NonNegativeFloat, PositiveFloat
from hsl.errors import ConfigError
from hsl.weighting.base import Weighting, add, mean_over_devices


class Fixed(Weighting):
    """Constant weights: ``total = sum_k w_k L_k``.

    Example:
        >>> import torch
        >>> objectives = {"dice": torch.tensor(1.0), "focal": torch.tensor(3.0)}
        >>> Fixed({"dice": 0.5, "focal": 2.0})(objectives).item()
        6.5
    """

    def combine(self, weighted: list[Tensor]) -> Tensor:
        return add(weighted)

    @property
    def factors(self) -> list[float]:
        return [1.0] * len(self.names)


class Uncertainty(Weighting):
    """Homoscedastic uncertainty (Kendall 2018, "Multi-Task Learning Using Uncertainty to Weigh Losses").

    ``total = sum_i w_i (exp(-s_i) L_i + s_i / 2)``, where ``s_i``, the log variance of objective i, is a parameter
    that the optimizer learns along with the network. An objective without a label in the batch leaves its ``s_i``
    alone, which would otherwise fall without end.

    Args:
        weights: objective name -> constant weight ``w_i``.

    Example:
        >>> import torch
        >>> Uncertainty({"a": 1.0, "b": 1.0})({"a": torch.tensor(2.0), "b": torch.tensor(3.0)}).item()
        5.0
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__(weights)
        self.log_variances = nn.Parameter(torch.zeros(len(self.names)))
        constants = torch.tensor([self.weights[name] for name in self.names])
        self.register_buffer("constants", constants, persistent=False)
        self.constants: Tensor

    def combine(self, weighted: list[Tensor]) -> Tensor:
        values = torch.stack(weighted)
        regulariser = self.constants * self.log_variances / 2 * (values.detach() != 0)
        return (torch.exp(-self.log_variances) * values + regulariser).sum()

    @property
    def factors(self) -> list[float]:
        return torch.exp(-self.log_variances.detach()).tolist()


class DynamicWeightAverage(Weighting):
    """Weights from how fast each objective falls (Liu 2019, "End-to-End Multi-Task Learning with Attention", eq. 7).

    ``w_i = T softmax(r_i / temperature)`` with ``r_i = L_i(t - 1) / L_i(t - 2)``, ``L_i(t)`` being the mean of
    objective i over epoch t, all devices and the steps that had a label for it. ``r_i = 1`` where one of the two
    epochs had no label or is not there yet, so the first two epochs weigh all alike.

    Args:
        weights: objective name -> constant weight.
        temperature: above 0; a higher one makes the weights more alike. The paper takes 2.

    Raises:
        ConfigError: the temperature is not above 0.
    """

    def __init__(self, weights: Mapping[str, float], temperature: PositiveFloat = 2.0) -> None:
        super().__init__(weights)
        _check_positive("temperature", temperature)
        self.temperature = temperature
        num = len(self.names)
        self.register_buffer("means", torch.zeros(2, num))  # of the epoch before the last, and of the last; 0: none
        self.register_buffer("sums", torch.zeros(num))
        self.register_buffer("counts", torch.zeros(num))
        self.register_buffer("epoch_weights", torch.ones(num))
        self.means: Tensor
        self.sums: Tensor
        self.counts: Tensor
        self.epoch_weights: Tensor

    def combine(self, weighted: list[Tensor]) -> Tensor:
        values = torch.stack(weighted)
        detached = values.detach()
        # Reduced at every step, not per epoch: DDP copies the buffers of the first process to all others.
        sums, present = mean_over_devices(torch.stack([detached, (detached != 0).to(detached.dtype)]))
        self.sums += sums
        self.counts += present
        return (self.epoch_weights * values).sum()

    def end_epoch(self) -> None:
        mean = self.sums / self.counts.clamp(min=torch.finfo(self.counts.dtype).tiny)
        self.means.copy_(torch.stack([self.means[1], mean]))
        ratio = torch.where((self.means > 0).all(0), self.means[1] / self.means[0], 1.0)
        self.epoch_weights.copy_(len(self.names) * torch.softmax(ratio / self.temperature, 0))
        self.sums.zero_()
        self.counts.zero_()

    @property
    def factors(self) -> list[float]:
        return self.epoch_weights.tolist()


class Famo(Weighting):
    """Equal relative progress, from the values alone (Liu 2023, "FAMO: Fast Adaptive Multitask Optimization").

    ``z = softmax(xi)`` and ``w_i = T (z_i / L_i) / sum_j (z_j / L_j)``, the gradient of the paper's
    ``sum_i z_i log L_i`` brought to a mean weight of 1. After each step
    ``xi <- xi - learning_rate (J^T delta + decay xi)``, ``J`` the Jacobian of the softmax and
    ``delta_i = log L_i(before) - log L_i(after)``.

    Differs from the paper in where ``L_i(after)`` comes from: from the next batch instead of a second pass over the
    same one, which would cost a third more time and move the statistics of batch norm. The noise this adds has mean
    zero. Objectives are at least 0; one without a label in the batch takes no part in the step.

    Args:
        weights: objective name -> constant weight; it has no influence here beyond 0 or not, because of the logarithm.
        learning_rate: of ``xi``, above 0; the paper takes 0.025.
        decay: of ``xi``, at least 0; the paper takes 0.001 to 0.01.

    Raises:
        ConfigError: a value is out of its range.
    """

    def __init__(
        self, weights: Mapping[str, float], learning_rate: PositiveFloat = 0.025, decay: NonNegativeFloat = 0.001
    ) -> None:
        super().__init__(weights)
        _check_positive("learning_rate", learning_rate)
        if decay < 0:
            raise ConfigError(f"`weighting.decay` should be at least 0. Found `weighting.decay = {decay}`.")
        self.learning_rate = learning_rate
        self.decay = decay
        self.register_buffer("xi", torch.zeros(len(self.names)))
        self.register_buffer("before", torch.zeros(len(self.names)))  # 0: not seen yet
        self.register_buffer("last_weights", torch.ones(len(self.names)))
        self.xi: Tensor
        self.before: Tensor
        self.last_weights: Tensor

    def combine(self, weighted: list[Tensor]) -> Tensor:
        values = torch.stack(weighted)
        losses = mean_over_devices(values.detach().to(self.xi.dtype, copy=True))
        present = losses > 0
        self._adapt(losses, present)
        share = torch.softmax(self.xi.where(present, -torch.inf), 0) / losses.where(present, 1.0)
        made = present.sum() * share / share.sum()
        # nan: no objective had a label; all gradients are 0 then
        self.last_weights.copy_(torch.where(present, made, self.last_weights))
        return (self.last_weights.clone() * values).sum()

    def _adapt(self, losses: Tensor, present: Tensor) -> None:
        known = present & (self.before > 0)
        progress = torch.where(known, self.before.where(known, 1.0).log() - losses.where(known, 1.0).log(), 0.0)
        z = torch.softmax(self.xi.where(known, -torch.inf), 0).nan_to_num()
        gradient = z * (progress - (z * progress).sum())
        self.xi -= self.learning_rate * (gradient + self.decay * self.xi) * known
        self.before.copy_(losses.where(present, self.before))

    @property
    def factors(self) -> list[float]:
        return self.last_weights.tolist()


def _check_positive(name: str, value: float) -> None:
    if value <= 0:
        raise ConfigError(f"`weighting.{name}` should be above 0. Found `weighting.{name} = {value}`.")
