"""The learning curves as a table: one row per epoch."""

from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback

from hsl.run_folder.history import write_history


class History(Callback):
    """Writes ``history.csv``: epoch, step, learning rate, and every value logged in that epoch.

    An epoch without validation has none of its values, though Lightning still knows those of the last one. The rows
    ride in the checkpoint, so a resumed run's table has no epoch twice and none missing.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, float]] = []
        self._validated = False

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        optimizer = trainer.optimizers[0]
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row["lr"] = float(optimizer.param_groups[0]["lr"])
        logged = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        row |= {name: value for name, value in logged.items() if self._validated or not name.startswith("val/")}
        self._validated = False
        self.rows = [old for old in self.rows if old["epoch"] < row["epoch"]] + [row]
        if trainer.is_global_zero:
            write_history(self.path, self.rows)

    def state_dict(self) -> dict[str, list[dict[str, float]]]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, list[dict[str, float]]]) -> None:
        self.rows = state_dict["rows"]
