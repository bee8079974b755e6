import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.demos.boring_classes import BoringModel

from hsl.callbacks.progress import EpochBar, EpochLines, progress_bar, quieten_lightning, scoring_bar


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
