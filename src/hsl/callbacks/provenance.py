"""Where a run came from: enough to repeat it and to know what not to compare it with."""

import functools
import hashlib
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from hsl.files.energy import read_counters, spent_between
from hsl.run_folder.provenance import read_provenance, write_provenance
from hsl.terminal import say

PACKAGES = ("hsl", "torch", "torchvision", "lightning", "segmentation-models-pytorch", "timm", "albumentations",
            "opencv-python-headless", "numpy", "torchmetrics", "hydra-core")  # fmt: skip


class Provenance(Callback):
    """Keeps ``provenance.json`` and puts the same facts into every checkpoint.

    ``energy_j`` (counter to joules) is of the whole machine of the first process while the run ran; empty where no
    counter can be read, and ``energy_note`` says why. ``device_time_s``: ``processor``, of the first process and those
    of its children that ended; ``devices``, wall time since the training began times the devices. All are sums over
    the attempts.

    Args:
        folder: of the run.
        facts: what only this run knows: config identity, seed, split hash, weights used.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.folder = folder
        earlier = read_provenance(folder)
        self.facts = {**facts, **run_environment(), "started": earlier.get("started", _now())}
        self._spent = float(earlier.get("wall_time_s", 0.0))
        self._start = time.monotonic()
        self._energy: dict[str, float] = dict(earlier.get("energy_j") or {})
        self._device_time: dict[str, float] = dict(earlier.get("device_time_s") or {})
        self._counters, self._notes = read_counters()
        self._processor = _processor_time()
        self._fitting: float | None = None
        self._devices = 0

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        checkpoint["provenance"] = {**self.facts, "saved": _now()}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Write how the run ends: finished, interrupted (a signal), or failed with its error."""
        self._write("running")
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            self._write("interrupted")
            say(f"! Interrupted. The same command with `resume=last` goes on: {self.folder}", error=True)
            raise
        except BaseException as error:
            self._write("failed", error=f"{type(error).__name__}: {error}")
            raise
        self._write("finished")

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.facts["precision"] = str(trainer.precision)  # what `auto` was
        if trainer.strategy.root_device.type != "cpu" and self._fitting is None:
            self._fitting, self._devices = time.monotonic(), trainer.world_size
        data = cast(Any, trainer).datamodule  # None where the trainer is given loaders
        if data is not None and data.prepared.label_tiers is not None:
            self.facts["label_tiers"] = dict(data.prepared.label_tiers)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.is_global_zero:
            self._write("running")  # so that a killed run still tells the time it took

    def _write(self, status: str, **more: Any) -> None:
        spent = self._spent + time.monotonic() - self._start
        finished = _now() if status == "finished" else None
        page = {**self.facts, "status": status, "finished": finished, "wall_time_s": round(spent, 1)}
        page |= {**self._cost(), **more}
        write_provenance(self.folder, page)

    def _cost(self) -> dict[str, Any]:
        """Energy and device time until now; it is asked for at least every epoch, so that no wrap is missed."""
        counters, notes = read_counters()
        for name, joules in spent_between(self._counters, counters).items():
            self._energy[name] = self._energy.get(name, 0.0) + joules
        self._counters = {**self._counters, **counters}
        self._notes = sorted({*self._notes, *notes})
        if self._devices and not any(name.startswith("nvml") for name in counters):
            self._notes = sorted({*self._notes, "devices not counted: pynvml gives no counter"})
        processor = self._device_time.get("processor", 0.0) + _processor_time() - self._processor
        times = {**self._device_time, "processor": round(processor, 1)}
        if self._fitting is not None:
            now = (time.monotonic() - self._fitting) * self._devices
            times["devices"] = round(self._device_time.get("devices", 0.0) + now, 1)
        energy = {name: round(joules, 1) for name, joules in sorted(self._energy.items())}
        notes = [*([] if energy else ["not measured (no counter that can be read)"]), *self._notes]
        return {"energy_j": energy, "energy_note": "; ".join(notes), "device_time_s": times}


def _processor_time() -> float:
    return sum(os.times()[:4])


def run_environment() -> dict[str, Any]:
    """Git state, package versions, CUDA, hardware and command of this process.

    ``installed`` is the number of all installed packages and the SHA-256 of their names and versions, so that two runs
    tell whether they had the same ones; ``cuda`` and ``cudnn`` are those that torch was built with, null without.
    """
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "git": _git_state(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "installed": _installed(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "python": platform.python_version(),
        "hardware": {"machine": platform.machine(), "cpus": os.cpu_count(), "gpus": gpus},
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


@functools.cache
def _installed() -> dict[str, Any]:
    """Number and hash of the lines ``name==version``, sorted, of what ``pip freeze`` would see.

    Kept for the further runs of a sweep in this process: hundreds of files are parsed for it.
    """
    pages = [one.metadata for one in metadata.distributions()]
    lines = {
        f"{re.sub('[-_.]+', '-', page['Name']).lower()}=={page['Version']}"
        for page in pages
        if page["Name"]  # a folder that was half removed has none
    }
    return {"count": len(lines), "sha256": hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()}


def _git_state() -> dict[str, Any]:
    """Commit of the source tree that runs; null for an installed package, which has a version instead."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return {"commit": None, "dirty": None}
    if commit.returncode != 0:
        return {"commit": None, "dirty": None}
    return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
