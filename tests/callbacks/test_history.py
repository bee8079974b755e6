"""What a run tells of its epochs, and which of them stays the best one."""

import logging
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, RichProgressBar
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from hsl.callbacks.history import History
from hsl.callbacks.monitored import BestCheckpoint, MonitoredValue, early_stopping
from hsl.callbacks.progress import EpochBar, EpochLines, progress_bar, quieten_lightning, scoring_bar
from hsl.errors import ConfigError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*", "ignore:Checkpoint directory.*"
)


def trainer_at(epoch: int, is_global_zero: bool = True, **values: float) -> Any:
    return SimpleNamespace(
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.5 / (epoch + 1)}, {"lr": 9.0}])],
        current_epoch=epoch,
        global_step=10 * (epoch + 1),
        callback_metrics={name: torch.tensor(value) for name, value in values.items()},
        is_global_zero=is_global_zero,
    )


def test_rows(tmp_path: Path) -> None:
    history = History(str(tmp_path / "history.csv"))
    history.on_train_epoch_end(trainer_at(0, val=0.25, train=2.0), None)  # type: ignore[arg-type]
    history.on_train_epoch_end(trainer_at(1, val=0.5, train=1.0), None)  # type: ignore[arg-type]
    assert (tmp_path / "history.csv").read_text().splitlines() == [
        "epoch,step,lr,train,val",
        "0,10,0.5,2.0,0.25",
        "1,20,0.25,1.0,0.5",
    ]


def test_a_value_that_comes_later_leaves_a_hole(tmp_path: Path) -> None:
    history = History(str(tmp_path / "history.csv"))
    history.on_train_epoch_end(trainer_at(0), None)  # type: ignore[arg-type]
    history.on_train_epoch_end(trainer_at(1, val=0.5), None)  # type: ignore[arg-type]
    assert pd.read_csv(tmp_path / "history.csv")["val"].isna().tolist() == [True, False]


def test_no_epoch_is_twice_or_missing_after_a_resume(tmp_path: Path) -> None:
    first = History(str(tmp_path / "history.csv"))
    for epoch in range(3):
        first.on_train_epoch_end(trainer_at(epoch, val=0.5), None)  # type: ignore[arg-type]
    torch.save(first.state_dict(), tmp_path / "state")
    second = History(str(tmp_path / "history.csv"))
    second.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for epoch in (2, 3):  # epoch 2 is repeated
        second.on_train_epoch_end(trainer_at(epoch, val=0.75), None)  # type: ignore[arg-type]
    table = pd.read_csv(tmp_path / "history.csv")
    assert table["epoch"].tolist() == [0, 1, 2, 3]
    assert table["val"].tolist() == [0.5, 0.5, 0.75, 0.75]


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    history = History(str(tmp_path / "history.csv"))
    history.on_train_epoch_end(trainer_at(0, is_global_zero=False), None)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
    assert [row["epoch"] for row in history.state_dict()["rows"]] == [0]


