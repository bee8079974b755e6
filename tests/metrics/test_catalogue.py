"""The direction of every score stands in one place, and whoever watches a score takes it from there."""

import subprocess
import sys

import pytest
import torch

from hsl.errors import ConfigError
from hsl.metrics.catalogue import SCORES, better, read_mode
from hsl.metrics.images.image_scores import ImageScores
from hsl.metrics.objects.clustering import clustering_scores
from hsl.metrics.pixels.pixelwise import Pixelwise
from hsl.run_folder.pixel_counts import METRICS


def test_every_score_that_a_validation_logs_has_a_direction() -> None:
    pixels, images = Pixelwise(num_classes=2), ImageScores(num_classes=2, several=False)
    pixels.update(torch.zeros(1, 2, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long))
    images.update(torch.zeros(2, 2), torch.tensor([0, 1]))
    logged = {*pixels.compute(), *images.compute(), "loss", "h_mean"}
    assert {name for name, score in SCORES.items() if score.logged} == logged


def test_what_is_scored_at_the_end_has_one_too() -> None:
    found = clustering_scores(*([torch.zeros(4, 4, dtype=torch.int64).numpy()] * 2)).keys() - {"valid_pixels"}
    assert {*found, *METRICS, "hd95", "assd", "pq", "aji", "object_ap", "object_ap50"} <= SCORES.keys()


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val/miou", "max"), ("val/loss", "min"), ("train/loss/dice", "min"), ("val/ece", "min"),
        ("val/miou/genus", "max"), ("val/error_missed_interior/health", "min"), ("hd95", "min"),
        ("test/dice_empty_one", "max"), ("val/dream", None),
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
