"""`hsl profile`, and the search for a learning rate."""

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from torch import Tensor, nn

from hsl.batch import Outputs
from hsl.cli import conf_dir, run_verb
from hsl.errors import ConfigError, DataError
from hsl.tasks.scoring import NonFiniteLossError
from hsl.tasks.segmentation import SegmentationTask
from hsl.verbs.profile import lr_search
from hsl.verbs.profile.lr_search import _found
from hsl.verbs.profile.memory import Step, bytes_per_picture, measure_step, resident_bytes
from hsl.verbs.profile.profile import check_table_free, keep, memory_tier, read_profiles

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*", "ignore:.*isinstance.*", "ignore:.*val_dataloader.*"
)

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


# `hsl profile lr=true`: the tuner's curve, what is suggested, and what is refused.


TINY = (
    "encoder.weights=null", "decoder=unet", "decoder.channels=[16,16,16,16,16]", "data.reader.num_pictures=24",
    "data.reader.size=64", "data.image_size=64", "data.batch_size=4", "data.num_workers=0",
    "data.audit.missing_classes=warn", "trainer.accelerator=cpu",
)  # fmt: skip


def search(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], folder: Path, root: Path, *words: str
) -> tuple[int, str]:
    overrides = ",".join(f'"{word}"' for word in (*TINY, f"data.root={root}"))
    given = [f"output_root={folder}", "lr=true", "encoder=mobilenetv3_small", f"overrides=[{overrides}]", *words]
    monkeypatch.setattr(sys, "argv", ["hsl", *given])
    monkeypatch.setenv("HSL_ONE_SENTENCE", "")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    code = 0
    try:
        run_verb("profile")
    except SystemExit as ended:
        code = int(ended.code or 0)
    printed = capfd.readouterr()
    return code, printed.out + printed.err


@pytest.mark.slow
def test_a_rate_is_suggested_with_its_curve(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, demo_root: Path, drawn: None
) -> None:
    """The suggestion is where the smoothed loss falls most steeply, by numpy."""
    code, printed = search(monkeypatch, capfd, tmp_path, demo_root, "lr_search.steps=40")
    assert code == 0, printed
    folder = tmp_path / "profiles" / "mobilenetv3_small_lr"
    page = json.loads((folder / "lr.json").read_text())
    rows = list(csv.reader((folder / "lr.csv").read_text().splitlines()))
    assert rows[0] == ["optimizer.lr", "smoothed_loss"]
    rates, losses = np.array(rows[1:], dtype=float).T
    steepest = np.gradient(losses[10:-1], rates[10:-1]).argmin()
    assert page["suggestion"] == pytest.approx(rates[10:-1][steepest])
    assert f"optimizer.lr={page['suggestion']:.2g}" in printed
    assert (np.diff(np.log(rates)) > 0).all()
    assert np.diff(np.log(rates))[1:] == pytest.approx(np.log(1 / 1e-7) / 40, rel=0.01)  # exponential
    with Image.open(folder / "lr.png") as picture:
        assert picture.width > 500
    assert not list((tmp_path / "profiles").glob("*.ckpt"))
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == [
        "lr.csv", "lr.json", "lr.png"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("lr_search.steps=19", "`lr_search.steps` should be a whole number of at least 20"),
        ("lr_search.min=0", "`lr_search.min` and `lr_search.max` should be above 0"),
        ("lr_search.max=1e-9", "the first below the second"),
        ("lr=0.001", "`lr` should be true or false"),
    ],
)
def test_settings_that_are_none(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    demo_root: Path,
    word: str,
    said: str,
) -> None:
    code, printed = search(monkeypatch, capfd, tmp_path, demo_root, word)
    assert (code, said in printed) == (2, True), printed
    assert not (tmp_path / "profiles").exists()


def test_a_loss_that_never_falls_suggests_nothing() -> None:
    rates = np.geomspace(1e-6, 1, 30).tolist()
    tuned = SimpleNamespace(results={"lr": rates, "loss": [1.0 + i for i in range(30)]}, suggestion=lambda **_: 0.1)
    with pytest.raises(ConfigError, match="never does within 30 steps"):
        _found(tuned, 1.0)


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_range(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, demo_root: Path
) -> None:
    """The second search ends before the rate at which it happened."""
    losses = SegmentationTask.losses

    def broken(self: SegmentationTask, batch: Any) -> Any:
        if self.optimizers().param_groups[0]["lr"] > 1e-3:  # type: ignore[union-attr]
            raise NonFiniteLossError("no number")
        return losses(self, batch)

    monkeypatch.setattr(SegmentationTask, "losses", broken)
    code, printed = search(monkeypatch, capfd, tmp_path, demo_root, "lr_search.steps=25", "lr_search.min=1e-6")
    assert code == 0, printed
    assert "the search is made again up to there" in printed
    page = json.loads((tmp_path / "profiles" / "mobilenetv3_small_lr" / "lr.json").read_text())
    assert page["steps"] > 15
    assert page["max"] <= 1.1e-3


def test_the_suggestion_is_a_value_of_the_key() -> None:
    """With a reference batch size the parameters have another rate than ``optimizer.lr`` says."""
    rates = np.geomspace(1e-6, 1, 30).tolist()
    results = {"lr": rates, "loss": [30.0 - i for i in range(30)]}
    tuned = SimpleNamespace(results=results, suggestion=lambda **_: rates[15])
    found = _found(tuned, 0.25)
    assert found.suggestion == pytest.approx(rates[15] / 0.25)
    assert found.rates[0] == pytest.approx(rates[0] / 0.25)


def test_modules_with_rates_of_their_own_are_refused() -> None:
    groups = [{"lr": 0.1}, {"lr": 0.01}]
    task: Any = SimpleNamespace(optimizer=lambda module: SimpleNamespace(param_groups=groups))
    with pytest.raises(ConfigError, match=r"`optimizer.lr_by_module` should be null"):
        lr_search._scale(task, SimpleNamespace(optimizer=SimpleNamespace(lr=0.1)))  # type: ignore[arg-type]