def test_an_epoch_without_validation_does_not_repeat_the_last_one(tmp_path: Path) -> None:
    history = History(str(tmp_path / "history.csv"))
    for epoch in range(4):
        at = trainer_at(epoch, **{"val/miou": 0.1 * (epoch // 2), "train/loss": 1.0})
        at.sanity_checking = epoch == 0
        if epoch != 2:
            history.on_validation_end(at, None)  # type: ignore[arg-type]
        history.on_train_epoch_end(at, None)  # type: ignore[arg-type]
    table = pd.read_csv(tmp_path / "history.csv")
    assert table["val/miou"].isna().tolist() == [True, False, True, False]
    assert table["train/loss"].tolist() == [1.0] * 4


def trainer(is_global_zero: bool = True, **values: float) -> Any:
    metrics = {name.replace("_", "/"): torch.tensor(value) for name, value in values.items()}
    return SimpleNamespace(is_global_zero=is_global_zero, callback_metrics=metrics, current_epoch=1, max_epochs=5)


def test_one_line_per_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    shown = trainer(val_miou=0.5, lr=0.1, train_loss=1.25)
    lines = EpochLines()
    shown.sanity_checking = False
    lines.on_validation_end(shown, None)  # type: ignore[arg-type]
    lines.on_train_epoch_end(shown, None)  # type: ignore[arg-type]
    assert capsys.readouterr().out == "epoch 2/5  train/loss 1.2500  val/miou 0.5000\n"
    lines.on_train_epoch_end(shown, None)  # type: ignore[arg-type]  # an epoch without validation
    assert capsys.readouterr().out == "epoch 2/5  train/loss 1.2500\n"


def test_only_the_first_process_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    EpochLines().on_train_epoch_end(trainer(is_global_zero=False, train_loss=1.0), None)  # type: ignore[arg-type]
    assert capsys.readouterr().out == ""


def test_the_bar_counts_from_one(tmp_path: Path) -> None:
    bar = EpochBar()
    trainer = lightning.Trainer(
        max_epochs=2, callbacks=[bar], logger=False, enable_checkpointing=False, enable_model_summary=False,
        default_root_dir=tmp_path, accelerator="cpu",
    )  # fmt: skip
    said: list[str] = []

    class Note(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            said.append(bar.progress.tasks[bar.train_progress_bar_id].description)

    trainer.callbacks.append(Note())
    trainer.fit(BoringModel())
    assert [text.strip("[] ") for text in dict.fromkeys(said)] == ["Epoch 1/2", "Epoch 2/2"]


@pytest.mark.parametrize(("terminal", "kind"), [(True, RichProgressBar), (False, EpochLines)])
def test_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch, terminal: bool, kind: type) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert type(progress_bar()) is (EpochBar if terminal else kind)
    assert [type(bar) for bar in scoring_bar()] == ([kind] if terminal else [])


@pytest.fixture
def loud() -> Iterator[list[logging.Logger]]:
    """Lightning's loggers and every warning as they are at first, put back afterwards."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield loggers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def test_lightning_is_quiet_but_warns(loud: list[logging.Logger]) -> None:
    for logger in loud:
        logger.setLevel(logging.INFO)
    quieten_lightning()
    for logger in loud:
        assert not logger.isEnabledFor(logging.INFO)
        assert logger.isEnabledFor(logging.WARNING)
    warnings.warn("Checkpoint directory /runs/a exists and is not empty.", stacklevel=1)
    warnings.warn("isinstance(treespec, LeafSpec) is deprecated", FutureWarning, stacklevel=1)
    with pytest.raises(UserWarning, match="something else"):
        warnings.warn("something else", stacklevel=1)


# The best epoch stays the best one, wherever its folder lies; a monitored value exists.


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
    trainer_with = lightning.Trainer(
        accelerator="cpu", max_epochs=len(scores), callbacks=[best], logger=False, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer_with.fit(Task(scores), data, data, ckpt_path=resume, weights_only=True)
    trainer_with.save_checkpoint(folder / "checkpoints" / "last.ckpt")
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


def trainer_with(*names: str, callbacks: Sequence[Callback] = ()) -> Any:
    return SimpleNamespace(callback_metrics=dict.fromkeys(names, 0.0), callbacks=callbacks)


@pytest.mark.parametrize("name", ["val/miou", "train/loss"])
def test_known_and_training_values_pass(name: str) -> None:
    MonitoredValue(name).on_sanity_check_end(trainer_with("val/miou", "val/loss"), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["val/dream", "val/mio", "miou"])
def test_an_unknown_one_is_named_beside_those_that_exist(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MonitoredValue(name).on_sanity_check_end(trainer_with("val/miou", "val/loss"), None)  # type: ignore[arg-type]
    assert str(caught.value) == f"`monitor` should be one of val/loss, val/miou. Found `monitor = {name}`."


def test_what_another_callback_monitors_has_to_exist_too() -> None:
    known = trainer_with("val/miou", callbacks=[Callback(), EarlyStopping("val/miou"), EarlyStopping("train/loss")])
    MonitoredValue("val/miou").on_sanity_check_end(known, None)  # type: ignore[arg-type]
    unknown = trainer_with("val/miou", callbacks=[EarlyStopping("val/mio")])
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
