"""What reacts to a monitored value: early stopping, and the check that the value exists."""

import math
from typing import Any, cast

import lightning
from lightning.pytorch.callbacks import Callback, EarlyStopping

from hsl.config.ranges import NonNegativeFloat, NonNegativeInt
from hsl.errors import ConfigError
from hsl.metrics.catalogue import read_mode


def early_stopping(
    monitor: str,
    mode: str = "auto",
    patience: NonNegativeInt = 10,
    min_delta: NonNegativeFloat = 0.001,
    stopping_threshold: float | None = None,
    divergence_threshold: float | None = None,
) -> EarlyStopping:
    """Ends the training when the monitored value has not become better for some validations.

    Args:
        monitor: the value, such as ``val/miou``.
        mode: as in `hsl.callbacks.best_checkpoint.BestCheckpoint`.
        patience: validations without an improvement, at least 0.
        min_delta: what counts as an improvement, at least 0.
        stopping_threshold: a value that is good enough to end at once.
        divergence_threshold: a value that is bad enough to end at once.

    Raises:
        ConfigError: an argument is out of range, or the mode is the wrong one for this value.
    """
    if patience < 0:
        raise ConfigError(
            "`callbacks.early_stopping.patience` should be at least 0. Found `callbacks.early_stopping.patience = "
            f"{patience}`. To train all epochs, set `callbacks.early_stopping=null`."
        )
    if not (math.isfinite(min_delta) and min_delta >= 0):
        raise ConfigError(
            "`callbacks.early_stopping.min_delta` should be at least 0. Found `callbacks.early_stopping.min_delta = "
            f"{min_delta}`."
        )
    chosen = read_mode(monitor, mode, ("callbacks.early_stopping.monitor", "callbacks.early_stopping.mode"))
    return EarlyStopping(
        monitor, min_delta, patience, mode=chosen, stopping_threshold=stopping_threshold,
        divergence_threshold=divergence_threshold,
    )  # fmt: skip


class MonitoredValue(Callback):
    """Stops before the first epoch when nothing of the name will ever be logged at validation.

    Args:
        name: such as ``val/miou``. What other callbacks of the trainer monitor is checked too. Names of training values
            are left to the callbacks that read them.

    Raises:
        ConfigError: the name is unknown; the message lists those that exist.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def on_sanity_check_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        known = sorted(trainer.callback_metrics)
        watched = [("monitor", self.name)]
        for callback in cast(Any, trainer).callbacks:
            name = getattr(callback, "monitor", None)
            watched += [(f"monitor of {type(callback).__name__}", name)] if isinstance(name, str) else []
        for key, name in watched:
            if not name.startswith("train/") and name not in known:
                raise ConfigError(f"`{key}` should be one of {', '.join(known)}. Found `{key} = {name}`.")
