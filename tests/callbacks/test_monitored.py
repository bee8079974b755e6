from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback, EarlyStopping

from hsl.callbacks.monitored import MonitoredValue
from hsl.config import ConfigError


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
