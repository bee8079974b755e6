import math

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.trial import FixedTrial

from hsl.errors import ConfigError
from hsl.verbs.study.spaces import as_json, fits, from_json, read_space, suggest, whole_of, words_of


@pytest.mark.parametrize(("given", "said"), [
    ({}, "should have a key at least"),
    (3, "`study.space` should hold keys, each one of"),
    (None, "`study.space` should hold keys, each one of"),
    ({"a": 3}, "`study.space.a` should be one of"),
    ({"a": {"low": 1, "hihg": 2}}, "the words ['hihg']"),
    ({"a": {"low": 1}}, "both `low` and `high`"),
    ({"a": {"low": 1, "high": 2, "choices": [1]}}, "or `choices`"),
    ({"a": {"low": 2, "high": 1}}, "`low` below `high`. Found 2 and 1"),
    ({"a": {"low": 1, "high": 1}}, "`low` below `high`"),
    ({"a": {"low": 0, "high": 1, "log": True}}, "above 0 for `log: true`. Found 0"),
    ({"a": {"low": -1.0, "high": 1.0, "log": True}}, "above 0 for `log: true`. Found -1.0"),
    ({"a": {"low": "1e-4", "high": 1.0}}, "write 1.0e-4"),
    ({"a": {"low": math.nan, "high": 1.0}}, "should have numbers"),
    ({"a": {"low": 0.0, "high": 1.0, "step": 2.0}}, "at most high - low"),
    ({"a": {"low": 1, "high": 9, "step": 0.5}}, "a whole number"),
    ({"a": {"low": 1.0, "high": 9.0, "step": 0.5, "log": True}}, "not both"),
    ({"a": {"choices": []}}, "one at least"),
    ({"a": {"choices": [1, 1]}}, "none twice"),
    ({"a": {"choices": [[1]]}}, "plain values"),
    ({"a": {"choices": [1, 2], "log": True}}, "only in a range"),
    ({"a": {"choices": [1], "when": {"b": 1}}}, "stand before it. Found `b`"),
    ({"b": {"choices": ["x"]}, "a": {"choices": [1], "when": {"b": "y"}}}, "values that it can have. Found `y`"),
])  # fmt: skip
def test_bad_spaces(given, said):
    with pytest.raises(ConfigError) as error:
        read_space(given)
    assert said in str(error.value)


def test_all_findings_come_at_once():
    with pytest.raises(ConfigError, match=r"space\.a.*space\.b"):
        read_space({"a": {"low": 2, "high": 1}, "b": {"choices": []}})


def test_conditions():
    space = read_space({
        "optimizer": {"choices": ["adamw", "sgd"]},
        "optimizer.momentum": {"low": 0.0, "high": 1.0, "when": {"optimizer": "sgd"}},
    })  # fmt: skip
    assert suggest(FixedTrial({"optimizer": "adamw"}), space) == {"optimizer": "adamw"}
    point = suggest(FixedTrial({"optimizer": "sgd", "optimizer.momentum": 0.5}), space)
    assert words_of(point) == ["optimizer=sgd", "optimizer.momentum=0.5"]
    assert from_json(as_json(space)) == space


@pytest.mark.parametrize("value", ["a b", "it's", "1", "true", "null", "x=1", "a,b", "[1]", "", None, True, 3, 1e-05])
def test_words_say_what_was_drawn(value):
    (word,) = words_of({"key": value})
    parsed = OverridesParser.create().parse_override(word)
    assert not parsed.is_sweep_override()
    assert parsed.value() == value
    assert type(parsed.value()) is type(value) or str(parsed.value()) == value


def test_a_space_may_get_narrower_only():
    first = read_space({"lr": {"low": 1e-4, "high": 1e-1, "log": True}, "loss": {"choices": ["dice", "ce"]}})
    narrow = read_space({"lr": {"low": 1e-3, "high": 1e-2, "log": True}, "loss": {"choices": ["ce"]}})
    whole = whole_of(narrow, first)
    assert (whole["lr"].low, whole["loss"].choices) == (1e-3, ("dice", "ce"))
    assert fits({"lr": 0.002, "loss": "ce"}, narrow)
    assert not fits({"lr": 0.002, "loss": "dice"}, narrow)
    linear = read_space({"lr": {"low": 1e-4, "high": 1e-1}})
    for other in (
        {"lr": first["lr"]},
        first | linear,
        {**first, "x": first["lr"]},
    ):
        with pytest.raises(ConfigError, match="or a narrower one"):
            whole_of(other, first)
    with pytest.raises(ConfigError, match="for lr"):
        whole_of(first, narrow | {"loss": first["loss"]})
