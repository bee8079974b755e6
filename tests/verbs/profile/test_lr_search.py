"""`hsl profile lr=true`: the tuner's curve, what is suggested, and what is refused."""

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hsl.cli import run_verb
from hsl.errors import ConfigError
from hsl.tasks.scoring import NonFiniteLossError
from hsl.tasks.segmentation import SegmentationTask
from hsl.verbs.profile import lr_search
from hsl.verbs.profile.lr_search import _found

TINY = (
    "encoder.weights=null", "decoder=unet", "decoder.channels=[16,16,16,16,16]", "data.reader.num_pictures=24",
    "data.reader.size=64", "data.image_size=64", "data.batch_size=4", "data.num_workers=0",
    "data.audit.missing_classes=warn", "trainer.accelerator=cpu",
)  # fmt: skip

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*", "ignore:.*isinstance.*", "ignore:.*val_dataloader.*"
)


def call(
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
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, demo_root: Path
) -> None:
    """The suggestion is where the smoothed loss falls most steeply, by numpy."""
    code, printed = call(monkeypatch, capfd, tmp_path, demo_root, "lr_search.steps=40")
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
    code, printed = call(monkeypatch, capfd, tmp_path, demo_root, word)
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
    code, printed = call(monkeypatch, capfd, tmp_path, demo_root, "lr_search.steps=25", "lr_search.min=1e-6")
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
