"""The checkpoint of the best epoch, wherever the run folder lies."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from hsl.errors import ConfigError
from hsl.metrics.catalogue import read_mode
from hsl.run_folder.checkpoint import read_checkpoint


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
