from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback, EarlyStopping

from hsl.callbacks.best_checkpoint import BestCheckpoint
from hsl.callbacks.monitored import MonitoredValue, early_stopping
from hsl.errors import ConfigError


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
