import math
from typing import Any

import numpy as np
import pytest

from hsl.errors import ConfigError
from hsl.pseudo_labels.class_rules import parse_rule
from hsl.pseudo_labels.quality import Judgement, mask_quality, tier_of

TIERS = {"A": 0.8, "B": 0.5}
CLASSES, LABELS = ("background", "leaf", "spot"), ("healthy", "rust")
RULE_CLASSES = ["background", "leaf", "leaf spot", "2nd"]
# shares: background 0.4, leaf 0.3, leaf_spot 0.1, _2nd 0, uncertain 0.2
MASK = np.array([[0, 0, 0, 0, 1, 1, 1, 2, 255, 255]], dtype=np.uint8)


def around(width: int, height: int) -> float:
    """Crofton's perimeter of a rectangle: lines in four directions cross it so many times."""
    return math.pi / 4 * (width + height + 2 * (width + height - 1) / math.sqrt(2))


def canvas() -> np.ndarray:
    return np.zeros((20, 20), dtype=np.uint8)


def test_two_components_and_uncertain_pixels_by_hand() -> None:
    mask = canvas()
    mask[2:8, 2:8] = 1  # 36 pixels
    mask[12:14, 12:18] = 2  # 12 pixels
    mask[19] = 255  # 20 of 400
    quality = mask_quality(mask)
    assert quality.largest_share == 36 / 48
    assert quality.uncertain == 0.05
    assert quality.foreground == 0.12
    compactness = 4 * math.pi * 36 / around(6, 6) ** 2  # of the larger one alone
    assert quality.compactness == pytest.approx(compactness)
    expected = 0.4 * 0.75 + 0.3 * 0.95 + 0.2 * 0.6 + 0.1 * compactness
    assert quality.score == pytest.approx(expected)


def test_neighbours_by_a_corner_and_of_two_classes_are_one_component() -> None:
    mask = canvas()
    mask[0, 0], mask[1, 1], mask[2, 2] = 1, 2, 1
    assert mask_quality(mask).largest_share == 1
    mask[2, 2], mask[3, 3] = 0, 1
    assert mask_quality(mask).largest_share == pytest.approx(2 / 3)


def test_uncertain_pixels_do_not_join_components() -> None:
    mask = canvas()
    mask[5, 2:9] = 1
    mask[5, 5] = 255
    assert mask_quality(mask).largest_share == 0.5


def test_no_foreground_scores_only_its_certainty() -> None:
    mask = canvas()
    mask[:5] = 255
    quality = mask_quality(mask)
    assert (quality.largest_share, quality.foreground, quality.compactness) == (0, 0, 0)
    assert quality.score == pytest.approx(0.3 * 0.75)
    assert mask_quality(np.full((4, 4), 255, dtype=np.uint8)).score == 0


def test_compactness_is_that_of_the_outer_contour_of_the_largest_component() -> None:
    plain = canvas()
    plain[2:12, 2:10] = 1
    whole = 4 * math.pi * 80 / around(8, 10) ** 2
    assert mask_quality(plain).compactness == pytest.approx(whole)
    holed = plain.copy()
    holed[4:7, 4:7], holed[9, 5] = 0, 255  # holes, of the background and uncertain
    assert mask_quality(holed).compactness == pytest.approx(whole)
    assert mask_quality(holed).largest_share == 1
    specked = plain.copy()
    specked[14::2, ::2] = 2  # thirty specks beside it
    assert mask_quality(specked).compactness == pytest.approx(whole)
    assert mask_quality(specked).largest_share == 80 / 110


def test_the_edge_of_the_picture_counts_and_a_single_pixel_is_compact() -> None:
    full = mask_quality(np.ones((10, 10), dtype=np.uint8))
    assert full.score == pytest.approx(0.9 + 0.1 * 4 * math.pi * 100 / around(10, 10) ** 2)
    one = canvas()
    one[4, 4] = 1
    assert mask_quality(one).compactness == 1


def test_a_disc_is_compact_a_line_and_a_comb_are_not() -> None:
    rows, columns = np.mgrid[:101, :101]
    disc = ((rows - 50) ** 2 + (columns - 50) ** 2 <= 40**2).astype(np.uint8)
    assert mask_quality(disc).compactness > 0.98
    strip = np.zeros((101, 101), dtype=np.uint8)
    strip[50:54] = 1
    assert mask_quality(strip).compactness == pytest.approx(4 * math.pi * 404 / around(101, 4) ** 2)
    comb = disc * ((columns % 4 > 0) | (rows == 50))
    assert mask_quality(comb.astype(np.uint8)).compactness < 0.1


