"""Several trainings in one run, each from the best weights of the one before."""

import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from hsl.callbacks.freeze import Freeze
from hsl.callbacks.monitored import MonitoredValue, best_of
from hsl.callbacks.rollback_gate import RollbackGate
from hsl.data.datamodule import DataModule
from hsl.errors import ConfigError
from hsl.files.io import write_atomically
from hsl.files.names import below
from hsl.run_folder.checkpoint import TRAINING, WEIGHTS, read_checkpoint
from hsl.run_folder.history import read_history, read_phase_states, write_history, write_phase_states
from hsl.run_folder.layout import (
    CHECKPOINTS,
    HISTORY,
    LAST,
    best_checkpoint,
    last_checkpoint,
    phase_folder,
)
from hsl.run_folder.provenance import write_config
from hsl.tasks.segmentation import SegmentationTask
from hsl.terminal import say
from hsl.verbs.label.refinement import kept_round, next_round, refine_round
from hsl.verbs.opening.building import build_task
from hsl.verbs.scoring.results import Monitored
from hsl.verbs.train.phase_plan import Phase, read_phases, round_epochs
from hsl.verbs.train.setup import make_callbacks, make_repeatable

TRAINED = ("finished", "reverted")


class PhasedRun:
    """The phases of one run folder. Everything that a resumed run needs stands in ``phases.json`` and the checkpoints.

    Every phase starts from the same seed, so what it does does not depend on what was resumed before it.

    Args:
        folder: of the run; each phase has its own below ``phases/``, refined labels are below ``labels/``.
        cfg: of the run.
        data: prepared by ``cfg``.
        provenance: goes into every checkpoint.
    """

    def __init__(self, folder: Path, cfg: DictConfig, data: DataModule, provenance: Callback) -> None:
        self.folder, self.cfg, self.data, self.provenance = folder, cfg, data, provenance
        self.stages = deque(read_phases(cfg))
        self.pages: dict[str, dict[str, Any]] = read_phase_states(folder)
        self.trained: list[str] = []
        self.labels: Path | None = None  # refined ones, for the phases that follow
        self.gates = [gate for gate in _gates(make_callbacks(cfg)) if gate.scope == "run"]
        self._own_data: tuple[Any, DataModule] = (_resolved(cfg.data), data)

    def fit(self) -> Monitored:
        """Train every phase that is not finished.

        Returns:
            The value that chose the last phase's best checkpoint, which becomes the run's.
        """
        while self.stages:
            phase = self.stages.popleft()
            if self.trained and self.pages[self.trained[-1]]["status"] == "reverted":
                self._write(phase.name, {"status": "skipped", "note": f"phase {self.trained[-1]} was reverted"})
                continue
            if self.labels is not None and phase.cfg.data.labels is not None:
                OmegaConf.update(phase.cfg, "data.labels.folder", str(self.labels))
            if self.pages.get(phase.name, {}).get("status") not in TRAINED:
                self._fit(phase)
            self.trained.append(phase.name)
            if phase.refine and self.pages[phase.name]["status"] == "finished":
                self._refine(phase)
        return self._finish()

    def _fit(self, phase: Phase) -> None:
        own = phase_folder(self.folder, phase.name)
        cfg = phase.cfg
        cfg.run_dir = str(own)
        page: dict[str, Any] = {"wall_time_s": 0.0, **self.pages.get(phase.name, {}), "status": "running"}
        self._write(phase.name, page)
        say(f"phase {phase.name}")
        start = time.monotonic()
        data, task = self._parts(phase)
        callbacks = make_callbacks(cfg)
        gates = self._gates_of(phase, callbacks)
        others = [one for one in callbacks.values() if not isinstance(one, RollbackGate)]
        last = last_checkpoint(own)
        trainer: lightning.Trainer = instantiate(cfg.trainer)(
            callbacks=[*others, *gates, MonitoredValue(cfg.monitor), self.provenance, Freeze(phase.freeze)],
            logger=instantiate(cfg.logger),
            default_root_dir=own,
            **_where_it_stopped(last),
        )
        write_config(own, cfg)
        try:
            trainer.fit(task, datamodule=data, ckpt_path=last if last.is_file() else None, weights_only=True)
        finally:
            page["wall_time_s"] = round(page["wall_time_s"] + time.monotonic() - start, 1)
            self._write(phase.name, page)
        monitored = Monitored.of(best_of(others), own)
        found = {"monitor": monitored.name, "mode": monitored.mode, "value": monitored.value, "epoch": monitored.epoch}
        checkpoint = str(Path(monitored.checkpoint).relative_to(self.folder))
        status = "reverted" if any(gate.decision == "reverted" for gate in gates) else "finished"
        self._write(
            phase.name, {**page, "status": status, "epochs": trainer.current_epoch, **found, "checkpoint": checkpoint}
        )

    def _parts(self, phase: Phase) -> tuple[DataModule, SegmentationTask]:
        """Data and task of a phase, with the best weights of the phase before."""
        chosen = _resolved(phase.cfg.data)
        if chosen == _resolved(self.cfg.data):
            self._own_data = (chosen, self.data)
        elif chosen != self._own_data[0]:
            data: DataModule = instantiate(phase.cfg.data)
            data.prepare()
            self._own_data = (chosen, data)
        make_repeatable(phase.cfg.seed)
        task = build_task(phase.cfg, self._own_data[1].prepared)
        if self.trained:
            best = read_checkpoint(self._best(self.trained[-1]))["state_dict"]
            own = {name: value for name, value in best.items() if name.startswith("network.")}
            task.load_state_dict({**task.state_dict(), **own})  # what the loss and the weighting learn begins anew
        return self._own_data[1], task

    def _gates_of(self, phase: Phase, callbacks: dict[str, Any]) -> list[RollbackGate]:
        own = [gate for gate in _gates(callbacks) if gate.scope == "phase"]
        for gate in self.gates:
            gate.opens, gate.closes = not self.trained, not self.stages
        return [gate for gate in own if gate.phases is None or phase.name in gate.phases] + self.gates

    def _refine(self, phase: Phase) -> None:
        """Predict the labels anew; while they still change much, train on them for half as long and do so again."""
        page = self.pages[phase.name]
        if OmegaConf.select(phase.cfg, "data.labels") is None:
            self._write(phase.name, {**page, "refinement": {"note": "data.labels is null: nothing to refine"}})
            return
        drifts = [self.pages[name]["refinement"]["drift"] for name in self.trained[:-1] if self._refined(name)]
        number = len(drifts) + 1
        folders = [Path(self.cfg.data.labels.folder), *(self._round(n) for n in range(1, number + 1))]
        if not self._refined(phase.name):
            data, task = self._parts(phase)  # with the weights of this phase, the last one trained
            drift = refine_round(task, data, folders[:-1], folders[-1])
            self._write(phase.name, {**page, "refinement": {"round": number, "drift": drift}})
        drifts.append(self.pages[phase.name]["refinement"]["drift"])
        if not next_round(drifts):
            self.labels = kept_round(folders, drifts)
            self._write(phase.name, {**self.pages[phase.name], "labels_kept": _from(self.folder, self.labels)})
            return
        first = phase.name.removesuffix(f"_round_{number - 1}")
        cfg = phase.cfg.copy()
        if number == 1:
            cfg.trainer.max_epochs = round_epochs(cfg.trainer.max_epochs)
        self.labels = folders[-1]
        self.stages.appendleft(replace(phase, name=f"{first}_round_{number}", cfg=cfg))

    def _refined(self, name: str) -> bool:
        return "drift" in self.pages[name].get("refinement", {})

    def _round(self, number: int) -> Path:
        return self.folder / "labels" / f"round_{number}"

    def _best(self, name: str) -> Path:
        return below(self.folder, str(self.pages[name]["checkpoint"]))

    def _write(self, name: str, page: dict[str, Any]) -> None:
        self.pages[name] = page
        write_phase_states(self.folder, self.pages)

    def _finish(self) -> Monitored:
        rows: list[dict[str, Any]] = []
        epochs = steps = 0
        for name in self.trained:
            before = epochs
            for row in read_history(phase_folder(self.folder, name)):
                moved = {"epoch": row["epoch"] + epochs, "phase": name, "step": row["step"] + steps}
                rows.append(moved | {column: value for column, value in row.items() if column not in moved})
            steps = rows[-1]["step"] if rows else 0
            epochs += self.pages[name]["epochs"]
        if rows:
            write_history(self.folder / HISTORY, rows)
        page = self.pages[self.trained[-1]]
        best = best_checkpoint(self.folder)
        write_atomically(best, self._best(self.trained[-1]).read_bytes())
        epoch = -1 if page["epoch"] < 0 else before + page["epoch"]
        return Monitored(page["monitor"], page["mode"], page["value"], epoch, str(best))


