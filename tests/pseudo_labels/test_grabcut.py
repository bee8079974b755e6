import pickle

import cv2
import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from hsl.errors import ConfigError
from hsl.pseudo_labels.grabcut import ColourSeeds, UnseededError, grabcut_votes

CLASSES = ["background", "leaf", "symptom"]
GREY, GREEN, OLIVE, BROWN = (200, 200, 200), (40, 140, 30), (100, 110, 90), (120, 70, 20)
COLOURS = {
    "background": [{"saturation": [0, 10], "value": [50, 100]}],
    "leaf": [{"hue": [60, 170], "saturation": [50, 100]}],
    "symptom": [{"hue": [10, 50], "saturation": [40, 100]}],
}


def leaf(scale: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A green leaf with a brown spot and a dull part, which no colour of the seeds describes, on a grey table."""
    truth = np.zeros((60, 96), dtype=np.uint8)
    truth[10:50, 16:80] = 1
    truth[20:32, 30:44] = 2
    colours = np.array([GREY, GREEN, BROWN], dtype=np.int16)[truth]
    colours[12:24, 56:72] = OLIVE
    truth, colours = truth.repeat(scale, 0).repeat(scale, 1), colours.repeat(scale, 0).repeat(scale, 1)
    noise = np.random.default_rng(0).integers(-6, 7, colours.shape)
    return (colours + noise).clip(0, 255).astype(np.uint8), truth


def iou(votes: np.ndarray, truth: np.ndarray, index: int) -> float:
    found, true = votes.argmax(axis=0) == index, truth == index
    return float((found & true).sum() / (found | true).sum())


@pytest.mark.parametrize("scale", [1, 4])
def test_votes_find_leaf_and_spot(scale: int) -> None:
    image, truth = leaf(scale)
    votes = grabcut_votes(image, ColourSeeds(COLOURS), CLASSES)
    assert votes.shape == (3, *truth.shape)
    assert votes.dtype == np.float32
    assert (np.sort(votes, axis=0) == np.array([0, 0, 1])[:, None, None]).all()
    assert [iou(votes, truth, index) > 0.95 for index in range(3)] == [True] * 3


def test_what_no_seed_describes_is_the_main_class_inside_the_leaf() -> None:
    image, _ = leaf()
    votes = grabcut_votes(image, ColourSeeds(COLOURS), CLASSES)
    assert votes[1, 14:22, 58:70].mean() > 0.95


def test_the_symptom_colour_outside_the_foreground_is_background() -> None:
    image, _ = leaf()
    image[1:3, 1:3] = BROWN  # narrower than `clean`
    votes = grabcut_votes(image, ColourSeeds(COLOURS), CLASSES)
    assert votes[0, :5, :5].all()


def test_the_same_twice_whatever_opencv_did_before() -> None:
    image, _ = leaf(2)
    first = grabcut_votes(image, ColourSeeds(COLOURS), CLASSES)
    cv2.setRNGSeed(99)
    assert (grabcut_votes(image, ColourSeeds(COLOURS), CLASSES) == first).all()


def test_the_picture_stays_as_it_is_and_odd_sizes_are_kept() -> None:
    image, _ = leaf(3)
    image = image[:-1, :-7]
    before = image.copy()
    votes = grabcut_votes(image, ColourSeeds(COLOURS, longest_side=100), CLASSES)
    assert votes.shape == (3, 179, 281)
    assert (image == before).all()


def test_a_hue_range_goes_through_red() -> None:
    image, truth = leaf()
    image[truth == 2] = (200, 20, 60)  # hue 347
    image[20:26, 30:44] = (200, 60, 20)  # hue 13
    colours = COLOURS | {"symptom": [{"hue": [340, 20], "saturation": [40, 100]}]}
    assert iou(grabcut_votes(image, ColourSeeds(colours), CLASSES), truth, 2) > 0.95


def test_seeds_from_yaml() -> None:
    seeds = instantiate(OmegaConf.create({"_target_": "hsl.pseudo_labels.grabcut.ColourSeeds", "colours": COLOURS}))
    image, _ = leaf()
    expected = grabcut_votes(image, ColourSeeds(COLOURS), CLASSES)
    np.testing.assert_array_equal(grabcut_votes(image, pickle.loads(pickle.dumps(seeds)), CLASSES), expected)
    with pytest.raises(UnseededError, match="'hue': "):
        grabcut_votes(np.full_like(image, 200), seeds, CLASSES)


def test_two_classes_and_a_class_without_colours() -> None:
    image, truth = leaf()
    two = {name: COLOURS[name] for name in CLASSES[:2]}
    assert iou(grabcut_votes(image, ColourSeeds(two), CLASSES[:2]), truth > 0, 1) > 0.95
    votes = grabcut_votes(image, ColourSeeds(two), CLASSES)
    assert not votes[2].any()


def test_a_later_class_wins_where_colours_overlap() -> None:
    image, _ = leaf()
    both = COLOURS | {"symptom": COLOURS["leaf"]}
    votes = grabcut_votes(image, ColourSeeds(both), CLASSES)
    assert votes[2, 35:48, 18:54].all()


@pytest.mark.parametrize(
    ("colour", "found", "other"), [(GREY, ["leaf", "symptom"], "background:"), (GREEN, ["background"], "leaf:")]
)
def test_a_picture_without_seeds(colour: tuple[int, int, int], found: list[str], other: str) -> None:
    image = np.full((40, 40, 3), colour, dtype=np.uint8)
    with pytest.raises(UnseededError, match="Widen `colours`") as error:
        grabcut_votes(image, ColourSeeds(COLOURS), CLASSES)
    assert all(f"{name}: [" in str(error.value) for name in found)
    assert other not in str(error.value)


def test_seeds_of_one_pixel_do() -> None:
    image = np.full((30, 30, 3), GREEN, dtype=np.uint8)
    image[0, 0] = GREY
    assert grabcut_votes(image, ColourSeeds(COLOURS, clean=1), CLASSES)[1].sum() == 899


def test_a_colour_of_both_is_no_seed() -> None:
    colours = {"background": [{"value": [0, 100]}], "leaf": COLOURS["leaf"]}
    with pytest.raises(UnseededError, match="leaf:"):
        grabcut_votes(leaf()[0], ColourSeeds(colours), CLASSES)


@pytest.mark.parametrize(
    ("colour", "message"),
    [
        ({"hues": [0, 10]}, "`hues`"),
        ({"hue": [0, 361]}, r"\[0, 360\]"),
        ({"saturation": [40, 30]}, r"saturation = \[40, 30\]"),
        ({"value": [0, 255]}, r"\[0, 100\]"),
        ({"value": [5]}, r"value = \[5\]"),
    ],
)
def test_colours_that_are_none(colour: dict[str, list[float]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ColourSeeds({"leaf": [colour]})


@pytest.mark.parametrize("option", ["longest_side", "iterations", "clean"])
def test_numbers_out_of_range(option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        ColourSeeds(COLOURS, **{option: 0})


def test_colours_of_other_classes() -> None:
    image, _ = leaf()
    with pytest.raises(ConfigError, match=r"Found \['symptom'\]"):
        grabcut_votes(image, ColourSeeds(COLOURS), CLASSES[:2])
    with pytest.raises(ConfigError, match="background `background`"):
        grabcut_votes(image, ColourSeeds({"leaf": COLOURS["leaf"]}), CLASSES)
    with pytest.raises(ConfigError, match=r"Found colours for \['background'\]"):
        grabcut_votes(image, ColourSeeds({"background": COLOURS["background"]}), CLASSES)
