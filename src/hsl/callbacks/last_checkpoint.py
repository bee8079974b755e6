"""The checkpoint that an interrupted run goes on from."""

import random
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint


class LastCheckpoint(Checkpoint):
    """Saves ``last.ckpt`` after every epoch, and at once when the scheduler warns with SIGTERM.

    The random number generators ride in every checkpoint and are put back when training goes on, so a resumed run
    equals the uninterrupted one bit for bit on the CPU. After SIGTERM the trainer stops by itself once the batch
    under way is done; within an accumulation, or behind an epoch's last batch, the
    checkpoint of the epoch before stays.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._restored: dict[str, Any] | None = None
        self._loader_state: dict[str, Any] | None = None

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],  # noqa: ARG002
    ) -> None:
        checkpoint["rng"] = _rng_state()

    def on_load_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],  # noqa: ARG002
    ) -> None:
        self._restored = checkpoint["rng"]
        loaders = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader")
        self._loader_state = loaders[0] if loaders else None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        if self._restored is not None:
            _set_rng_state(self._restored)
            self._restored = None
        if self._loader_state is not None and trainer.train_dataloader is not None:
            # Lightning does so too, but not when the scheduler asked for the number of steps: that makes the
            # loaders before the state is there.
            trainer.train_dataloader.load_state_dict(self._loader_state)
            self._loader_state = None

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        complete = (trainer.fit_loop.total_batch_idx + 1) % trainer.accumulate_grad_batches == 0
        # Lightning would not validate an epoch again that was saved behind its last batch
        if trainer.received_sigterm and complete and not trainer.is_last_batch:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        trainer.save_checkpoint(self.path)


def _rng_state() -> dict[str, Any]:
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # type: ignore[misc]
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        # plain lists, so that the checkpoint opens with weights_only=True
        "numpy": [name, keys.tolist(), int(position), int(has_gauss), float(cached)],  # type: ignore[union-attr]
        "python": _as_list(random.getstate()),
    }


def _set_rng_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def _as_list(state: tuple[Any, ...]) -> list[Any]:
    version, internal, gauss = state
    return [version, list(internal), gauss]
