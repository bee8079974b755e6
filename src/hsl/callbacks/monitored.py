"""The monitored value has to exist; that is known after the first validation batch, not after the first epoch."""

import lightning
from lightning.pytorch.callbacks import Callback

from hsl.config import ConfigError


class MonitoredValue(Callback):
    """Stops before the first epoch when nothing of the name will ever be logged at validation.

    Args:
        name: such as ``val/miou``. Names of training values are left to the callbacks that read them.

    Raises:
        ConfigError: the name is unknown; the message lists those that exist.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def on_sanity_check_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        known = sorted(trainer.callback_metrics)
        if self.name.startswith("train/") or self.name in known:
            return
        raise ConfigError(f"`monitor` should be one of {', '.join(known)}. Found `monitor = {self.name}`.")
