from types import SimpleNamespace
from typing import Any

import pytest

from hsl.callbacks.monitored import MonitoredValue
from hsl.config import ConfigError


def trainer(*names: str) -> Any:
    return SimpleNamespace(callback_metrics=dict.fromkeys(names, 0.0))


@pytest.mark.parametrize("name", ["val/miou", "train/loss"])
def test_known_and_training_values_pass(name: str) -> None:
    MonitoredValue(name).on_sanity_check_end(trainer("val/miou", "val/loss"), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["val/dream", "val/mio", "miou"])
def test_an_unknown_one_is_named_beside_those_that_exist(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MonitoredValue(name).on_sanity_check_end(trainer("val/miou", "val/loss"), None)  # type: ignore[arg-type]
    assert str(caught.value) == f"`monitor` should be one of val/loss, val/miou. Found `monitor = {name}`."
