"""What tests of whole runs look at."""

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from hsl.callbacks.last_checkpoint import LastCheckpoint
from hsl.cli import conf_dir
from hsl.config.targets import named_targets
from hsl.run_folder.member_rows import read_kept, read_map
from hsl.run_folder.pictures import read_images
from hsl.verbs.ensemble.member_rows import RowSettings, keep_rows

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


def assert_maps_agree(run: Path) -> None:
    """The kept probability maps of a run are those of the class maps that it left, at the size of the source."""
    keep_rows([run], "val", RowSettings(allowed=named_targets(conf_dir())))
    classes = read_kept(run).classes
    for name, row in read_images(run)["val", "plain"].items():
        probabilities = read_map(run, "val", name).astype(int)
        predicted = np.asarray(Image.open(run / row.prediction))  # what the run itself said
        assert probabilities.shape == (len(classes), *predicted.shape)
        assert np.abs(probabilities.sum(0) - 255).max() <= len(classes) / 2
        told = np.take_along_axis(probabilities, predicted[None].astype(int), 0)[0]
        assert (told >= probabilities.max(0) - 1).all()


def interrupt_after_epoch(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    save = LastCheckpoint.on_train_epoch_end

    def save_then_die(self: LastCheckpoint, trainer: lightning.Trainer, module: Any) -> None:
        save(self, trainer, module)
        if trainer.current_epoch == epoch:
            raise SystemExit("killed")

    monkeypatch.setattr(LastCheckpoint, "on_train_epoch_end", save_then_die)
