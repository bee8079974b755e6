"""What the task weighting does, step by step: in the loggers and as lines of JSON."""

from pathlib import Path
from typing import Any, cast

import lightning
from lightning.pytorch.callbacks import Callback

from hsl.config.ranges import PositiveInt
from hsl.errors import ConfigError
from hsl.run_folder.history import append_step, keep_steps
from hsl.weighting.base import Weighting


class WeightingLog(Callback):
    """Writes ``weighting.jsonl``: a line with step, epoch and the diagnostics of the weighting every n optimizer steps.

    The loggers get the same values as ``weighting/<name>``. A number that is not finite becomes null. A run that goes
    on from a checkpoint first drops the lines of later steps, so no step is there twice.

    Args:
        path: of the file.
        every_n_steps: optimizer steps between two lines, at least 1.

    Raises:
        ConfigError: `every_n_steps` is below 1.
    """

    def __init__(self, path: str, every_n_steps: PositiveInt) -> None:
        if every_n_steps < 1:
            raise ConfigError(f"`every_n_steps` should be at least 1. Found `every_n_steps = {every_n_steps}`.")
        self.path = Path(path)
        self.every_n_steps = every_n_steps
        self._written = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._written = trainer.global_step
        if trainer.is_global_zero:
            keep_steps(self.path, trainer.global_step)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        step = trainer.global_step
        if step == self._written or step % self.every_n_steps:  # unchanged while a batch accumulates
            return
        self._written = step
        if not trainer.is_global_zero:
            return
        values = cast(Weighting, pl_module.weighting).diagnostics()
        for logger in trainer.loggers:
            logger.log_metrics({f"weighting/{name}": value for name, value in values.items()}, step)
        append_step(self.path, step, trainer.current_epoch, values)
