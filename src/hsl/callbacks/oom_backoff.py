"""Memory backoff: what is done when a step does not fit in memory, and the record of it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hsl.config.ranges import PositiveInt
from hsl.errors import ConfigError, UserError
from hsl.models.network import checkpoint_network
from hsl.run_folder.history import append_memory_event
from hsl.run_folder.layout import of_rank
from hsl.weighting.base import Weighting
from hsl.weighting.scalar import Fixed, Uncertainty

MARGIN = 1.15  # what a step took at most, and 15 % for what later steps may take
WAYS_OUT = {
    "train": "Lower `data.image_size`, take a smaller `encoder` or `decoder`, or set `trainer.precision=bf16-mixed`.",
    "evaluation": "Set `inference=sliding_window` with `inference.stitch_device=cpu`, lower `inference.window`, "
    "or take a smaller `encoder` or `decoder`.",
}


class MemoryExhaustedError(UserError):
    """A single picture does not fit in memory. The message says how much there is and what to change."""


class OomBackoff(Callback):
    """Halves what is run at once when memory runs out, and runs the same batch again; the effective batch stays.

    At a micro-batch of one picture training turns gradient checkpointing on; if that is not enough the run ends. Sizes
    and checkpointing stay for the rest of the run and ride in the checkpoint. On a CUDA device the peak of the second
    optimizer step, the first with a full optimizer state, is compared with the memory there is: where 15 % more would
    not fit, the micro-batch is halved at once. Every event is appended to ``oom.json``; of further processes to
    ``oom.rank<k>.json``.

    The task's `hsl.tasks.micro_batches.MicroBatches` does the work.

    Args:
        path: of the record.
        micro_batch: pictures per training pass to begin with; ``None``: the whole batch.
        checkpointing: gradient checkpointing from the start.

    Raises:
        ConfigError: ``micro_batch`` is below 1.
    """

    def __init__(self, path: str, micro_batch: PositiveInt | None = None, checkpointing: bool = False) -> None:
        if micro_batch is not None and micro_batch < 1:
            raise ConfigError(
                f"`micro_batch` should be at least 1, or null for the whole batch. Found `micro_batch = {micro_batch}`."
            )
        self.path = Path(path)
        self.sizes: dict[str, int | None] = {"train": micro_batch, "evaluation": None, "forward": None}
        self.checkpointing = checkpointing
        self._trainer: lightning.Trainer | None = None
        self._task: Any = None
        self._first_check: int | None = None  # the step whose peak of memory is looked at; None: no more

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self._trainer, self._task = trainer, pl_module
        self._task.micro_batches.start(self._back_off, self.sizes)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        _check(trainer, pl_module)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self._task.micro_batches.stop()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if isinstance(trainer.strategy.model, DistributedDataParallel):
            # a process that fails would leave the others waiting in the backward pass; gradients are shared after it
            trainer.strategy.model.require_backward_grad_sync = False
        if self.checkpointing and not self._task.micro_batches.recomputes:
            self._turn_checkpointing_on()
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
            self._first_check = trainer.global_step + 2

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._first_check is not None and trainer.global_step >= self._first_check:
            device = pl_module.device
            size = min(self.sizes["train"] or len(batch["image"]), len(batch["image"]))
            peak = torch.cuda.max_memory_allocated(device)
            tight = bool(trainer.strategy.reduce_boolean_decision(peak * MARGIN > _available(device), all=False))
            self._first_check = trainer.global_step + 1 if tight and size > 1 else None
            if tight and size > 1:
                memory = {"device": str(device), "used_bytes": peak, "total_bytes": _available(device)}
                self._record("train", size, size // 2, "margin", f"{peak} bytes and 15 % do not fit", memory)
                self.sizes["train"] = size // 2
                torch.cuda.reset_peak_memory_stats(device)

    def state_dict(self) -> dict[str, Any]:
        return {"sizes": dict(self.sizes), "checkpointing": self.checkpointing}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sizes.update(state_dict["sizes"])  # in place: the task has them too
        self.checkpointing = state_dict["checkpointing"]

    def _back_off(self, kind: str, size: int, failure: Any) -> int:
        """How many to run at once after ``size`` did not fit; decided alike in all processes that train."""
        last_resort = size == 1 and kind == "train" and not self.checkpointing
        if last_resort:
            self._turn_checkpointing_on()
        after = max(size // 2, 1)
        self._record(kind, size, after, "out of memory", failure.message, failure.memory)
        if size == 1 and not last_resort:
            raise MemoryExhaustedError(self._out_of_options(kind, failure))
        return after

    def _turn_checkpointing_on(self) -> None:
        checkpoint_network(self._task.network)
        self.checkpointing = self._task.micro_batches.recomputes = True

    def _record(self, kind: str, before: int, after: int, reason: str, error: str, memory: dict[str, Any]) -> None:
        trainer = cast(lightning.Trainer, self._trainer)
        event = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "phase": _phase(trainer),
            "cut": kind,
            "reason": reason,
            "micro_batch_before": before,
            "micro_batch_after": after,
            "gradient_checkpointing": self.checkpointing,
            "memory": memory,
            "error": error,
        }
        rank = trainer.global_rank
        path = of_rank(self.path, rank) if rank else self.path
        append_memory_event(path, event)

    def _out_of_options(self, kind: str, failure: Any) -> str:
        trainer, memory = cast(lightning.Trainer, self._trainer), failure.memory
        checkpointing = " with gradient checkpointing" if kind == "train" else ""
        numbers = "that another process had too little"
        if memory:
            used, total = (memory[name] / 2**30 for name in ("used_bytes", "total_bytes"))
            numbers = f"{used:.1f} of {total:.1f} GiB in use on {memory['device']}"
        return (
            f"A micro-batch of 1 picture should fit in memory{checkpointing}. Found {numbers} in step "
            f"{trainer.global_step} ({_phase(trainer)}): {failure.message.rstrip(' .')}. {WAYS_OUT[kind]}"
        )


def _phase(trainer: lightning.Trainer) -> str:
    stage = cast(Any, trainer.state.stage).value
    return "val" if stage in ("sanity_check", "validate") else str(stage)


def _available(device: torch.device) -> int:
    """Bytes that this process has or could have."""
    free, total = torch.cuda.mem_get_info(device)
    share = int(total * torch.cuda.memory.get_per_process_memory_fraction(device))
    return min(free + torch.cuda.memory_reserved(device), share)


def _check(trainer: lightning.Trainer, task: Any) -> None:
    """Refuse what would hang or not do what it says."""
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        raise ConfigError(
            "`callbacks=oom_backoff` should run on one device or with `trainer.strategy=ddp`. "
            f"Found `{type(trainer.strategy).__name__}`. Leave the callback out."
        )
    modules = list(task.modules()) if trainer.world_size > 1 else []
    synchronised = [one for one in modules if isinstance(one, nn.SyncBatchNorm | Weighting)]
    names = {type(one).__name__ for one in synchronised if not isinstance(one, Fixed | Uncertainty)}
    if names:
        raise ConfigError(
            "With several processes `callbacks=oom_backoff` should have `weighting=fixed` or `weighting=uncertainty` "
            f"and no `trainer.sync_batchnorm`. Found `{'`, `'.join(sorted(names))}`, whose processes talk within the "
            "forward pass, where one without memory would keep the others waiting. Leave one of the two out."
        )
