"""One row per epoch, also after a resume."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch

from hsl.callbacks.history import History


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
