"""What a training is compared with: a number, or a finished run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hsl.errors import ConfigError
from hsl.run_folder.checkpoint import read_checkpoint
from hsl.run_folder.history import read_history
from hsl.run_folder.layout import METRICS, best_checkpoint
from hsl.run_folder.scores import read_metrics


@dataclass(frozen=True)
class Baseline:
    """A value, and the run folder that has it; ``None``: it is the value alone."""

    value: float
    folder: Path | None = None

    def weights(self) -> dict[str, Tensor]:
        """The state of the folder's best checkpoint."""
        if self.folder is None:
            raise ValueError("A baseline that is a number has no weights.")
        path = best_checkpoint(self.folder)
        state: dict[str, Tensor] = read_checkpoint(path)["state_dict"]
        return state

    def check_fits(self, task: nn.Module) -> None:
        """Refuse a folder whose weights could not be restored.

        Raises:
            ConfigError: its model is another one.
        """
        if self.folder is not None and _shapes(self.weights()) != _shapes(task.state_dict()):
            raise ConfigError(
                f"`rollback_gate.baseline` should be a run of the very model that is trained. Found `{self.folder}` "
                "with another one. To compare with its value only, give the number."
            )

    def value_of(self, name: str, start: Mapping[str, float]) -> float:
        """A value of the restored weights: ``start`` has those of the snapshot, the folder its own."""
        return start[name] if self.folder is None else read_baseline(self.folder, name).value


def read_baseline(folder: Path, metric: str) -> Baseline:
    """The value of a finished run at its best checkpoint.

    Raises:
        ConfigError: the folder is no finished run, or does not know the metric.
    """
    pages = [folder / METRICS, best_checkpoint(folder)]
    if missing := [str(path) for path in pages if not path.is_file()]:
        raise ConfigError(
            f"`rollback_gate.baseline` should be a number, null, or the folder of a finished run. Found "
            f"`rollback_gate.baseline = {folder}` without {missing[0]}."
        )
    monitor = read_metrics(folder).monitor
    if monitor.name == metric and monitor.value is not None:
        return Baseline(monitor.value, folder)
    rows = read_history(folder)
    for row in rows:
        if row["epoch"] == monitor.epoch and row.get(metric) is not None:
            return Baseline(float(row[metric]), folder)
    known = sorted({name for row in rows for name in row if name.startswith("val/")} | {monitor.name})
    raise ConfigError(
        f"`rollback_gate.baseline` should be a run that knows `{metric}` at its best epoch. Found "
        f"`rollback_gate.baseline = {folder}`, which has {', '.join(known)}."
    )


def _shapes(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value.shape) if isinstance(value, Tensor) else None for name, value in state.items()}
