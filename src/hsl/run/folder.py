"""The run folder: found again by its config, claimed by one process, never half-written."""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf

from hsl.callbacks.provenance import read_provenance
from hsl.config import ConfigError, DataError
from hsl.files import read_json, write_atomically

CHILD_VARIABLE = "HSL_RUN_DIR"
"""Tells the further processes of a distributed run which folder the first one claimed."""

RUNTIME_KEYS = ("resume", "rerun", "run_dir", "output_root", "cache_dir", "entry")
RUNTIME_DATA_KEYS = ("num_workers", "cache", "cache_gigabytes", "cache_dir", "audit")


log = logging.getLogger(__name__)


@dataclass
class RunFolder:
    """One run's place on disk.

    ``checkpoint`` is where training goes on from; a run of phases has none here, it finds the phase under way by its
    ``phases.json``. ``finished`` means that there is nothing left to do.
    A new folder is made by ``claim`` only, so a mistake in the data leaves none behind.
    """

    path: Path
    identity: str
    new: bool = False
    checkpoint: Path | None = None
    finished: bool = False
    _lock: IO[str] | None = field(default=None, repr=False)

    def claim(self) -> None:
        """Create the folder and keep other processes out of it until this one ends.

        Raises:
            ConfigError: another process runs in it.
        """
        if os.environ.get(CHILD_VARIABLE):
            return
        if self.new:
            self.path = _new_folder(self.path)
        self._lock = (self.path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            self._lock = None
            raise ConfigError(
                f"`{self.path}` should be free. Found another process running in it. Wait for it to end, or start "
                "a new run with `resume=null`."
            ) from None
        os.environ[CHILD_VARIABLE] = str(self.path)
        for below in ("checkpoints", "phases/*/checkpoints"):
            for leftover in self.path.glob(f"{below}/.*.ckpt.*"):
                leftover.unlink()  # what `kill -9` in the middle of a save left

    def release(self) -> None:
        """Let go of the folder, so that a sweep's next run in this process can claim its own."""
        os.environ.pop(CHILD_VARIABLE, None)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def write_config(self, cfg: DictConfig) -> None:
        """Write the resolved config beside everything else."""
        write_atomically(self.path / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True).encode())

    def result(self, monitor: str) -> float:
        """The monitored value of a finished run."""
        metrics = read_json(self.path / "metrics.json")
        value = metrics["monitor"]["value"]
        if value is None:
            raise ConfigError(f"`{self.path}/metrics.json` has no value for `monitor = {monitor}`.")
        return float(value)


def find_run_folder(cfg: DictConfig, *, sweep: bool, counts: Callable[[Mapping[str, Any]], bool]) -> RunFolder:
    """Decide where this config runs: a new folder, one to go on in, or one that is finished.

    Args:
        cfg: the composed config.
        sweep: whether it is one of a multirun; there, what is finished is skipped unless ``rerun=true``.
        counts: of the provenance of an earlier run of this config, whether the data are still those it was made from.

    Raises:
        ConfigError: ``resume`` names a checkpoint that does not exist.
    """
    identity = config_identity(cfg)
    base = Path(cfg.run_dir)
    if child := os.environ.get(CHILD_VARIABLE):
        last = _last_checkpoint(Path(child)) if cfg.resume == "last" else cfg.resume
        return RunFolder(Path(child), identity, checkpoint=None if last is None else Path(last))
    if cfg.resume not in (None, "last"):
        return _from_checkpoint(Path(cfg.resume), base, identity)
    looked_for = cfg.resume == "last" or (sweep and not cfg.rerun)
    earlier = _same_config(base, identity, counts) if looked_for else []
    if cfg.resume == "last" or (sweep and not cfg.rerun):
        for folder in earlier:
            if read_provenance(folder / "provenance.json")["status"] == "finished" and not cfg.rerun:
                return RunFolder(folder, identity, finished=True)
    if cfg.resume == "last" and earlier:
        unfinished = [f for f in earlier if read_provenance(f / "provenance.json")["status"] != "finished"]
        if unfinished:
            return RunFolder(unfinished[0], identity, checkpoint=_last_checkpoint(unfinished[0]))
    return RunFolder(base, identity, new=True)


def config_identity(cfg: DictConfig) -> str:
    """SHA-256 of everything in the config that can change a number; paths and worker counts are left out."""
    copy: Any = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    OmegaConf.set_struct(copy, False)
    for key in RUNTIME_KEYS:
        copy[key] = None
    content: Any = OmegaConf.to_container(copy, resolve=True)
    for key in RUNTIME_DATA_KEYS:
        content["data"].pop(key, None)
    for group in ("logger", "callbacks"):
        content[group] = _without_paths(content[group])
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _without_paths(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_paths(value) for key, value in node.items() if key not in ("path", "dirpath", "save_dir")}
    return node


def _same_config(base: Path, identity: str, counts: Callable[[Mapping[str, Any]], bool]) -> list[Path]:
    """Run folders below ``base`` that were made by this very config from these very data, newest first."""
    found = []
    for path in base.glob("*/provenance.json"):
        try:
            facts = read_provenance(path)
            if facts.get("identity") == identity and counts(facts):
                found.append(path.parent)
            elif facts.get("identity") == identity:
                log.warning("%s was made before pictures, masks or labels changed. It is passed over.", path.parent)
        except DataError as error:  # whose run it was is not known any more; this one goes on without it
            log.warning("%s It is passed over.", error)
    return sorted(found, key=lambda folder: folder.name, reverse=True)


def _last_checkpoint(folder: Path) -> Path | None:
    path = folder / "checkpoints" / "last.ckpt"
    return path if path.is_file() else None


def _from_checkpoint(checkpoint: Path, base: Path, identity: str) -> RunFolder:
    if not checkpoint.is_file():
        raise ConfigError(
            f"`resume` should be null, last or a checkpoint's path. Found `resume = {checkpoint}`, which is no file. "
            "Run folders keep theirs in `checkpoints/last.ckpt`."
        )
    folder = checkpoint.parent.parent
    if read_provenance(folder / "provenance.json").get("identity") == identity:
        return RunFolder(folder, identity, checkpoint=checkpoint)
    return RunFolder(base, identity, new=True, checkpoint=checkpoint)


def _new_folder(base: Path) -> Path:
    """A folder named by the time; created here, so that two processes never get the same one."""
    name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for suffix in ["", *(f"-{i}" for i in range(2, 1000))]:
        try:
            (base / f"{name}{suffix}").mkdir(parents=True)
        except FileExistsError:
            continue
        return base / f"{name}{suffix}"
    raise ConfigError(f"`{base}` should take a new run folder. Found a thousand of this second.")
