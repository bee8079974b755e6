"""The command that further processes repeat, and who is a further process."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import lightning
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from hsl.errors import ConfigError
from hsl.verbs.train.setup import LAUNCH_VARIABLES, check_launch, is_further_process, own_command


@pytest.fixture
def sweep_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second run of `-m fold=0,1` is under way."""
    config = {"job": {"config_name": "train"}, "overrides": {"task": ["trainer=ddp", "fold=1"]}}
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(config))


@pytest.mark.parametrize(
    ("program", "spec", "expected"),
    [
        ("train.py", None, ["train.py"]),
        ("/opt/bin/hsl", None, ["/opt/bin/hsl", "train"]),
        ("/opt/submitit/core/_submit.py", SimpleNamespace(name="submitit.core._submit"), ["hsl", "train"]),
    ],
)
def test_the_command_is_this_run_of_the_sweep(
    monkeypatch: pytest.MonkeyPatch, sweep_of_two: None, program: str, spec: object, expected: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [program, "-m", "trainer=ddp", "fold=0,1"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    with own_command():
        assert sys.argv == [*expected, "trainer=ddp", "fold=1"]
    assert sys.argv == [program, "-m", "trainer=ddp", "fold=0,1"]


def test_what_lightning_leaves_in_the_environment_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCH_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_ADDR", "node7")  # given from outside: stays

    def failing_run() -> None:
        with own_command():
            os.environ |= {"LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1234"}
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing_run()
    assert {name: os.environ[name] for name in LAUNCH_VARIABLES if name in os.environ} == {"MASTER_ADDR": "node7"}


@pytest.mark.parametrize(
    ("trainer", "variables", "further"),
    [
        ({"devices": 2}, {}, False),
        ({"devices": 2}, {"RANK": "0", "LOCAL_RANK": "0"}, False),
        ({"devices": 2}, {"RANK": "1", "LOCAL_RANK": "1"}, True),
        ({"devices": 1, "num_nodes": 2}, {"SLURM_PROCID": "1"}, True),
        ({"devices": 1}, {"SLURM_PROCID": "1"}, False),  # srun of several runs of one process each
    ],
)
def test_a_further_process_is_one_of_several_of_the_same_run(
    monkeypatch: pytest.MonkeyPatch, trainer: dict[str, int], variables: dict[str, str], further: bool
) -> None:
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_further_process(OmegaConf.create(trainer)) is further


@pytest.mark.parametrize("devices", [1, 2])
def test_several_devices_need_a_command_that_can_be_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, devices: int
) -> None:
    trainer = lightning.Trainer(
        accelerator="cpu", devices=devices, strategy="ddp", logger=False, default_root_dir=tmp_path
    )
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    check_launch(trainer)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name="submitit.core._submit"))
    if devices == 1:
        check_launch(trainer)
        return
    with pytest.raises(ConfigError, match=r"Found `trainer\.devices = 2`"):
        check_launch(trainer)
