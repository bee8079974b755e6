"""The thirteen classes of `labelling=sugarcane` against the published table, mask by mask."""

from collections.abc import Mapping

import numpy as np
import pytest
from omegaconf import DictConfig
from tests.conftest import composed

from hsl.pseudo_labels.quality import Judgement
from hsl.verbs.label.settings import present_sources

CLASSES = ("background", "healthy", "structural", "surface", "degradation")
PIXELS = 10_000
SHOWS = {
    "Healthy": "healthy", "Red_rot": "degradation", "Brown_spot": "surface", "Mosaic": "surface", "Smut": "structural",
    "Grassy_shoot_disease": "structural", "Wilt": "degradation", "Leaf_scorching": "degradation",
    "Yellow_leaf_Disease": "degradation", "Pokkah_boeng": "structural", "Ring_spot": "surface",
    "Leaf_flecking": "surface", "Black_stripe": "surface",
}  # fmt: skip
"""Image class -> its primary channel in the published map of diseases and channels."""
LEAST: dict[str, dict[str, float]] = {
    "Red_rot": {"degradation": 0.03, "surface": 0.03}, "Brown_spot": {"surface": 0.03}, "Mosaic": {"surface": 0.03},
    "Smut": {"structural": 0.02}, "Grassy_shoot_disease": {"structural": 0.02}, "Wilt": {"degradation": 0.05},
    "Pokkah_boeng": {"structural": 0.02, "degradation": 0.02}, "Leaf_flecking": {"surface": 0.02},
    "Leaf_scorching": {"degradation": 0.03}, "Ring_spot": {"surface": 0.03},
    "Yellow_leaf_Disease": {"degradation": 0.03}, "Black_stripe": {"surface": 0.03},
}  # fmt: skip
"""Disease -> share that one of these channels exceeds; any of them is enough."""


@pytest.fixture(scope="module")
def cfg() -> DictConfig:
    return composed(["labelling=sugarcane", "data.root=x", "output=x", "sources.grabcut=null"], "label")


@pytest.fixture(scope="module")
def judgement(cfg: DictConfig) -> Judgement:
    return Judgement.of(cfg.rules, cfg.tiers, CLASSES, list(SHOWS))


def passes(judgement: Judgement, label: str, shares: Mapping[str, float]) -> bool:
    """Whether a mask with these shares of its pixels, the rest background, keeps the rules."""
    mask = np.zeros(PIXELS, np.uint8)
    start = 0
    for name, share in shares.items():
        mask[start : start + round(share * PIXELS)] = CLASSES.index(name)
        start += round(share * PIXELS)
    return judgement.row("p", label, mask.reshape(100, 100), [], "").rule_passed


def test_every_class_shows_its_published_channel(cfg: DictConfig) -> None:
    assert dict(cfg.channels) == SHOWS
    assert set(cfg.rules) == {"all", *SHOWS}
    assert set(LEAST) == set(SHOWS) - {"Healthy"}


@pytest.mark.parametrize("label", LEAST)
def test_a_disease_passes_just_above_the_published_share_of_one_of_its_channels(
    judgement: Judgement, label: str
) -> None:
    for channel in CLASSES[2:]:
        least = LEAST[label].get(channel)
        if least is None:
            assert not passes(judgement, label, {channel: 0.5, "healthy": 0.3})
            continue
        assert passes(judgement, label, {channel: least + 0.0001, "healthy": 0.3})
        assert not passes(judgement, label, {channel: least, "healthy": 0.3})


def test_a_healthy_plant_covers_much_and_shows_little(judgement: Judgement) -> None:
    assert passes(judgement, "Healthy", {"healthy": 0.4001})
    assert not passes(judgement, "Healthy", {"healthy": 0.4})
    marks = {"surface": 0.02, "structural": 0.02}
    assert passes(judgement, "Healthy", {"healthy": 0.6, **marks, "degradation": 0.0099})
    assert not passes(judgement, "Healthy", {"healthy": 0.6, **marks, "degradation": 0.0101})


@pytest.mark.parametrize(("label", "channel"), list(SHOWS.items()))
def test_every_picture_is_of_a_plant_to_eight_hundredths(judgement: Judgement, label: str, channel: str) -> None:
    least = {"Healthy": 0.4, "Wilt": 0.0999}.get(label, 0.08)  # a wilted plant covers a tenth, inclusive
    assert not passes(judgement, label, {channel: least})
    assert passes(judgement, label, {channel: least + 0.0001})


def test_without_colours_the_classifiers_label_alone(cfg: DictConfig) -> None:
    cfg = cfg.copy()
    cfg.classifiers = ["outputs/a"]
    assert present_sources(cfg) == {"gradcam": 1.0}
