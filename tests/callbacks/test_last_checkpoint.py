"""The random numbers go on where they were, and SIGTERM ends a run where it can be resumed."""

import random
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hsl.callbacks.last_checkpoint import LastCheckpoint
from hsl.signals import SIGNALS, Interrupted


class Trainer:
    """As much of a trainer as the callback asks for."""

    def __init__(self, batch: int = 0, accumulate: int = 1, is_last_batch: bool = False, warned: bool = False) -> None:
        self.fit_loop = SimpleNamespace(total_batch_idx=batch, epoch_loop=SimpleNamespace(_results={}))
        self.is_global_zero, self.world_size, self.sanity_checking = True, 1, False
        self.accumulate_grad_batches = accumulate
        self.is_last_batch = is_last_batch
        self.received_sigterm = warned
        self.strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
        self.saved: list[Path] = []
        self.loader_states: list[Any] = []
        self.train_dataloader = SimpleNamespace(load_state_dict=self.loader_states.append)

    def save_checkpoint(self, path: Path) -> None:
        self.saved.append(path)


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    """The signal handler and the generators of this process are as before."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])


def draw() -> list[float]:
    """Uniform and normal numbers of all three; the normal ones come in pairs, so one is kept back."""
    return [
        *torch.rand(3).tolist(), torch.randn(()).item(),
        *np.random.rand(3).tolist(), np.random.standard_normal(),
        random.random(), random.gauss(0, 1),
    ]  # fmt: skip


def loops(*loader_states: Any) -> dict[str, Any]:
    return {"fit_loop": {"state_dict": {"combined_loader": list(loader_states)}}}


def test_random_numbers_go_on_after_a_checkpoint(tmp_path: Path) -> None:
    draw()  # so that numpy and python each hold one back
    checkpoint: dict[str, Any] = {"loops": loops()}
    LastCheckpoint("unused").on_save_checkpoint(None, None, checkpoint)  # type: ignore[arg-type]
    torch.save(checkpoint, tmp_path / "last.ckpt")
    expected = draw()
    draw()

    loaded = torch.load(tmp_path / "last.ckpt", weights_only=True)
    resumed, trainer = LastCheckpoint("unused"), Trainer()
    resumed.on_load_checkpoint(trainer, None, loaded)  # type: ignore[arg-type]
    assert draw() != expected  # what is drawn between loading and training does not matter
    resumed.on_train_start(trainer, None)  # type: ignore[arg-type]
    assert draw() == expected
    resumed.on_train_start(trainer, None)  # type: ignore[arg-type]
    assert draw() != expected  # put back once only


def test_the_loader_gets_its_state_once() -> None:
    callback, trainer = LastCheckpoint("unused"), Trainer()
    checkpoint: dict[str, Any] = {"loops": loops({"position": 3})}
    callback.on_save_checkpoint(None, None, checkpoint)  # type: ignore[arg-type]
    callback.on_load_checkpoint(trainer, None, checkpoint)  # type: ignore[arg-type]
    for _ in range(2):
        callback.on_train_start(trainer, None)  # type: ignore[arg-type]
    assert trainer.loader_states == [{"position": 3}]


def test_a_fresh_run_changes_nothing() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2).tolist()
    torch.manual_seed(0)
    trainer = Trainer()
    LastCheckpoint("unused").on_train_start(trainer, None)  # type: ignore[arg-type]
    assert torch.rand(2).tolist() == expected
    assert trainer.loader_states == []


def test_every_epoch_is_saved() -> None:
    trainer = Trainer()
    LastCheckpoint("folder/last.ckpt").on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
    assert trainer.saved == [Path("folder/last.ckpt")]


def test_a_warning_ends_the_run_behind_the_saved_epoch() -> None:
    trainer = Trainer(warned=True)
    with pytest.raises(Interrupted):
        LastCheckpoint("last.ckpt").on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
    assert trainer.saved == [Path("last.ckpt")]


@pytest.mark.parametrize(
    ("trainer", "ends"),
    [
        (Trainer(batch=0, warned=True), True),
        (Trainer(batch=0), False),
        (Trainer(batch=0, accumulate=2, warned=True), False),
        (Trainer(batch=1, accumulate=2, warned=True), True),
        (Trainer(batch=0, is_last_batch=True, warned=True), False),  # the end of the epoch saves
    ],
)
def test_a_warning_ends_the_run_behind_a_whole_step(trainer: Trainer, ends: bool) -> None:
    callback = LastCheckpoint("last.ckpt")
    if ends:
        with pytest.raises(Interrupted):
            callback.on_train_batch_end(trainer)  # type: ignore[arg-type]
    else:
        callback.on_train_batch_end(trainer)  # type: ignore[arg-type]
    assert trainer.saved == ([Path("last.ckpt")] if ends else [])


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_training_is_heard_at_the_end_of_the_batch(number: int) -> None:
    callback, trainer = LastCheckpoint("last.ckpt"), Trainer()
    callback.setup(trainer, None, "fit")  # type: ignore[arg-type]
    callback.on_train_start(trainer, None)  # type: ignore[arg-type]
    callback.on_train_batch_end(trainer)  # type: ignore[arg-type]
    signal.raise_signal(number)
    with pytest.raises(Interrupted) as ended:
        callback.on_train_batch_end(trainer)  # type: ignore[arg-type]
    assert ended.value.code == 128 + number
    assert trainer.saved == [Path("last.ckpt")]


@pytest.mark.parametrize("hook", ["on_sanity_check_start", "on_train_end"])
def test_where_nothing_is_to_be_kept_a_signal_ends_at_once(hook: str) -> None:
    callback, trainer = LastCheckpoint("last.ckpt"), Trainer()
    callback.on_train_start(trainer, None)  # type: ignore[arg-type]
    getattr(callback, hook)(trainer, None)
    with pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGTERM)
    assert trainer.saved == []


def test_a_validation_is_left_at_once_with_what_it_began_with() -> None:
    callback, trainer = LastCheckpoint("last.ckpt"), Trainer()
    callback.on_train_start(trainer, None)  # type: ignore[arg-type]
    callback.on_validation_start(trainer, None)  # type: ignore[arg-type]
    checkpoint: dict[str, Any] = {"loops": loops()}
    expected = draw()
    with pytest.raises(Interrupted) as ended:
        signal.raise_signal(signal.SIGTERM)
    callback.on_save_checkpoint(trainer, None, checkpoint)  # type: ignore[arg-type]
    callback.on_exception(trainer, None, ended.value)  # type: ignore[arg-type]
    assert trainer.saved == [Path("last.ckpt")]
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    assert progress["current"] == {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    resumed = LastCheckpoint("last.ckpt")
    resumed.on_load_checkpoint(trainer, None, checkpoint)  # type: ignore[arg-type]
    resumed.on_train_start(trainer, None)  # type: ignore[arg-type]
    assert draw() == expected


def test_a_signal_just_before_a_validation_does_not_wait_for_it() -> None:
    callback, trainer = LastCheckpoint("last.ckpt"), Trainer(is_last_batch=True)
    callback.on_train_start(trainer, None)  # type: ignore[arg-type]
    signal.raise_signal(signal.SIGTERM)
    callback.on_train_batch_end(trainer)  # type: ignore[arg-type]
    with pytest.raises(Interrupted):
        callback.on_validation_start(trainer, None)  # type: ignore[arg-type]


def test_while_the_scores_are_taken_note_of_a_signal_waits_for_the_end_of_the_epoch() -> None:
    callback, trainer = LastCheckpoint("last.ckpt"), Trainer()
    callback.on_train_start(trainer, None)  # type: ignore[arg-type]
    callback.on_validation_start(trainer, None)  # type: ignore[arg-type]
    callback.on_validation_epoch_end(trainer, None)  # type: ignore[arg-type]
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Interrupted):
        callback.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
    assert trainer.saved == [Path("last.ckpt")]


def test_another_error_in_a_validation_saves_nothing() -> None:
    callback, trainer = LastCheckpoint("last.ckpt"), Trainer()
    callback.on_train_start(trainer, None)  # type: ignore[arg-type]
    callback.on_validation_start(trainer, None)  # type: ignore[arg-type]
    callback.on_exception(trainer, None, ValueError())  # type: ignore[arg-type]
    assert trainer.saved == []


def test_several_processes_leave_a_validation_together_after_a_batch_that_all_have() -> None:
    callback, trainer = LastCheckpoint("last.ckpt"), Trainer()
    trainer.world_size, trainer.num_val_batches = 2, [3]  # type: ignore[attr-defined]
    trainer.strategy.root_device = "cpu"
    trainer.strategy.reduce = lambda tensor, reduce_op: tensor - 1 if reduce_op == "min" else tensor
    callback.on_train_start(trainer, None)  # type: ignore[arg-type]
    callback.on_validation_start(trainer, None)  # type: ignore[arg-type]
    signal.raise_signal(signal.SIGTERM)  # alone, this process would keep the other waiting
    callback.on_validation_batch_end(trainer, None, None, None, 2)  # type: ignore[arg-type]  # the other has two
    with pytest.raises(Interrupted) as ended:
        callback.on_validation_batch_end(trainer, None, None, None, 1)  # type: ignore[arg-type]
    callback.on_exception(trainer, None, ended.value)  # type: ignore[arg-type]
    assert trainer.saved == [Path("last.ckpt")]


def test_a_second_ctrl_c_of_several_processes_does_not_save_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    callback, trainer = LastCheckpoint("last.ckpt"), Trainer()
    trainer.world_size, trainer.num_val_batches = 2, [3]  # type: ignore[attr-defined]
    trainer.strategy.root_device, trainer.strategy.reduce = "cpu", lambda tensor, reduce_op: tensor
    callback.on_train_start(trainer, None)  # type: ignore[arg-type]
    callback.on_validation_start(trainer, None)  # type: ignore[arg-type]
    signal.raise_signal(signal.SIGINT)
    monkeypatch.setattr("hsl.signals.TWICE_S", -1.0)
    with pytest.raises(Interrupted) as ended:
        signal.raise_signal(signal.SIGINT)
    callback.on_exception(trainer, None, ended.value)  # type: ignore[arg-type]
    assert trainer.saved == []
