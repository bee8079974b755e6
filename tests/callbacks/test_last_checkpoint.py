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
from lightning.pytorch.utilities.exceptions import SIGTERMException

from hsl.callbacks.last_checkpoint import LastCheckpoint


class Trainer:
    """As much of a trainer as the callback asks for."""

    def __init__(self, batch: int = 0, accumulate: int = 1, is_last_batch: bool = False, warned: bool = False) -> None:
        self.fit_loop = SimpleNamespace(total_batch_idx=batch)
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
    handler = signal.getsignal(signal.SIGTERM)
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    signal.signal(signal.SIGTERM, handler)
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
    with pytest.raises(SIGTERMException):
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
        with pytest.raises(SIGTERMException):
            callback.on_train_batch_end(trainer)  # type: ignore[arg-type]
    else:
        callback.on_train_batch_end(trainer)  # type: ignore[arg-type]
    assert trainer.saved == ([Path("last.ckpt")] if ends else [])


@pytest.mark.parametrize("hook", ["on_train_start", "on_sanity_check_start"])
def test_sigterm_is_heard(hook: str) -> None:
    callback, trainer = LastCheckpoint("last.ckpt"), Trainer()
    getattr(callback, hook)(trainer, None)
    callback.on_train_batch_end(trainer)  # type: ignore[arg-type]
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SIGTERMException):
        callback.on_train_batch_end(trainer)  # type: ignore[arg-type]
