"""The checkpoint that an interrupted run goes on from."""

import random
import signal
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from hsl.signals import listen


class LastCheckpoint(Checkpoint):
    """Saves ``last.ckpt`` after every epoch, and at once when SIGTERM or SIGHUP asks the run to end.

    The random number generators ride in every checkpoint and are put back when training goes on, so a resumed run
    equals the uninterrupted one bit for bit on the CPU. After a signal the run ends, with 128 and its number, once the
    batch under way is done; within an accumulation, once its last batch is; behind an epoch's last batch, once the
    epoch is validated.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._warned = 0  # number of the signal
        self._restored: dict[str, Any] | None = None
        self._loader_state: dict[str, Any] | None = None

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        checkpoint["rng"] = _rng_state()

    def on_load_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        self._restored = checkpoint["rng"]
        loaders = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader")
        self._loader_state = loaders[0] if loaders else None

    def on_sanity_check_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
    ) -> None:
        self._listen()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._listen()
        if self._restored is not None:
            _set_rng_state(self._restored)
            self._restored = None
        if self._loader_state is not None and trainer.train_dataloader is not None:
            # Lightning does so too, but not when the scheduler asked for the number of steps: that makes the
            # loaders before the state is there.
            trainer.train_dataloader.load_state_dict(self._loader_state)
            self._loader_state = None

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: Any, **kwargs: Any) -> None:
        complete = (trainer.fit_loop.total_batch_idx + 1) % trainer.accumulate_grad_batches == 0
        # Lightning would not validate an epoch again that was saved behind its last batch
        if complete and not trainer.is_last_batch and self._is_over(trainer):
            trainer.save_checkpoint(self.path)
            raise SIGTERMException(128 + (self._warned or signal.SIGTERM))

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        trainer.save_checkpoint(self.path)
        if self._is_over(trainer):
            raise SIGTERMException(128 + (self._warned or signal.SIGTERM))

    def _listen(self) -> None:
        """Take the signals over from Lightning, which puts its own handler back when the training ends.

        Lightning's handler speaks to the other processes of a distributed run while they are in the middle of
        something else, and each waits for the other for ever.
        """
        listen(self._warn)

    def _warn(self, number: int, _: Any) -> None:
        self._warned = number

    def _is_over(self, trainer: lightning.Trainer) -> bool:
        """Whether any process was warned; all of them ask at the same point."""
        return bool(trainer.strategy.reduce_boolean_decision(bool(self._warned) or trainer.received_sigterm, all=False))


def _rng_state() -> dict[str, Any]:
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
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
