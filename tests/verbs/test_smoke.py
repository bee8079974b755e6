"""`hsl smoke`: every encoder is tried, and what is wrong with one is said."""

import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

from hsl.cli import conf_dir, run_verb
from hsl.models.network import SegmentationNetwork
from hsl.verbs.smoke import check_step


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["hsl", "data.image_size=64", *arguments])
    monkeypatch.setenv("HSL_ONE_SENTENCE", "")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    try:
        run_verb("smoke")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture
def network() -> SegmentationNetwork:
    torch.manual_seed(0)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("smoke", overrides=["encoder=mobilenetv3_small", "data.image_size=64"])
    built: SegmentationNetwork = instantiate(cfg.network)
    return built


def test_two_encoders(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "encoders=[mobilenetv3_small,ghostnetv2]") == 0
    printed = capfd.readouterr().out
    for row in ("mobilenetv3_small │ 0.9 M", "ghostnetv2        │ 1.2 M"):
        assert row in printed
    assert printed.count("│ ok") == 2


def test_it_goes_on_after_a_failure(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "encoders=[no_such_encoder,mobilenetv3_small]") == 2
    shown = capfd.readouterr()
    assert "no_such_encoder: MissingConfigException" in shown.out
    assert "mobilenetv3_small: ok" in shown.out
    assert "Found 1 that did not: no_such_encoder." in shown.err


def test_a_good_network(network: SegmentationNetwork) -> None:
    assert check_step(network, 2, 64) == []


def test_a_parameter_that_nothing_uses(network: SegmentationNetwork) -> None:
    network.encoder.body.unused = nn.Parameter(torch.ones(1))
    network.encoder.body.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
    assert check_step(network, 2, 64) == ["no gradient reaches encoder.body.unused"]


def test_a_wrong_shape_and_a_loss_that_is_no_number(network: SegmentationNetwork) -> None:
    network.encoder.out_channels[3] += 1
    with torch.no_grad():
        network.heads["classification"].classify.bias.fill_(torch.nan)
    wrong = check_step(network, 2, 64)
    assert wrong == ["features at stride 8 (2, 24, 8, 8) instead of (2, 25, 8, 8)", "loss nan"]


def test_the_fifteen_are_encoder_files() -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        smoke, plan = (compose(verb) for verb in ("smoke", "sweep_plan"))
    assert len(set(smoke.encoders)) == 15
    assert set(plan.encoders) == set(smoke.encoders) <= {path.stem for path in Path(conf_dir()).glob("encoder/*.yaml")}