def test_coverage_is_capped() -> None:
    a, b = canvas(), canvas()
    a[:4], b[:8] = 1, 1  # 20 % and 40 % of the picture
    without = [mask_quality(mask).score - 0.1 * mask_quality(mask).compactness for mask in (a, b)]
    assert without == pytest.approx([0.9, 0.9])


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="pixel or more"):
        mask_quality(np.zeros((0, 4), dtype=np.uint8))


@pytest.mark.parametrize(
    ("score", "passed", "failed"),
    [(1.0, "A", "B"), (0.8, "A", "B"), (0.79, "B", "C"), (0.5, "B", "C"), (0.49, "C", "C"), (0.0, "C", "C")],
)
def test_tiers(score: float, passed: str, failed: str) -> None:
    assert tier_of(score, True, TIERS) == passed
    assert tier_of(score, False, TIERS) == failed


@pytest.mark.parametrize("thresholds", [{"A": 0.8}, {"A": 0.5, "B": 0.8}, {"A": 0.8, "B": 0.5, "C": 0.1}])
def test_thresholds_out_of_order(thresholds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="least score"):
        tier_of(0.6, True, thresholds)


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


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("leaf > 0.29", True),
        ("leaf > 0.31", False),
        ("leaf < 0.31 and leaf_spot >= 0.1", True),
        ("leaf_spot > 0.1", False),
        ("_2nd == 0", True),
        ("_2nd != 0", False),
        ("foreground > 0.39 and foreground < 0.41", True),
        ("background + foreground < 0.81", True),  # uncertain pixels are in the denominator
        ("leaf_spot / foreground > 0.24", True),
        ("leaf - leaf_spot > 0.21", False),
        ("2 * leaf_spot + _2nd <= 0.2", True),
        ("-leaf < -0.29", True),
        ("0.05 < leaf_spot < 0.2", True),
        ("0.05 < leaf_spot < 0.09", False),
        ("not leaf > 0.5", True),
        ("leaf > 0.5 or (leaf_spot > 0.05 and not _2nd > 0)", True),
        ("(leaf > 0.5 or leaf_spot > 0.05) and _2nd > 0", False),
        ("leaf > 0.2 or leaf > 0.5 and _2nd > 0", True),  # and binds first
        ("leaf / _2nd > 5", True),
        ("_2nd / (_2nd * 1) > 0", False),
        ("_2nd / (_2nd * 1) <= 0", False),
        ("1 / 0 > 5", True),
        ("\n  leaf > 0.1\n", True),
    ],
)
def test_rules(rule: str, holds: bool) -> None:
    assert parse_rule(rule, RULE_CLASSES).holds(MASK) is holds


def test_no_foreground_and_all_uncertain() -> None:
    rule = parse_rule("foreground > 0 or background > 0", RULE_CLASSES)
    assert rule.holds(np.zeros((3, 3), np.uint8))
    assert not rule.holds(np.full((3, 3), 255, np.uint8))


def test_an_unknown_channel_names_rule_name_and_known_names() -> None:
    with pytest.raises(ConfigError) as error:
        parse_rule("leaf > 0.1 and lesion > 0.03", RULE_CLASSES)
    for word in ("leaf > 0.1 and lesion > 0.03", "`lesion`", "background, leaf, leaf_spot, _2nd, foreground"):
        assert word in str(error.value)


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "leaf >",
        "leaf",
        "leaf + 1",
        "True",
        "leaf > True",
        "leaf > 'a'",
        "leaf ** 2 > 1",
        "leaf % 2 > 1",
        "leaf in [1]",
        "leaf is 1",
        "not leaf",
        "leaf and leaf_spot > 0.1",
        "(leaf > 0.1) + 1 > 0",
        "leaf if leaf > 1 else 2",
        "leaf > 1j",
        "__import__('os').getcwd() > 0",
        "leaf.real > 0",
        "(lambda: leaf)() > 0",
        "leaf > 0; leaf < 1",
        "leaf spot > 0.1",
        "leaf > 0.1\x00",
        "(" * 500 + "leaf" + ")" * 500,
    ],
)
def test_what_is_no_rule(rule: str) -> None:
    with pytest.raises(ConfigError, match="A class rule should be a comparison") as error:
        parse_rule(rule, RULE_CLASSES)
    assert rule in str(error.value)


@pytest.mark.parametrize("classes", [["background", "a b", "a_b"], ["background", "foreground"]])
def test_class_names_that_fall_together(classes: list[str]) -> None:
    with pytest.raises(ConfigError, match="Rename a class"):
        parse_rule("background > 0", classes)


def test_words_of_python_as_class_names() -> None:
    assert parse_rule("_and > 0.5", ["background", "and"]).holds(np.ones((2, 2), np.uint8))
