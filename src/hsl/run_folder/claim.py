"""The run folder: found again by its config, claimed by one process, never half-written."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf

from hsl.errors import ConfigError
from hsl.files.io import TEMPORARY, clear_temporary, write_atomically
from hsl.files.locks import BusyError, try_lock
from hsl.run_folder.earlier import config_identity, differing, go_on_longer, resumable, same_config
from hsl.run_folder.layout import (
    BEST,
    CHECKPOINTS,
    METRICS,
    OBJECTS_VALIDATION,
    OOM,
    START,
    TIME,
    WEIGHTING,
    chosen_checkpoint,
    last_checkpoint,
)
from hsl.run_folder.provenance import read_provenance, write_provenance
from hsl.run_folder.scores import read_metrics

CHILD_VARIABLE = "HSL_RUN_DIR"
"""Tells the further processes of a distributed run which folder the first one claimed."""

CARRIED = (CHECKPOINTS / BEST, CHECKPOINTS / START, WEIGHTING, OBJECTS_VALIDATION, OOM)
"""What a longer run takes over of a shorter one beside the last checkpoint, in which all the rest rides."""


_LOCK = ".lock"
_UNLOCKED_S = 3600.0  # for which a folder may have no lock yet


@dataclass
class RunFolder:
    """One run's place on disk.

    ``checkpoint`` is where training goes on from; a run of phases has none here, it finds the phase under way by its
    ``phases.json``. ``finished`` means that there is nothing left to do. ``longer`` means that the run the checkpoint
    comes from is this one but for ``trainer.max_epochs``, so that what it kept is taken over.
    A new folder is made by ``claim`` only, so a mistake in the data leaves none behind.
    """

    path: Path
    identity: str
    new: bool = False
    checkpoint: Path | None = None
    finished: bool = False
    longer: bool = False
    _lock: IO[str] | None = field(default=None, repr=False)

    @property
    def claimed(self) -> bool:
        """Whether this process is the one that writes here."""
        return self._lock is not None

    def claim(self, facts: Mapping[str, Any] | None = None) -> None:
        """Create the folder and keep other processes out of it until this one ends.

        Args:
            facts: what a new folder's ``provenance.json`` says until the run begins.

        Raises:
            BusyError: another process runs in it.
        """
        if os.environ.get(CHILD_VARIABLE):
            return
        if self.new:
            _clear_unborn(self.path)
            self._create(facts)
        else:
            self._lock = try_lock(self.path / _LOCK)
        if self._lock is None:
            raise BusyError(
                f"`{self.path}` should be free. Found another process running in it. Wait for it to end, or start "
                "a new run with `resume=null`."
            )
        os.environ[CHILD_VARIABLE] = str(self.path)
        clear_temporary(self.path)  # what `kill -9` in the middle of a write left

    def release(self) -> None:
        """Let go of the folder, so that a sweep's next run in this process can claim its own."""
        os.environ.pop(CHILD_VARIABLE, None)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def result(self, monitor: str) -> float:
        """The monitored value of a finished run."""
        value = read_metrics(self.path).monitor.value
        if value is None:
            raise ConfigError(f"`{self.path / METRICS}` has no value for `monitor = {monitor}`.")
        return float(value)

    def _create(self, facts: Mapping[str, Any] | None) -> None:
        """Fill a hidden folder, then rename it: whoever finds a run folder finds its lock and provenance."""
        self.path.mkdir(parents=True, exist_ok=True)
        unborn = Path(tempfile.mkdtemp(dir=self.path, prefix=".run-", suffix=TEMPORARY))
        unborn.chmod(0o777 & ~_umask())
        self._lock = try_lock(unborn / _LOCK)
        if self.checkpoint is not None:
            source = self.checkpoint.parent.parent
            for name in CARRIED if self.longer else ():
                if (source / name).is_file():
                    write_atomically(unborn / name, (source / name).read_bytes())
            write_atomically(last_checkpoint(unborn), self.checkpoint.read_bytes())
        if facts is not None:
            write_provenance(unborn, {**facts, "status": "running"})
        self.path = _rename(unborn, self.path)
        self.new = False
        if self.checkpoint is not None:
            self.checkpoint = resumable(self.path)


