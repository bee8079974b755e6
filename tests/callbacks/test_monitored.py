"""The best epoch stays the best one, wherever its folder lies; a monitored value exists."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from hsl.callbacks.monitored import BestCheckpoint, MonitoredValue, early_stopping
from hsl.errors import ConfigError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*", "ignore:Checkpoint directory.*"
)


class Task(lightning.LightningModule):
    """Logs the score that it is told for each epoch."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.scores = scores

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch: list[Tensor]) -> None:
        self.log("val/score", self.scores[self.current_epoch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, scores: list[float], resume: str | None = None, monitor: str = "val/score") -> BestCheckpoint:
    """Trains as many epochs as there are scores; `last.ckpt` is what it ends with."""
    data = DataLoader(TensorDataset(torch.randn(4, 3)), batch_size=2)
    best = BestCheckpoint(str(folder / "checkpoints"), "best", monitor, "max")
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=len(scores), callbacks=[best], logger=False, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Task(scores), data, data, ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    return best


@pytest.mark.parametrize("place", [shutil.move, shutil.copytree])
def test_a_worse_epoch_behind_a_move_does_not_replace_the_best(tmp_path: Path, place: object) -> None:
    old, new = tmp_path / "old", tmp_path / "elsewhere" / "new"
    fit(old, [0.2, 0.9])
    kept = (old / "checkpoints" / "best.ckpt").read_bytes()
    new.parent.mkdir()
    place(str(old), str(new))  # type: ignore[operator]
    best = fit(new, [0.2, 0.9, 0.1], resume=str(new / "checkpoints" / "last.ckpt"))
    assert (new / "checkpoints" / "best.ckpt").read_bytes() == kept
    assert float(best.best_model_score) == pytest.approx(0.9)  # type: ignore[arg-type]
    assert best.best_model_path == str(new / "checkpoints" / "best.ckpt")
    assert not old.exists() or (old / "checkpoints" / "best.ckpt").read_bytes() == kept
    better = fit(new, [0.2, 0.9, 0.1, 0.95], resume=str(new / "checkpoints" / "last.ckpt"))
    assert torch.load(better.best_model_path, weights_only=True)["epoch"] == 3


def test_no_checkpoint_holds_a_path(tmp_path: Path) -> None:
    fit(tmp_path / "run", [0.2, 0.9])
    for name in ("best", "last"):
        content = torch.load(tmp_path / "run" / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert str(tmp_path) not in repr(content)


def test_what_a_killed_run_had_saved_last_counts(tmp_path: Path) -> None:
    fit(tmp_path, [0.5])
    last = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    fit(tmp_path, [0.5, 0.8], resume=str(tmp_path / "checkpoints" / "last.ckpt"))
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(
        last
    )  # killed between the two: the best is of the second epoch
    best = fit(tmp_path, [0.5, 0.7], resume=str(tmp_path / "checkpoints" / "last.ckpt"))
    assert float(best.best_model_score) == pytest.approx(0.8)  # type: ignore[arg-type]


def test_another_folder_begins_without_a_best(tmp_path: Path) -> None:
    fit(tmp_path / "one", [0.9])
    best = fit(tmp_path / "two", [0.9, 0.1], resume=str(tmp_path / "one" / "checkpoints" / "last.ckpt"))
    assert float(best.best_model_score) == pytest.approx(0.1)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_the_best_of_another_value_is_refused(tmp_path: Path) -> None:
    fit(tmp_path, [0.9])
    with pytest.raises(ConfigError, match=r"best\.ckpt` should be the best of `val/other`"):
        fit(tmp_path, [0.9, 0.1], resume=str(tmp_path / "checkpoints" / "last.ckpt"), monitor="val/other")


def trainer(*names: str, callbacks: Sequence[Callback] = ()) -> Any:
    return SimpleNamespace(callback_metrics=dict.fromkeys(names, 0.0), callbacks=callbacks)


@pytest.mark.parametrize("name", ["val/miou", "train/loss"])
def test_known_and_training_values_pass(name: str) -> None:
    MonitoredValue(name).on_sanity_check_end(trainer("val/miou", "val/loss"), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["val/dream", "val/mio", "miou"])
def test_an_unknown_one_is_named_beside_those_that_exist(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MonitoredValue(name).on_sanity_check_end(trainer("val/miou", "val/loss"), None)  # type: ignore[arg-type]
    assert str(caught.value) == f"`monitor` should be one of val/loss, val/miou. Found `monitor = {name}`."


def test_what_another_callback_monitors_has_to_exist_too() -> None:
    known = trainer("val/miou", callbacks=[Callback(), EarlyStopping("val/miou"), EarlyStopping("train/loss")])
    MonitoredValue("val/miou").on_sanity_check_end(known, None)  # type: ignore[arg-type]
    unknown = trainer("val/miou", callbacks=[EarlyStopping("val/mio")])
    with pytest.raises(ConfigError, match="`monitor of EarlyStopping = val/mio`"):
        MonitoredValue("val/miou").on_sanity_check_end(unknown, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "mode"), [("val/miou", "max"), ("val/loss/dice", "min"), ("val/ece", "min")])
def test_the_direction_is_that_of_the_score(name: str, mode: str) -> None:
    assert BestCheckpoint("folder", "best", name).mode == mode
    assert early_stopping(name).mode == mode
    assert BestCheckpoint("folder", "best", "val/mine", "min").mode == "min"


def test_the_worst_epoch_is_not_kept() -> None:
    """``monitor=val/loss`` once kept the largest loss."""
    with pytest.raises(ConfigError, match=r"`callbacks.best_checkpoint.mode` should be min for `val/loss`"):
        BestCheckpoint("folder", "best", "val/loss", "max")
    with pytest.raises(ConfigError, match=r"`callbacks.early_stopping.mode` should be min for `val/loss`"):
        early_stopping("val/loss", "max")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"patience": -3}, "`callbacks.early_stopping.patience = -3`. To train all epochs, set"),
        ({"min_delta": -0.1}, "`callbacks.early_stopping.min_delta = -0.1`"),
        ({"min_delta": float("nan")}, "`callbacks.early_stopping.min_delta = nan`"),
    ],
)
def test_a_patience_that_never_ends_is_an_error(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        early_stopping("val/miou", **arguments)
    assert said in str(caught.value)
    assert early_stopping("val/miou", patience=0).patience == 0
