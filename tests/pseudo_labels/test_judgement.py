"""Rules and thresholds make a row."""

from typing import Any

import numpy as np
import pytest

from hsl.errors import ConfigError
from hsl.pseudo_labels.judgement import Judgement
from hsl.pseudo_labels.quality import mask_quality

CLASSES, LABELS = ("background", "leaf", "spot"), ("healthy", "rust")
TIERS = {"A": 0.8, "B": 0.5}


def judgement(**rules: str) -> Judgement:
    return Judgement.of(rules, TIERS, CLASSES, LABELS)


def square() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A quarter leaf, one pixel of spot in 400, 100 uncertain pixels."""
    mask = np.zeros((20, 20), np.uint8)
    mask[2:12, 2:12] = 1
    mask[5, 5] = 2
    mask[15:] = 255
    return mask


def test_a_row_holds_the_numbers_of_the_mask() -> None:
    row = judgement().row("p", "rust", square(), ["grabcut", "gradcam"], "p.jpg")
    assert (row.id, row.label, row.sources, row.image, row.rule_passed) == (
        "p",
        "rust",
        "grabcut gradcam",
        "p.jpg",
        True,
    )
    assert (row.uncertain, row.foreground) == (0.25, 0.25)
    # one component, a quarter uncertain, more than a fifth covered; the last tenth is its shape
    assert row.quality == pytest.approx(0.4 + 0.3 * 0.75 + 0.2 + 0.1 * mask_quality(square()).compactness)
    assert row.tier == "A"


@pytest.mark.parametrize(
    ("rules", "label", "tier"),
    [
        ({"rust": "spot > 0.002"}, "rust", "A"),
        ({"rust": "spot > 0.003"}, "rust", "B"),
        ({"rust": "spot > 0.003"}, "healthy", "A"),  # the rule of another class
        ({"all": "foreground > 0.3"}, "healthy", "B"),
        ({"all": "foreground > 0.3", "rust": "spot > 0.003"}, "rust", "B"),  # one tier, however many fail
    ],
)
def test_rules_of_the_class_and_of_all(rules: dict[str, str], label: str, tier: str) -> None:
    row = judgement(**rules).row("p", label, square(), ["grabcut"], "p.jpg")
    assert row.tier == tier
    assert row.rule_passed == (tier == "A")


@pytest.mark.parametrize(
    ("rules", "tiers", "words"),
    [
        ({"mildew": "spot > 0"}, TIERS, r"image classes.*Found \['mildew'\]"),
        ({"rust": "petal > 0"}, TIERS, "petal"),
        ({"rust": "spot >"}, TIERS, "spot >"),
        ({}, {"A": 0.5, "B": 0.8}, "0 <= B <= A <= 1"),
        ({}, {"A": 0.5}, "0 <= B <= A <= 1"),
    ],
)
def test_mistakes(rules: dict[str, str], tiers: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Judgement.of(rules, tiers, CLASSES, LABELS)
