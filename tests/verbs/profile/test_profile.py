"""`hsl profile`: what is counted, which tier follows, and that its overrides are ones that train.py takes."""

import csv
import json
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from hsl.batch import Outputs
from hsl.cli import conf_dir, run_verb
from hsl.errors import ConfigError, DataError
from hsl.verbs.profile.memory import Step, bytes_per_picture, measure_step, resident_bytes
from hsl.verbs.profile.profile import check_table_free, keep, memory_tier, read_profiles

CLASSES = 5


class OneConvolution(nn.Module):
    """3 x 5 weights and a running count, so that every byte can be counted by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Conv2d(3, CLASSES, 1, bias=False)
        self.register_buffer("count", torch.zeros(2))

    def forward(self, image: Tensor) -> Outputs:
        return {"segmentation": self.classify(image)}


def call(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> int:
    given = [f"output_root={folder}", "data.image_size=64", "batch_sizes=[2,3]"]
    monkeypatch.setattr(sys, "argv", ["hsl", *given, *arguments])
    monkeypatch.setenv("HSL_ONE_SENTENCE", "")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    try:
        run_verb("profile")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.parametrize("number", [1, 4])
def test_every_byte_on_a_cpu(number: int) -> None:
    network, side = OneConvolution(), 8
    optimizer = torch.optim.AdamW(network.parameters())
    step = measure_step(network, optimizer, number, side, "32-true")
    weights, pixels = 3 * CLASSES * 4, number * side * side
    saved = pixels * 3 * 4 + pixels * CLASSES * 4 + pixels * 8 + 4  # pictures, log-probabilities, targets, their number
    resident = weights + 2 * 4 + weights + 2 * weights + 4  # weights, buffer, gradients, two moments, step count
    assert resident_bytes(network, optimizer) == resident
    assert (step.batch_size, step.memory) == (number, saved + resident)


def test_shared_storages_are_counted_once() -> None:
    class Twice(OneConvolution):
        def forward(self, image: Tensor) -> Outputs:
            kept = image * self.classify.weight.sum()  # saves the pictures, as the convolution does
            return {"segmentation": self.classify(image) + kept.sum()}

    one, two = (
        measure_step(network, torch.optim.SGD(network.parameters(), lr=0.1), 2, 8, "32-true").memory
        for network in (OneConvolution(), Twice())
    )
    assert two == one


def test_memory_per_picture_is_the_last_slope() -> None:
    assert bytes_per_picture([Step(2, 90, 0), Step(4, 100, 0), Step(8, 180, 0)]) == 20


@pytest.mark.parametrize(("mib", "tier"), [(0, "light"), (99.9, "light"), (100, "high"), (1e6, "heavy")])
def test_bounds_of_the_tiers(mib: float, tier: str) -> None:
    tiers = {"light": {"below": 100}, "high": {"below": 200}, "heavy": {"below": float("inf")}}
    assert memory_tier(mib * 2**20, tiers) == tier


@pytest.mark.slow
def test_verb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, tmp_path, "encoder=mobilenetv3_small") == 0
    assert call(monkeypatch, tmp_path, "encoder=mobilenetv3_small", "name=again", "precision=bf16-mixed") == 0
    entries = read_profiles(tmp_path / "profiles")
    entry = entries["mobilenetv3_small"]
    assert set(entries) == {"mobilenetv3_small", "again"}
    assert (entry["tier"], entry["image_size"], entry["device"]) == ("light", 64, "cpu")
    first, second = (step["memory"] for step in entry["steps"])
    assert second - first == entry["bytes_per_picture"]
    assert first - 2 * entry["bytes_per_picture"] == pytest.approx(entry["resident_bytes"], rel=0.01)
    assert entry["resident_bytes"] == pytest.approx(16 * entry["parameters"], rel=0.02)
    assert entries["again"]["bytes_per_picture"] < entry["bytes_per_picture"]
    with (tmp_path / "profiles" / "mobilenetv3_small.csv").open() as file:
        assert [int(row["memory"]) for row in csv.DictReader(file)] == [first, second]
    printed = capfd.readouterr().out
    assert "tier light: decoder=deeplabv3plus 'callbacks=[default,oom_backoff]' decoder.channels=256" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["batch_sizes=[4]"], "`batch_sizes` should hold two sizes"),
        (["batch_sizes=[0,4]"], "Found `batch_sizes = [0, 4]`"),
        (["precision=8-bit"], "`precision` should be one of 32-true, bf16-mixed, 16-mixed"),
    ],
)
def test_mistakes(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    assert call(monkeypatch, tmp_path, *arguments) == 2
    assert words in capfd.readouterr().err
    assert not (tmp_path / "profiles").exists()


def test_a_batch_that_would_not_fit_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sizes = "batch_sizes=[2,3,100000]"
    assert call(monkeypatch, tmp_path, "encoder=mobilenetv3_small", sizes) == 0
    assert "100000 pictures are left out" in capfd.readouterr().out
    assert len(read_profiles(tmp_path / "profiles")["mobilenetv3_small"]["steps"]) == 2


def test_a_table_of_the_users_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    entry = {"steps": [{"batch_size": 2, "memory": 5, "seconds": 0.1}]}
    check_table_free(tmp_path, "small")
    keep(tmp_path, "small", entry)
    check_table_free(tmp_path, "small")
    (tmp_path / "small.csv").write_text("mine")
    (tmp_path / "other.csv").write_text("mine")
    for name in ("small", "other"):
        with pytest.raises(ConfigError, match=rf"{name}\.csv` should be the table of `{name}` in profiles.json"):
            check_table_free(tmp_path, name)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "profiles.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(DataError, match=r"profiles.json should be written by `hsl profile`.*Delete it"):
        read_profiles(tmp_path)


@pytest.mark.parametrize("tier", ["light", "medium", "high", "heavy"])
def test_the_overrides_of_a_tier_compose(tier: str) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        measured = compose("profile", return_hydra_config=False, overrides=["name=x"])
        chosen = measured.tiers[tier].overrides
        cfg = compose("train", overrides=["encoder=swin_tiny", *measured.every_tier, *chosen])
    expected = {"light": (256, 48, 32), "medium": (256, 48, 16), "high": (192, 32, 8), "heavy": (128, 32, 4)}[tier]
    backoff = cfg.callbacks.oom_backoff
    assert (cfg.decoder.channels, cfg.decoder.skip_channels, backoff.micro_batch) == expected
    assert backoff.checkpointing is (tier == "heavy")
    assert "early_stopping" in cfg.callbacks


@pytest.mark.gpu
def test_peak_on_a_gpu() -> None:
    network = OneConvolution().cuda()
    optimizer = torch.optim.AdamW(network.parameters())
    small, large = (measure_step(network, optimizer, number, 64, "32-true").memory for number in (8, 64))
    assert large > small > resident_bytes(network, optimizer)
