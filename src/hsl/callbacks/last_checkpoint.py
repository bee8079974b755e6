"""The checkpoint that an interrupted run goes on from."""

import random
import signal
from pathlib import Path
from typing import Any, cast

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint

from hsl.signals import Interrupted, Listener, listener

Sums = dict[str, list[float]]
"""Of what an epoch logs, the sum and the number of pictures so far."""

BEGUN = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
VALIDATION = "epoch_loop.val_loop.batch_progress"


class LastCheckpoint(Checkpoint):
    """Saves ``last.ckpt`` after every epoch, and at once when SIGTERM, SIGHUP or Ctrl-C asks the run to end.

    The random number generators ride in every checkpoint and are put back when training goes on, so a resumed run
    equals the uninterrupted one bit for bit on the CPU. After a signal the run ends, with 128 and its number:

    - in training, once the batch under way is done; within an accumulation, once its last batch is;
    - in a validation at once, and of several processes once each has done its batch. A validation changes nothing that
      is learned, so what is saved is what it began with: the epoch is trained, and the resumed run validates it first;
    - before the first batch at once: there is nothing to keep.

    A second Ctrl-C, a second later, ends it without saving.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._signals = Listener()
        self._agreed = False  # whether every process leaves here, so that they may save together
        self._shared_batches = 0  # of the validation, that every process has
        self._before_validation: dict[str, Any] | None = None  # the random numbers, while one is under way
        self._sums: Sums = {}  # of the epoch that is left before its end
        self._restored: dict[str, Any] | None = None
        self._restored_sums: Sums = {}
        self._loader_state: dict[str, Any] | None = None

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        checkpoint["rng"] = self._before_validation or _rng_state()
        checkpoint["train_sums"] = self._sums
        if self._before_validation is not None:  # Lightning would not see again the batches that it counts
            checkpoint["loops"]["fit_loop"][VALIDATION] = {"total": BEGUN, "current": BEGUN, "is_last_batch": False}

    def on_load_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        self._restored = checkpoint["rng"]
        self._restored_sums = checkpoint.get("train_sums", {})
        loaders = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader")
        self._loader_state = loaders[0] if loaders else None

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self._signals = listener()  # before Lightning puts its own in front

    def on_sanity_check_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
    ) -> None:
        self._listen(patient=False)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._listen(patient=True)
        if self._restored is not None:
            _set_rng_state(self._restored)
            self._restored = None
        if self._restored_sums:  # the validation may be all that is left of the epoch
            means = {name: torch.tensor(total) / number for name, (total, number) in self._restored_sums.items()}
            cast(Any, trainer)._logger_connector._callback_metrics.update(means)
        if self._loader_state is not None and trainer.train_dataloader is not None:
            # Lightning does so too, but not when the scheduler asked for the number of steps: that makes the
            # loaders before the state is there.
            trainer.train_dataloader.load_state_dict(self._loader_state)
            self._loader_state = None

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: Any, **kwargs: Any) -> None:
        if self._restored_sums and trainer.is_global_zero:
            _add_sums(trainer, self._restored_sums)
        self._restored_sums = {}
        complete = (trainer.fit_loop.total_batch_idx + 1) % trainer.accumulate_grad_batches == 0
        # behind an epoch's last batch the validation follows, and is left at once
        if complete and not trainer.is_last_batch and self._is_over(trainer):
            self._sums = _sums(trainer)
            trainer.save_checkpoint(self.path)
            raise self._interrupted()

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._before_validation = _rng_state()
        if self._is_over(trainer):
            self._agreed = True
            raise self._interrupted()
        self._signals.patient = trainer.world_size > 1
        if trainer.world_size > 1:
            own = torch.tensor(sum(trainer.num_val_batches), device=trainer.strategy.root_device)
            self._shared_batches = int(trainer.strategy.reduce(own, reduce_op="min"))

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._before_validation is None or trainer.world_size == 1 or batch_idx >= self._shared_batches:
            return
        if self._is_over(trainer):
            self._agreed = True
            raise self._interrupted()

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not trainer.sanity_checking:  # from here on callbacks take note of its scores
            self._signals.patient = True
            self._before_validation = None

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._restored_sums = {}
        trainer.save_checkpoint(self.path)
        if self._is_over(trainer):
            raise self._interrupted()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._signals.patient = False
        if self._is_over(trainer):
            raise self._interrupted()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        if self._before_validation is not None and isinstance(exception, Interrupted):
            self._signals.patient = True
            if self._agreed or trainer.world_size == 1:
                self._sums = _sums(trainer) or self._restored_sums
                trainer.save_checkpoint(self.path)
        self._signals.patient = False

    def _listen(self, patient: bool) -> None:
        """Take the signals over from Lightning, which puts its own handler back when the training ends.

        Lightning's handler speaks to the other processes of a distributed run while they are in the middle of
        something else, and each waits for the other for ever.
        """
        self._signals.listen()
        self._signals.patient = patient

    def _interrupted(self) -> Interrupted:
        return Interrupted(self._signals.number or signal.SIGTERM)

    def _is_over(self, trainer: lightning.Trainer) -> bool:
        """Whether any process was warned; all of them ask at the same point."""
        heard = self._signals.number is not None or trainer.received_sigterm
        return bool(trainer.strategy.reduce_boolean_decision(heard, all=False))


def _sums(trainer: lightning.Trainer) -> Sums:
    """What the training batches of the epoch under way have logged, over all processes."""
    found: Sums = {}
    for metric in cast(Any, trainer).fit_loop.epoch_loop._results.values():
        if metric.is_tensor and metric.meta.is_mean_reduction and not metric.has_reset:
            pair = (metric.value, metric.cumulated_batch_size)
            found[metric.meta.name] = [trainer.strategy.reduce(one.clone(), reduce_op="sum").item() for one in pair]
    return found


def _add_sums(trainer: lightning.Trainer, sums: Sums) -> None:
    for metric in cast(Any, trainer).fit_loop.epoch_loop._results.values():
        if metric.meta.name in sums:
            total, number = sums[metric.meta.name]
            metric.value, metric.cumulated_batch_size = metric.value + total, metric.cumulated_batch_size + int(number)
            metric._computed = None


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