def find_run_folder(
    cfg: DictConfig,
    *,
    sweep: bool,
    counts: Callable[[Mapping[str, Any]], bool],
    alike: Callable[[int, int], bool],
) -> RunFolder:
    """Decide where this config runs: a new folder, one to go on in, or one that is finished.

    What is not as the caller may think is said: a run that is passed over, and in what the nearest one differs.

    Args:
        cfg: the composed config.
        sweep: whether it is one of a multirun; there, what is finished is skipped unless ``rerun=true``.
        counts: of the provenance of an earlier run of this config, whether the data are still those it was made from.
        alike: see `hsl.run_folder.earlier.go_on_longer`.

    Raises:
        ConfigError: ``resume`` names no checkpoint and no run folder.
    """
    identity = config_identity(cfg)
    base = Path(cfg.run_dir)
    chosen = None if cfg.resume in (None, "last") else chosen_checkpoint(Path(cfg.resume))
    if child := os.environ.get(CHILD_VARIABLE):
        return RunFolder(Path(child), identity, checkpoint=_of_further_process(cfg, chosen, Path(child)))
    if chosen is not None:
        return _from_checkpoint(cfg, chosen, identity)
    looked_for = cfg.resume == "last" or (sweep and not cfg.rerun)
    earlier = same_config(base, identity, counts) if looked_for else []
    finished = [folder for folder, facts in earlier if _is_finished(folder, facts)]
    unfinished = [folder for folder, facts in earlier if not _is_finished(folder, facts)]
    if finished and not cfg.rerun:
        return RunFolder(finished[0], identity, finished=True)
    if cfg.resume == "last" and unfinished:
        return RunFolder(unfinished[0], identity, checkpoint=_last(cfg, unfinished[0]))
    shorter = go_on_longer(base, cfg, counts, alike) if cfg.resume == "last" and not earlier else None
    return RunFolder(base, identity, new=True, checkpoint=shorter, longer=shorter is not None)


def _is_finished(folder: Path, facts: Mapping[str, Any]) -> bool:
    return bool(facts["status"] == "finished") and (folder / METRICS).is_file()  # else it is scored again


def _last(cfg: DictConfig, folder: Path) -> Path | None:
    """Where a run goes on; a run of phases finds that out phase by phase."""
    return None if cfg.get("phases") else resumable(folder)


def _of_further_process(cfg: DictConfig, chosen: Path | None, folder: Path) -> Path | None:
    """What the process that claimed the folder goes on from; a checkpoint of another run was copied to the last one."""
    if chosen is not None and chosen.parent.parent.resolve() == folder.resolve():
        return chosen
    return None if cfg.resume is None else _last(cfg, folder)


def _from_checkpoint(cfg: DictConfig, checkpoint: Path, identity: str) -> RunFolder:
    folder = checkpoint.parent.parent
    facts = read_provenance(folder)
    if facts.get("identity") == identity:
        finished = _is_finished(folder, facts)
        return RunFolder(folder, identity, finished=finished, checkpoint=None if cfg.get("phases") else checkpoint)
    if cfg.get("phases"):
        raise ConfigError(
            f"`resume` should be null, last or the folder of this very run in a run of phases. Found `resume = "
            f"{cfg.resume}`: a checkpoint of one phase does not say what the others did."
        )
    now: Any = OmegaConf.to_container(cfg, resolve=True)
    longer = differing(facts.get("config", {}), now).keys() == {"trainer.max_epochs"}
    return RunFolder(Path(cfg.run_dir), identity, new=True, checkpoint=checkpoint, longer=longer)


def _rename(unborn: Path, base: Path) -> Path:
    """Name a folder by the time; two processes never get the same name, for no folder takes the place of a full one."""
    name = datetime.now().strftime(TIME)
    for suffix in ["", *(f"-{i}" for i in range(2, 1000))]:
        try:
            return unborn.rename(base / f"{name}{suffix}")
        except OSError:
            if not (base / f"{name}{suffix}").exists():
                raise
    raise ConfigError(f"`{base}` should take a new run folder. Found a thousand of this second.")


def _clear_unborn(base: Path) -> None:
    """Remove the folders of runs that were killed before they had a name; a living one holds its lock."""
    unnamed = [path for path in base.glob(f".run-*{TEMPORARY}") if path.is_dir()]
    bare = [path.parent for path in base.glob(f"[!.]*/{_LOCK}") if len(list(path.parent.iterdir())) == 1]
    for unborn in (*unnamed, *bare):
        if (unborn / _LOCK).is_file() and (lock := try_lock(unborn / _LOCK)) is not None:
            shutil.rmtree(unborn)
            lock.close()
        elif time.time() - unborn.stat().st_mtime > _UNLOCKED_S:
            with contextlib.suppress(OSError):  # it is not empty, or another process was first
                unborn.rmdir()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
