"""Gradient aggregation in one backward pass: the encoder gets a weighted sum of the gradients of the objectives."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from hsl.config.ranges import PositiveInt
from hsl.errors import ConfigError
from hsl.weighting import MAX_FAILURES
from hsl.weighting.base import add, mean_over_devices, num_devices
from hsl.weighting.gramian import SolverError
from hsl.weighting.shared_gradients import (
    SharedGradients,
    combine_rows,
    consumers,
    gradients,
    gramian,
    leaves,
    replace,
    scale_inputs,
)


class Aggregation(SharedGradients):
    """The encoder learns from ``sum_i a_i g_i``, heads and decoder from the plain sum of the weighted objectives.

    Pass 1 takes the gradient ``g_i`` of each objective with respect to the shared features and forms the Gramian
    ``g_i . g_j``, summed over the devices. The method turns it into T weights ``a_i``. Pass 2 is the ordinary backward
    pass of the plain sum, in which the gradient that arrives at the features is replaced by ``sum_i a_i g_i`` times
    whatever factor reached the total (gradient scaler, accumulation). So the encoder is crossed once whatever T is,
    heads keep their own gradients exactly, and clipping, norm layers and DDP work as ever.

    Weights are those of a sum, ``T`` times those of the method: weights of one are the plain sum. An objective whose
    gradient is 0 in a batch (no label) is left out of the solve, whose T is then smaller; it keeps its last weight,
    1 at first. A failed solve gives weights of one for its step, warns, is counted, and is tried again in the next.

    Between two solves (`update_every`) the weights stay. Where each objective has a decoder of its own there is no
    pass 1 then: what the decoder's first operations hand to the features is scaled. With a common decoder, or attention
    between the tasks, the gradient of ``sum_i a_i L_i`` is taken, one more pass through decoder and heads.

    Args:
        weights: objective name -> constant weight; a gradient is that of the weighted objective.
        method: maps a Gramian (float64, on the CPU) to the weights of a mean, see `hsl.weighting.gramian`.
        granularity: ``features``, or ``parameters`` for the Gramian of the exact Jacobian with respect to the encoder's
            parameters, which takes T backward passes through the encoder and the memory of T copies of its gradient.
        update_every: steps between two solves, at least 1. An accumulated batch counts as a step.

    Raises:
        ConfigError: `granularity` or `update_every` is out of range.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        method: Callable[[Tensor], Tensor],
        granularity: Literal["features", "parameters"] = "features",
        update_every: PositiveInt = 1,
    ) -> None:
        super().__init__(weights)
        if granularity not in ("features", "parameters"):
            raise ConfigError(
                "`weighting.granularity` should be `features` or `parameters`. "
                f"Found `weighting.granularity = {granularity}`."
            )
        if update_every < 1:
            raise ConfigError(
                f"`weighting.update_every` should be at least 1. Found `weighting.update_every = {update_every}`."
            )
        self.method = method
        self.granularity = granularity
        self.update_every = update_every
        self.steps = 0
        self.solver_failures = 0
        self._age = 0  # steps since the last solve; 0: it is due
        self._factors = [1.0] * len(self.names)
        self._gramian: Tensor | None = None

    def combine(self, weighted: list[Tensor]) -> Tensor:
        total, views = add(weighted), self._take_views()
        if not views:
            return total
        self.steps += 1
        if self._age == 0:
            self._solve_and_replace(total, weighted, views)
        else:
            self._reuse(total, weighted, views)
        return total

    def _solve_and_replace(self, total: Tensor, weighted: list[Tensor], views: list[Tensor]) -> None:
        parameters = leaves(views) if self.granularity == "parameters" else []
        seed = self._seed(views)
        rows = [gradients(objective, [*views, *parameters], seed) for objective in weighted]
        of_views = [row[: len(views)] for row in rows]
        if parameters:  # the Jacobian of the whole batch is the mean over the devices, its Gramian is not
            products = gramian([[mean_over_devices(part.clone()) for part in row[len(views) :]] for row in rows])
        else:  # the features of the whole batch are those of all devices side by side
            products = mean_over_devices(gramian(of_views)) / num_devices()
        self._weigh((products / seed**2).double().cpu())
        arrived = self._watch_scale(total)
        for view, gradient in zip(views, combine_rows(of_views, self._factors), strict=True):
            replace(view, gradient, arrived, seed)

    def _reuse(self, total: Tensor, weighted: list[Tensor], views: list[Tensor]) -> None:
        self._age = (self._age + 1) % self.update_every
        arrived = self._watch_scale(total)
        readers = consumers(weighted, views)
        if readers is not None:
            for node, (index, places) in readers.items():
                if self._factors[index] != 1:
                    scale_inputs(node, places, self._factors[index], arrived)
            return
        seed = self._seed(views)
        mixture = add([factor * objective for factor, objective in zip(self._factors, weighted, strict=True)])
        for view, gradient in zip(views, gradients(mixture, views, seed), strict=True):
            replace(view, gradient, arrived, seed)

    def _weigh(self, products: Tensor) -> None:
        """Turn the Gramian of all objectives into weights, which failing are 1."""
        self._gramian = products
        present = (products.diagonal() != 0).nonzero().flatten().tolist()
        try:
            solved = self._solve(products[present][:, present])
            self._age = 1 % self.update_every
        except RuntimeError as error:
            self.solver_failures += 1
            self._age = 0
            solved = [1.0] * len(present)
            warnings.warn(f"Task weights could not be solved: {error}. They are 1 in this step.", stacklevel=2)
        for index, factor in zip(present, solved, strict=True):
            self._factors[index] = factor

    def _solve(self, products: Tensor) -> list[float]:
        if len(products) < 2:
            return [1.0] * len(products)
        if not products.isfinite().all():
            raise SolverError("a gradient is not finite")
        solved = len(products) * self.method(products)
        if not solved.isfinite().all() or not solved.any():
            raise SolverError(f"the method gave {solved.tolist()}")
        return solved.tolist()

    @property
    def factors(self) -> list[float]:
        return list(self._factors)

    @property
    def degraded(self) -> bool:
        return self.solver_failures > MAX_FAILURES * self.steps

    def diagnostics(self) -> dict[str, float]:
        """Adds to the weights, as of the last solve: ``norm/<objective>`` of the weighted objective's gradient,
        ``cosine/<objective>/<other>`` (left out where a gradient is 0), and how the solver fared.
        """
        values = super().diagnostics()
        values |= {"solver_failures": self.solver_failures, "steps": self.steps, "degraded": float(self.degraded)}
        if self._gramian is None:
            return values
        norms = self._gramian.diagonal().sqrt()
        cosines = self._gramian / torch.outer(norms, norms)
        for i, name in enumerate(self.names):
            values[f"norm/{name}"] = float(norms[i])
            for j, other in enumerate(self.names[:i]):
                if norms[i] > 0 and norms[j] > 0:
                    values[f"cosine/{other}/{name}"] = float(cosines[j, i])
        return values

    def get_extra_state(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "solver_failures": self.solver_failures,
            "age": self._age,
            "factors": dict(zip(self.names, self._factors, strict=True)),
            "scale": float(self._scale),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        if list(state["factors"]) != self.names:
            raise ConfigError(
                f"The checkpoint should have task weights for {self.names}. Found {list(state['factors'])}. "
                "Resume with the objectives and the `loss.weights` it was trained with."
            )
        self.steps, self.solver_failures, self._age = state["steps"], state["solver_failures"], state["age"]
        self._factors = list(state["factors"].values())
        self._scale = state["scale"]
