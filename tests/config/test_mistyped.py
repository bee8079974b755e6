"""What a mistyped key, option or value was meant to be, and that what is advised can be typed."""

import re
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from hsl.config.mistyped import near_group, of_key, of_option, of_value

CONFIG = {
    "decoder": {"_target_": "x", "channels": 1},
    "optimizer": {"lr": 1.0, "lr_by_module": None},
    "phases": None,
    "data": {"batch_size": 4, "labels": None},
    "plan": {"A": {"overrides": {"trainer": {"max_epochs": 3}}}, "B": {"overrides": {"trainer.max_epochs": 3}}},
    "run": "x",
}
GROUPS = ("decoder", "data", "data/labels", "data/split", "phases")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("decdoer=fpn", "decoder"),
        ("~decdoer", "decoder"),
        ("decoder.chanels=3", "decoder.channels"),
        ("lr=1", "optimizer.lr"),
        ("batch_size=1", "data.batch_size"),
        ("rnu=x", "run"),
        ("data/splt=kfold", "data/split"),
        ("plan.a.overrides.trainer.max_epochs=4", "plan.A.overrides.trainer.max_epochs"),
        ("plan.A.overrides.trainer.max_epoch=4", "plan.A.overrides.trainer.max_epochs"),
        ("plan.B.overrides.trainer.max_epochs=4", None),  # that is in the file, in a way that cannot be typed
        ("plan.A.overrides.data.batch_size=4", None),
        ("wholly.other=4", None),
    ],
)
def test_keys(word: str, meant: str | None) -> None:
    key = word.lstrip("~").partition("=")[0]
    said = of_key(key, word, CONFIG, GROUPS)
    assert re.findall(r"Did you mean `(.*?)`\?", said) == ([meant] if meant else []), said
    assert f"`{key}` should be" in said
    assert f"Found `{word}`" in said


def test_what_a_part_takes_but_does_not_list_is_added() -> None:
    assert "added by `+decoder.dropout=0`" in of_key("decoder.dropout", "decoder.dropout=0", CONFIG, GROUPS)
    assert "added" not in of_key("decoder.dropout", "~decoder.dropout", CONFIG, GROUPS)
    assert "added" not in of_key("dropout", "dropout=0", CONFIG, GROUPS)


def test_a_group_that_is_off() -> None:
    for key, group in {"phases.A.freeze": "phases", "data.labels.folder": "data/labels"}.items():
        assert f"needs `{group}`, which is off. Found `{key}=x`. Choose" in of_key(key, f"{key}=x", CONFIG, GROUPS)


def test_options_and_groups() -> None:
    assert of_option("decoder", "fpm", ["fpn", "unet"]) == (
        "`decoder` should be one of fpn, unet. Found `decoder=fpm`. Did you mean `fpn`?"
    )
    assert of_option("decoder", "x", ["fpn"]).endswith("Found `decoder=x`.")
    assert (near_group("decdoer", GROUPS), near_group("zzz", GROUPS)) == (" Did you mean `decoder`?", "")


@pytest.mark.parametrize(
    "value", ["a=b", "a(1)", "a{b", "/x/ü", "[a", '"a', "it's", "a&b", 'ü"', "a'b'", "ü\\", 'ü\\"x']
)
def test_a_value_in_the_quotes_that_are_advised(value: str) -> None:
    parser = OverridesParser.create()
    with pytest.raises(HydraException):
        parser.parse_override(f"data.root={value}")
    said = of_value(f"data.root={value}")
    (typed,) = shlex.split(said[said.index(" Write ") + 7 : -1])
    assert parser.parse_override(typed).value() == value


def test_a_word_without_a_value() -> None:
    assert of_value("a b") == (
        "Each word should be `key=value`. Found `a b`. A blank in a value needs quotes of the shell."
    )
