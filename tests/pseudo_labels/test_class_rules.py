import numpy as np
import pytest

from hsl.errors import ConfigError
from hsl.pseudo_labels.class_rules import parse_rule

CLASSES = ["background", "leaf", "leaf spot", "2nd"]
# shares: background 0.4, leaf 0.3, leaf_spot 0.1, _2nd 0, uncertain 0.2
MASK = np.array([[0, 0, 0, 0, 1, 1, 1, 2, 255, 255]], dtype=np.uint8)


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
    assert parse_rule(rule, CLASSES).holds(MASK) is holds


def test_no_foreground_and_all_uncertain() -> None:
    rule = parse_rule("foreground > 0 or background > 0", CLASSES)
    assert rule.holds(np.zeros((3, 3), np.uint8))
    assert not rule.holds(np.full((3, 3), 255, np.uint8))


def test_an_unknown_channel_names_rule_name_and_known_names() -> None:
    with pytest.raises(ConfigError) as error:
        parse_rule("leaf > 0.1 and lesion > 0.03", CLASSES)
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
        parse_rule(rule, CLASSES)
    assert rule in str(error.value)


@pytest.mark.parametrize("classes", [["background", "a b", "a_b"], ["background", "foreground"]])
def test_class_names_that_fall_together(classes: list[str]) -> None:
    with pytest.raises(ConfigError, match="Rename a class"):
        parse_rule("background > 0", classes)


def test_words_of_python_as_class_names() -> None:
    assert parse_rule("_and > 0.5", ["background", "and"]).holds(np.ones((2, 2), np.uint8))
