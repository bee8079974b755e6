"""What a run tells of its epochs: the table of its learning curves, and the terminal."""

import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.demos.boring_classes import BoringModel

from hsl.callbacks.history import History
from hsl.callbacks.progress import EpochBar, EpochLines, progress_bar, quieten_lightning, scoring_bar


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