def check_phase_checkpoints(folder: Path) -> None:
    """See, before anything is written, that the phases of a run can go on from what they saved.

    Args:
        folder: Of a run; one that has not begun has nothing to check.

    Raises:
        ConfigError: A checkpoint that is needed is damaged or gone.
        DataError: `phases.json` is damaged.
    """
    pages = read_phase_states(folder)
    trained = [name for name, page in pages.items() if page["status"] in TRAINED]
    for name in trained[-1:]:  # the next phase begins with its weights
        try:
            read_checkpoint(below(folder, str(pages[name]["checkpoint"])))
        except ConfigError as error:
            raise ConfigError(f"Phase {name}: {error} Put it back, or start a new run with `resume=null`.") from None
    for name in (name for name, page in pages.items() if page["status"] == "running"):
        own = phase_folder(folder, name)
        for path in sorted((own / CHECKPOINTS).glob("*.ckpt")):
            try:
                read_checkpoint(path, TRAINING if path.name == LAST else WEIGHTS)
            except ConfigError as error:
                raise ConfigError(f"Phase {name}: {error} Remove `{own}`: then the phase begins anew.") from None


def _from(folder: Path, path: Path) -> str:
    """From the run folder on, if it lies there: it may be moved."""
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _gates(callbacks: dict[str, Any]) -> list[RollbackGate]:
    return [one for one in callbacks.values() if isinstance(one, RollbackGate)]


def _where_it_stopped(last: Path) -> dict[str, int]:
    """The number of epochs of a phase that early stopping ended before it was killed; else nothing.

    Lightning keeps in the checkpoint that early stopping fired, but would train one more epoch all the same.
    """
    if not last.is_file():
        return {}
    checkpoint = read_checkpoint(last)
    states = [state for name, state in checkpoint["callbacks"].items() if name.startswith("EarlyStopping")]
    return {"max_epochs": checkpoint["epoch"] + 1} if any(state["stopped_epoch"] for state in states) else {}


def _resolved(node: DictConfig) -> Any:
    return OmegaConf.to_container(node, resolve=True)
