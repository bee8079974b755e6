"""What tests of whole runs look at."""

from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import pytest
import torch

from hsl.callbacks.last_checkpoint import LastCheckpoint

QUICK = ("callbacks.tta_evaluation=null", "callbacks.evaluation.num_examples=0")
"""Overrides of a run that is scored once and keeps no pictures."""

SMALL = (
    *QUICK, "metrics=none", "encoder=mobilenetv3_small", "encoder.weights=null", "+trainer.limit_train_batches=2",
)  # fmt: skip
"""Those of a run of which two batches an epoch are enough."""


def only_run(root: Path) -> Path:
    (folder,) = root.glob("**/fold*/*/")
    return folder


def weights(folder: Path, name: str = "last") -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return checkpoint


def assert_same_training(one: Path, two: Path) -> None:
    """Weights, optimizer, scheduler and history are equal bit for bit."""
    a, b = weights(one), weights(two)
    assert a["global_step"] == b["global_step"]
    for key, value in a["state_dict"].items():
        other = b["state_dict"][key]
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else str(value) == str(other), key
    assert a["lr_schedulers"] == b["lr_schedulers"]
    torch.testing.assert_close(a["optimizer_states"], b["optimizer_states"], rtol=0, atol=0)
    history = [pd.read_csv(folder / "history.csv") for folder in (one, two)]
    pd.testing.assert_frame_equal(*history, check_exact=True)


def interrupt_after_epoch(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    save = LastCheckpoint.on_train_epoch_end

    def save_then_die(self: LastCheckpoint, trainer: lightning.Trainer, module: Any) -> None:
        save(self, trainer, module)
        if trainer.current_epoch == epoch:
            raise SystemExit("killed")

    monkeypatch.setattr(LastCheckpoint, "on_train_epoch_end", save_then_die)
