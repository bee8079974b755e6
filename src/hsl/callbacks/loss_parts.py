"""Which part of a loss dominates: its share of the total and the norm of its gradient."""

from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from hsl.batch import Objectives
from hsl.config.ranges import PositiveInt
from hsl.errors import ConfigError


class LossParts(Callback):
    """Logs ``parts/<name>``, ``parts/share/<name>`` and ``parts/gradient/<name>`` every n optimizer steps.

    A share is the weighted part over the sum of all weighted parts, with the constant weights of the loss. The gradient
    is that of the weighted part with respect to the encoder, its Euclidean norm over all parameters: one more backward
    pass for every part, so ``every_n_steps`` should be large. It is measured on the first batch of a step and in the
    first process; what a weighting does to the gradients comes later. Steps that run in micro-batches are left out.

    Args:
        every_n_steps: at least 1.

    Raises:
        ConfigError: `every_n_steps` is below 1.
    """

    def __init__(self, every_n_steps: PositiveInt) -> None:
        if every_n_steps < 1:
            raise ConfigError(f"`every_n_steps` should be at least 1. Found `every_n_steps = {every_n_steps}`.")
        self.every_n_steps = every_n_steps
        self._measured = -1  # the last step that was

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        task, step = cast(Any, pl_module), trainer.global_step
        if step % self.every_n_steps or step == self._measured or task.objectives is None:
            return
        self._measured = step  # the further batches of an accumulated step have the same number
        if not trainer.loggers or not trainer.is_global_zero:
            return
        values = part_values(task.objectives, task.weighting.weights, task.network.encoder)
        for logger in trainer.loggers:
            logger.log_metrics(values, step)


def part_values(objectives: Objectives, weights: dict[str, float], encoder: torch.nn.Module) -> dict[str, float]:
    """Value, share and gradient norm of each part; the graph is kept.

    Args:
        objectives: unweighted scalars.
        weights: of each.
        encoder: whose gradient is measured; a part that does not reach it has norm 0.
    """
    parameters = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    weighted = {name: weights[name] * value for name, value in objectives.items()}
    total = sum(abs(float(value.detach())) for value in weighted.values())
    found: dict[str, float] = {}
    for name, value in weighted.items():
        found[f"parts/{name}"] = float(objectives[name].detach())
        found[f"parts/share/{name}"] = abs(float(value.detach())) / total if total else 0.0
        norm = 0.0
        if parameters and value.requires_grad:
            gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            norm = float(sum(g.float().square().sum() for g in gradients if g is not None)) ** 0.5
        found[f"parts/gradient/{name}"] = norm
    return found
