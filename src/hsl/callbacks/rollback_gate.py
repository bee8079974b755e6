"""A training that made things worse than what it is compared with, a number or a finished run, is taken back."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn

from hsl.callbacks.monitored import best_of
from hsl.config.ranges import NonNegativeFloat
from hsl.errors import ConfigError
from hsl.metrics.catalogue import better, read_mode
from hsl.run_folder.checkpoint import read_checkpoint
from hsl.run_folder.history import read_history, read_rollback, write_rollback
from hsl.run_folder.layout import CHECKPOINTS, METRICS, START, best_checkpoint
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


class RollbackGate(Callback):
    """Restores weights and optimizer to the start of its scope, exactly, when the checkpoint kept is too bad.

    At the start of the scope every validation picture is predicted and ``start.ckpt`` is saved beside ``best.ckpt``. At
    the end the values of the epoch that ``best.ckpt`` keeps are compared:

        kept  <=>  found >= baseline - tolerance (with min: found <= baseline + tolerance), and every minimum is met

    A value that is not a number is never good enough. A reverted scope's ``best.ckpt`` holds what was restored, with
    epoch -1, and ``rollback.json`` says so; one that was kept leaves its ``rollback.json`` too.

    Args:
        metric: what is watched, such as ``val/accuracy``.
        mode: ``auto``: the direction of the score, see `hsl.metrics.catalogue`; ``max`` or ``min`` for one of your own.
        baseline: a number; the folder of a run of the same model, whose value at its best checkpoint counts and whose
            weights are restored; or ``None``: the value at the start of the scope.
        tolerance: how much worse than the baseline is still kept, at least 0; 0.005 in the published system.
        path: ``rollback.json``.
        scope: ``phase``: each phase of the run is judged by itself; ``run``: all of them together, after the last.
        minimum: other validation values -> what they must at least be, such as ``{val/miou: 0.5}``.
        phases: the phases that a gate of scope ``phase`` judges; ``None``: every one.

    Attributes:
        opens, closes: whether the coming fit is the first and the last of the scope.
        decision: ``kept`` or ``reverted`` once the scope is over.

    Raises:
        ConfigError: an argument is out of range, the baseline does not exist, or lacks the metric.
    """

    def __init__(
        self,
        metric: str,
        mode: str,
        baseline: float | str | None,
        tolerance: NonNegativeFloat,
        path: str,
        scope: Literal["phase", "run"] = "phase",
        minimum: Mapping[str, float] | None = None,
        phases: Sequence[str] | None = None,
    ) -> None:
        if scope not in ("phase", "run"):
            raise ConfigError(f"`rollback_gate.scope` should be phase or run. Found `{scope}`.")
        if not tolerance >= 0:
            raise ConfigError(f"`rollback_gate.tolerance` should be at least 0. Found {tolerance}.")
        if scope == "run" and phases is not None:
            raise ConfigError(f"`rollback_gate.phases` should be null with scope run. Found {list(phases)}.")
        self.metric, self.tolerance, self.scope = metric, float(tolerance), scope
        self.mode = read_mode(metric, mode, ("rollback_gate.metric", "rollback_gate.mode"))
        self.minimum = dict(minimum or {})
        if falling := [name for name in self.minimum if better(name) == "min"]:
            raise ConfigError(
                "`rollback_gate.minimum` should name values of which more is better. Found "
                f"`{falling[0]}`. Watch it by a gate of its own, with `metric: {falling[0]}`."
            )
        self.phases = None if phases is None else tuple(phases)
        self.path = Path(path)
        self.snapshot = self.path.parent / CHECKPOINTS / START
        self.baseline: Baseline | None = None
        if isinstance(baseline, str):
            self.baseline = read_baseline(Path(baseline), metric)
        elif baseline is not None:
            self.baseline = Baseline(float(baseline))
        self.opens = self.closes = True
        self.decision: str | None = None
        self.values: dict[str, float] = {}

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if self.baseline is not None:
            self.baseline.check_fits(pl_module)
        if self.opens:
            trainer.num_sanity_val_steps = math.inf  # Lightning's check before the training becomes a whole validation

    def on_sanity_check_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.values = _validated(trainer)
        monitor = str(best_of(trainer.checkpoint_callbacks).monitor)
        for name in (self.metric, *self.minimum, monitor):
            if name not in self.values:
                known = ", ".join(sorted(self.values))
                raise ConfigError(f"`rollback_gate` should watch, and `monitor` be, one of {known}. Found `{name}`.")
        if self.baseline is not None:
            self.baseline.value_of(monitor, self.values)  # a folder has to know what its weights are worth
        if self.opens and self.baseline is None and not math.isfinite(self.values[self.metric]):
            raise ConfigError(
                f"`rollback_gate.baseline` should be a number where `{self.metric}` is none at the start. "
                "Found `rollback_gate.baseline = null`."
            )

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self.opens and not self.snapshot.is_file():
            trainer.save_checkpoint(self.snapshot)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.values = _validated(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.values = state_dict["values"]

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        kept = best_of(trainer.checkpoint_callbacks)
        if not self.closes or not kept.best_model_path:
            return
        page: dict[str, Any] = read_rollback(self.path)  # judged before, and then killed: what was decided stays
        if not page:
            page = self._judge(Path(kept.best_model_path), str(kept.monitor))
            if trainer.is_global_zero:
                write_rollback(self.path, page)
        self.decision = page["decision"]
        if self.decision == "reverted":
            self._restore(trainer, pl_module, kept, page)

    def _judge(self, best: Path, monitor: str) -> dict[str, Any]:
        start = self._values_in(self.snapshot)
        found = self._values_in(best)
        wanted = Baseline(start[self.metric]) if self.baseline is None else self.baseline
        worse = wanted.value - found[self.metric] if self.mode == "max" else found[self.metric] - wanted.value
        good = worse <= self.tolerance and all(found[name] >= least for name, least in self.minimum.items())
        return {
            "metric": self.metric,
            "mode": self.mode,
            "scope": self.scope,
            "baseline": wanted.value,
            "baseline_from": "start" if self.baseline is None else str(wanted.folder or "config"),
            "found": _null(found[self.metric]),
            "tolerance": self.tolerance,
            "minimum": {name: {"least": least, "found": _null(found[name])} for name, least in self.minimum.items()},
            "decision": "kept" if good else "reverted",
            "restored_from": None if good else str(wanted.folder or os.path.relpath(self.snapshot, self.path.parent)),
            "monitor": {"name": monitor, "restored": None if good else _null(wanted.value_of(monitor, start))},
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _restore(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        kept: ModelCheckpoint,
        page: Mapping[str, Any],
    ) -> None:
        start = read_checkpoint(self.snapshot)
        if self.baseline is not None and self.baseline.folder is not None:
            start["state_dict"] = self.baseline.weights()
        start["epoch"] = -1  # of before the first
        pl_module.load_state_dict(start["state_dict"])
        if self.opens:  # else the optimizer is that of another phase than the snapshot's
            for optimizer, state in zip(trainer.optimizers, start["optimizer_states"], strict=True):
                optimizer.load_state_dict(state)
        if trainer.is_global_zero:
            trainer.strategy.checkpoint_io.save_checkpoint(start, kept.best_model_path)
        restored = page["monitor"]["restored"]
        kept.best_model_score = torch.tensor(math.nan if restored is None else restored)

    def _values_in(self, checkpoint: Path) -> dict[str, float]:
        state = read_checkpoint(checkpoint)
        values: dict[str, float] = state["callbacks"][self.state_key]["values"]
        return values


def _validated(trainer: lightning.Trainer) -> dict[str, float]:
    values = trainer.callback_metrics
    return {name: float(value) for name, value in sorted(values.items()) if name.startswith("val/")}


def _null(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
