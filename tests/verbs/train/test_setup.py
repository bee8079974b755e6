"""The trainer that chooses its precision by what is there."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from hsl.config.calls import check_calls
from hsl.errors import ConfigError
from hsl.verbs.scoring.results import Monitored
from hsl.verbs.train import setup
from hsl.verbs.train import train as training


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
