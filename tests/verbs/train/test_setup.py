"""What a run is set up with: the trainer's precision, further processes, what the parts of a split hold."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf

from hsl.config.calls import check_calls
from hsl.errors import ConfigError
from hsl.reports.statistics.part_tests import EVERY
from hsl.verbs.audit import part_tests
from hsl.verbs.scoring.results import Monitored
from hsl.verbs.train import setup
from hsl.verbs.train import train as training
from hsl.verbs.train.setup import LAUNCH_VARIABLES, check_launch, is_further_process, own_command


@pytest.mark.parametrize(
    ("accelerator", "gpu", "bf16", "expected"),
    [
        ("auto", False, False, "32-true"),
        ("auto", True, True, "bf16-mixed"),
        ("gpu", True, False, "16-mixed"),
        ("cuda", True, True, "bf16-mixed"),
        ("cpu", True, True, "32-true"),
    ],
)
def test_automatic_precision(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, gpu: bool, bf16: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    given: dict[str, object] = {}
    monkeypatch.setattr(setup.lightning, "Trainer", lambda **settings: given.update(settings))
    setup.make_trainer(precision="auto", accelerator=accelerator, max_epochs=3)
    assert given == {"precision": expected, "accelerator": accelerator, "max_epochs": 3}
    setup.make_trainer(precision="bf16-mixed", accelerator=accelerator)
    assert given["precision"] == "bf16-mixed"


def test_a_trainer_of_this_machine() -> None:
    trainer = setup.make_trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert trainer.precision == "32-true"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"max_epoch": 3}, "Did you mean `trainer.max_epochs`"),
        ({"max_epochs": "many"}, "`trainer.max_epochs` should be"),
        ({"precision": "half"}, "`trainer.precision` should be auto"),
    ],
)
def test_its_keys_are_checked_before_anything_is_built(setting: dict[str, object], words: str) -> None:
    node = {"_target_": "hsl.verbs.train.setup.make_trainer", "_partial_": True, "precision": "auto"}
    check_calls({"trainer": node})
    with pytest.raises(ConfigError, match=words):
        check_calls({"trainer": {**node, **setting}})


def test_a_run_of_phases_builds_no_trainer_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = Monitored("val/miou", "max", 0.5, 2, "phases/A/best.ckpt")
    monkeypatch.setattr(training, "PhasedRun", lambda *_: SimpleNamespace(fit=lambda: best))
    monkeypatch.setattr(training, "instantiate", lambda _: pytest.fail("built"))
    monkeypatch.setattr(training, "write_split_and_audit", lambda *_: None)
    scored: list[object] = []
    monkeypatch.setattr(training, "score_checkpoint", lambda *given: scored.append(given[-1]))
    cfg, data = OmegaConf.create({"callbacks": {}, "phases": {"A": {}}}), SimpleNamespace(prepared=None)
    folder = SimpleNamespace(path=tmp_path)
    assert training._fit(folder, cfg, data, None, None) == 0.5  # type: ignore[arg-type]
    assert scored == [best]


# The command that further processes repeat, and who is a further process.


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


# What the parts of a split hold, against a loop over the pictures of the demo.


def loop_over(data, original, part, index):
    """Groups of a part, how many of them show a class, and pixels of it."""
    shown, pixels = {}, 0
    for record in data.catalogue.records:
        if record.id in data.parts[part]:
            mask = original(record.id)[1]
            group = record.attributes["group"]
            shown[group] = shown.get(group, False) or bool((mask == index).any())
            pixels += int((mask == index).sum())
    return len(shown), sum(shown.values()), pixels


def test_counts_of_masks_are_those_of_a_loop_over_groups(tiny):
    loaded = instantiate(tiny("data.split.groups=group").data)
    data, original = loaded.prepared, loaded.original
    found = part_tests(data)
    assert (found.unit, found.fold, found.data) == ("groups", 0, data.catalogue.name)
    for i, name in enumerate(data.classes["segmentation"]):
        test = next(one for one in found.tests if one.of == "shown" and one.subject == name)
        for part in ("train", "val", "test"):
            num, shown, _ = loop_over(data, original, part, i)
            assert test.groups[part] == num
            assert test.shares[part] == pytest.approx(shown / num)
    pixels = [test for test in found.tests if test.of == "pixels"]
    assert [test.subject for test in pixels] == [EVERY] * 3
    counts = {part: np.array([loop_over(data, original, part, i)[2] for i in range(len(data.classes["segmentation"]))])
              for part in ("train", "val")}  # fmt: skip
    p, q = (values / values.sum() for values in counts.values())
    middle = (p + q) / 2
    terms = [(side[side > 0] * np.log2(side[side > 0] / middle[side > 0])).sum() for side in (p, q)]
    assert pixels[0].divergence == pytest.approx(sum(terms) / 2)


def test_without_groups_the_unit_is_the_picture_and_image_labels_are_compared_too(tiny):
    cfg = tiny("data.split.groups=null", "data.image_labels=[crack,stain]", "data.audit.near_duplicates=off")
    data = instantiate(cfg.data).prepared
    found = part_tests(data)
    assert found.unit == "pictures"
    tests = [test for test in found.tests if test.head == "classification"]
    assert {test.subject for test in tests} == {"crack", "stain"}
    assert {part: len(ids) for part, ids in data.parts.items()} == tests[0].groups


def test_one_image_class_per_picture_is_also_compared_over_all_classes(tiny):
    data = instantiate(tiny("data.image_labels=material").data).prepared
    tests = [test for test in part_tests(data).tests if test.head == "classification"]
    assert tests[0].of == "classes"
    assert tests[0].groups == {
        part: len({data.catalogue.records[i].attributes["group"] for i in range(len(data.catalogue.records))
                   if data.catalogue.records[i].id in ids})
        for part, ids in data.parts.items()
    }  # fmt: skip
