"""The monitored value has to exist; that is known after the first validation batch, not after the first epoch."""

from typing import Any, cast

import lightning
from lightning.pytorch.callbacks import Callback

from hsl.config import ConfigError


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
