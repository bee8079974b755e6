"""What reacts to a monitored value: the best checkpoint, early stopping, and the check that the value exists."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import lightning
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from hsl.config.ranges import NonNegativeFloat, NonNegativeInt
from hsl.errors import ConfigError
from hsl.metrics.catalogue import read_mode
from hsl.run_folder.checkpoint import read_checkpoint


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
        mode: as in `hsl.callbacks.monitored.BestCheckpoint`.
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


class BestCheckpoint(ModelCheckpoint):
    """Keeps the epoch with the best monitored value as one file that the next better one replaces.

    Lightning's own takes its best value from the checkpoint that a training goes on from, and only where the folder is
    still at the same absolute path: behind a moved or copied folder the next epoch, however bad, would count as the
    best. Here the file that lies in the folder says what the best is, so nothing depends on a path.

    Args:
        dirpath: of the file.
        filename: of the file, without ``.ckpt``.
        monitor: the value.
        mode: ``auto``: the direction of the score, see `hsl.metrics.catalogue`; ``max`` or ``min`` for one of your own.

    Raises:
        ConfigError: the mode is the wrong one for this value, or unknown.
    """

    def __init__(self, dirpath: str, filename: str, monitor: str, mode: str = "auto") -> None:
        keys = ("callbacks.best_checkpoint.monitor", "callbacks.best_checkpoint.mode")
        chosen = read_mode(monitor, mode, keys)
        super().__init__(dirpath=dirpath, filename=filename, monitor=monitor, mode=chosen, enable_version_counter=False)

    def state_dict(self) -> dict[str, Any]:
        return {"monitor": self.monitor, "best_model_score": self.best_model_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: see `on_load_checkpoint`."""

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        path = Path(str(self.dirpath)) / f"{self.filename}{self.FILE_EXTENSION}"
        if not path.is_file():
            return  # a new run that goes on from the checkpoint of another
        own = read_checkpoint(path, ("state_dict", "callbacks"))["callbacks"].get(self.state_key, {})
        if "best_model_score" not in own:
            raise ConfigError(
                f"`{path}` should be the best of `{self.monitor}`. Found that of another value. Move it away."
            )
        score = own["best_model_score"]
        self.best_model_path = str(path)
        if score is not None:  # a reverted phase keeps what it began with; its gate knows the value
            self.best_model_score = self.kth_value = self.current_score = score
            self.kth_best_model_path, self.best_k_models = str(path), {str(path): score}


def best_of(callbacks: Iterable[Callback]) -> ModelCheckpoint:
    """The callback that keeps the best checkpoint; `hsl.config.validation` sees that there is one."""
    return next(one for one in callbacks if isinstance(one, ModelCheckpoint))
