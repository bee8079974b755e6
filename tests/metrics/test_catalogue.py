"""The direction of every score stands in one place, and whoever watches a score takes it from there."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hsl.errors import ConfigError
from hsl.metrics.catalogue import SCORES, better, read_mode, score_names, with_tables
from hsl.metrics.images.image_scores import image_scores
from hsl.metrics.images.imagewise import ImageScores
from hsl.metrics.objects.average_precision import NAMED
from hsl.metrics.objects.clustering import clustering_scores
from hsl.metrics.pixels.pixelwise import Pixelwise


def test_every_score_that_a_validation_logs_has_a_direction() -> None:
    pixels, images = Pixelwise(num_classes=2), ImageScores(num_classes=2, several=False)
    pixels.update(torch.zeros(1, 2, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long))
    images.update(torch.zeros(2, 2), torch.tensor([0, 1]))
    logged = {*pixels.compute(), *images.compute(), "loss", "h_mean"}
    assert {name for name, score in SCORES.items() if score.logged} == logged


def test_the_scores_of_a_room_are_those_that_its_formulas_make() -> None:
    labels = np.array([[0, 1], [1, 1]])
    assert set(score_names("objects", "regions")) == clustering_scores(labels, labels).keys() - {"valid_pixels"}
    assert NAMED.keys() < {*score_names("objects", "matches")}
    found = image_scores(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1]))
    assert set(score_names("images")) == {name for name, value in found.items() if isinstance(value, float)}
    assert set(score_names("images", per_class=True)) == found["per_class"].keys() - {"support"}


def test_what_every_entry_says() -> None:
    for score in SCORES.values():
        assert score.title
        assert score.formula
        assert "|" not in score.formula + score.edge + score.source
        assert not (score.logged and score.per_class == "only"), f"{score.name}: no validation logs scores of a class"
    assert (SCORES["voi"].heading, SCORES["hd95"].heading, SCORES["brier"].heading) == (
        "VOI (bits)", "HD95 (pixels)", "Brier score",
    )  # fmt: skip


def test_the_tables_of_the_page_are_those_of_the_catalogue() -> None:
    page = (Path(__file__).parents[2] / "docs/metrics.md").read_text(encoding="utf8")
    assert with_tables(page) == page, "run `make docs/metrics.md`"
    assert all(f"| `{name}`" in page for name in SCORES)


def test_a_table_that_is_old_is_renewed() -> None:
    page = "Text.\n\n<!-- scores of heads: by a command -->\n| name |\n|---|\n| `gone` |\n\nMore text.\n"
    renewed = with_tables(page)
    assert "gone" not in renewed
    assert "| `h_mean` | H-mean of the mIoU (%) | max |" in renewed
    assert renewed.startswith("Text.")
    assert renewed.endswith("|\n\nMore text.\n")


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val/miou", "max"), ("val/loss", "min"), ("train/loss/dice", "min"), ("val/ece", "min"),
        ("val/miou/genus", "max"), ("val/error_missed_interior/health", "min"), ("hd95", "min"),
        ("test/dice_empty_one", "max"), ("test/iou/crack", "max"), ("val/dream", None),
        ("miou", "max"), ("val", None), ("", None), ("val/", None),
    ],
)  # fmt: skip
def test_the_direction_follows_from_the_name(name: str, mode: str | None) -> None:
    assert better(name) == mode


def test_auto_takes_it_and_a_contradiction_is_an_error() -> None:
    assert read_mode("val/loss", "auto") == "min"
    assert read_mode("val/miou", "max") == "max"
    assert read_mode("val/mine", "min") == "min"
    with pytest.raises(ConfigError, match=r"`monitor_mode` should be min for `val/loss`.*`monitor_mode = max`"):
        read_mode("val/loss", "max")
    with pytest.raises(ConfigError, match=r"`a.mode` should be max for `val/accuracy`"):
        read_mode("val/accuracy", "min", ("a.monitor", "a.mode"))
    with pytest.raises(ConfigError, match="auto, max or min"):
        read_mode("val/miou", "up")


def test_an_unknown_score_without_a_direction_lists_those_that_have_one() -> None:
    with pytest.raises(ConfigError) as caught:
        read_mode("val/mio", "auto")
    said = str(caught.value)
    for word in (
        "val/loss",
        "val/macro_f1",
        "Did you mean `monitor=val/miou`?",
        "`monitor_mode=max` or `monitor_mode=min`",
    ):
        assert word in said
    assert "val/hd95" not in said  # no validation logs it


def test_it_is_read_before_torch() -> None:
    code = "import sys, hsl.metrics.catalogue; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
