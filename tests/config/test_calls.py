"""A config is held against the signatures of what it names before anything is built, and without torch."""

import subprocess
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from hsl.cli import conf_dir
from hsl.config.calls import calls_in, check_calls, check_values, pkgutil
from hsl.config.ranges import KEYS, FractionBelowOne, Limit, PositiveInt, Seed
from hsl.config.signatures import _annotations, check_values_of_ours
from hsl.config.targets import named_targets
from hsl.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """One with the kinds of arguments that options have."""

    width: int
    rate: float = 0.1
    sides: tuple[int, int] | None = None
    mode: Literal["fast", "exact"] = "fast"
    weights: Mapping[str, float] | Sequence[float] | None = None
    inner: "Part | None" = None
    make: Callable[[int], Any] | None = None
    limit: Limit | None = 1.0
    depth: PositiveInt = 3
    shares: Mapping[str, FractionBelowOne] | Seed | None = None


def unready(width: int = None) -> None:  # noqa: RUF013  # as some libraries have it
    """A default that its own annotation does not allow."""


def open_ended(name: str, **options: Any) -> None:
    """Hands on whatever it gets."""


def node(**arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{__name__}.Part", **arguments}


@pytest.mark.parametrize(
    "content",
    [
        node(width=3),
        node(width=3, rate=1),  # a whole number is a number
        node(width=3, limit=float("inf")),
        node(width=3, limit=None),
        node(width=3, sides=[1, 2]),  # a list is a tuple too
        node(width=3, weights={"a": 1}),
        node(width=3, weights=[1, 0.5]),
        node(width=3, inner=node(width=4)),
        node(width=3, mode=None),  # a part that is null is one that the verb does without
        node(_partial_=True),  # the rest comes later
        {"_target_": f"{__name__}.unready", "width": None},
        {"_target_": f"{__name__}.open_ended", "name": "x", "more": 1},
        {"_target_": "builtins.list"},
        {"a": {"b": [node(width=3)]}, "c": "text"},
    ],
)
def test_what_can_be_called_passes(content: dict[str, Any]) -> None:
    check_calls({"part": content})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            node(width=3, rte=1),
            "`part.rte` should be a key of `part`. Found `part.rte = 1`. Did you mean `part.rate`? "
            "Else leave it out, with `~part.rte` where a preset sets it.",
        ),
        (
            node(width=3, zzz=1),
            "`part.zzz` should be a key of `part`. Found `part.zzz = 1`. "
            "Leave it out, with `~part.zzz` where a preset sets it.",
        ),
        (node(width="abc"), "`part.width` should be a whole number. Found `part.width = abc`."),
        (node(width="3"), "`part.width` should be a whole number. Found `part.width = 3`."),
        (node(width=None), "`part.width` should be a whole number. Found `part.width = null`."),
        (node(width=2.5), "`part.width` should be a whole number. Found `part.width = 2.5`."),
        (node(width=True), "`part.width` should be a whole number. Found `part.width = True`."),
        (
            node(width=3, sides=[1, 2, 3]),
            "`part.sides` should be a list of 2 whole numbers or null. Found `part.sides = [1, 2, 3]`.",
        ),
        (node(width=3, mode="slow"), "`part.mode` should be fast, exact. Found `part.mode = slow`."),
        (
            node(width=3, weights=1),
            "`part.weights` should be a map or a list of numbers or null. Found `part.weights = 1`.",
        ),
        (node(width=3, make="x"), "`part.make` should be a map with `_target_` or null. Found `part.make = x`."),
        (node(width=3, rate=float("nan")), "`part.rate` should be a finite number. Found `part.rate = nan`."),
        (node(width=3, rate=float("inf")), "`part.rate` should be a finite number. Found `part.rate = inf`."),
        (node(width=3, limit=0), "`part.limit` should be a number above 0 or null. Found `part.limit = 0`."),
        (
            node(width=3, limit=float("nan")),
            "`part.limit` should be a finite number above 0 or null. Found `part.limit = nan`.",
        ),
        (node(width=3, depth=0), "`part.depth` should be a whole number of at least 1. Found `part.depth = 0`."),
        (node(width=3, depth=None), "`part.depth` should be a whole number of at least 1. Found `part.depth = null`."),
        (
            node(width=3, shares={"a": 1}),
            "`part.shares` should be a map, each value a number in [0, 1) or a whole number in [0, 4294967296) or null."
            " Found `part.shares = {'a': 1}`.",
        ),
        (node(), "`part.width` should be given. Found no value. Add `+part.width=...`."),
        (
            {"_target_": "nothing.at_all"},
            "`part._target_` should be something that Python can import. Found `nothing.at_all`.",
        ),
        (
            {"_target_": f"{__name__}.Nothing"},
            f"`part._target_` should be something that Python can import. Found `{__name__}.Nothing`.",
        ),
        (
            node(width=3, inner=node(width="x")),
            "`part.inner.width` should be a whole number. Found `part.inner.width = x`.",
        ),
    ],
)
def test_what_cannot_is_told_in_a_sentence(content: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_calls({"part": content})
    assert str(caught.value) == said


def test_every_finding_is_told_once_where_it_stands() -> None:
    wrong = node(width="x")
    with pytest.raises(ConfigError) as caught:
        check_calls({"task": {"network": wrong}, "encoder": wrong, "loss": node(width=3, rate="y")})
    assert str(caught.value) == (
        "`encoder.width` should be a whole number. Found `encoder.width = x`. "
        "`loss.rate` should be a number. Found `loss.rate = y`."
    )


def test_calls_are_found_at_any_depth() -> None:
    found = dict(calls_in({"a": [node(width=1, inner=node(width=2))], "b": {"c": node()}}))
    assert list(found) == ["a[0]", "a[0].inner", "b.c"]


def test_values_that_are_no_arguments() -> None:
    kinds = {"a.b": PositiveInt | Literal["auto"], "c": PositiveInt, "d.e.f": PositiveInt}
    check_values({"a": {"b": "auto"}, "c": 2, "d": {"e": None}}, kinds)
    with pytest.raises(ConfigError) as caught:
        check_values({"a": {"b": 0}, "c": "x", "d": 3}, kinds)
    assert str(caught.value) == (
        "`a.b` should be a whole number of at least 1 or auto. Found `a.b = 0`. "
        "`c` should be a whole number of at least 1. Found `c = x`."
    )


@pytest.mark.parametrize("key", ["run", "input", "output", "root", "output_root", "data.root", "labels"])
def test_paths_are_text(key: str) -> None:
    def content(value: Any) -> dict[str, Any]:
        *above, name = key.split(".")
        return {above[0]: {name: value}} if above else {name: value}

    check_values(content("7"), KEYS)
    with pytest.raises(ConfigError) as caught:
        check_values(content(None), KEYS)
    assert str(caught.value) == f"`{key}` should be text. Found `{key} = null`."
    with pytest.raises(ConfigError) as caught:
        check_values(content(7), KEYS)
    assert str(caught.value) == f"`{key}` should be text. Found `{key} = 7`. Quote it: `'{key}=\"7\"'`."
    with pytest.raises(ConfigError):
        check_values(content(["a"]), KEYS)


def test_null_where_a_key_needs_a_value() -> None:
    with pytest.raises(ConfigError) as caught:
        check_values({"runs": None, "value_range": None, "dpi": None}, KEYS)
    assert str(caught.value) == (
        "`runs` should be text or a list of words. Found `runs = null`. "
        "`dpi` should be a whole number of at least 1. Found `dpi = null`."
    )


def test_settings_of_an_option_that_is_not_chosen_are_told_once() -> None:
    terms = {"ce": node(width=3), "focal": {"alpha": 0.25}}
    content = {"loss": {"terms": terms}, "task": {"loss": {"terms": terms}}, "name": {"of": "no call at all"}}
    with pytest.raises(
        ConfigError, match=r"^`loss.terms.focal` should be a call.*take it away with `~loss.terms.focal`\.$"
    ):
        check_calls(content)
    check_calls({"loss": {"terms": {"ce": node(width=3), "focal": {}, "dice": None}}})


def test_annotations_are_those_that_python_finds() -> None:
    number = 0
    for target in (name for name in named_targets(conf_dir()) if name.startswith("hsl.")):
        function = pkgutil.resolve_name(target)
        read = _annotations(target)
        hints = typing.get_type_hints(
            function.__init__ if isinstance(function, type) else function, include_extras=True
        )
        for name, (annotation, _) in read.items():
            assert annotation in (Any, hints[name]), (target, name)
            number += 1
    assert number > 150


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"_target_": "hsl.tasks.optimizers.adamw", "lr": -1}, "`a.lr` should be a number above 0. Found `a.lr = -1`"),
        ({"_target_": "hsl.losses.overlap.Dice", "smooth": "x"}, "`a.smooth` should be a number of at least 0"),
        ({"_target_": "hsl.losses.overlap.Dice", "classes": "some"}, None),  # its annotation has a name of torch's file
        ({"_target_": "hsl.losses.overlap.Dice", "unknown": 1}, None),  # left to `check_calls`
        ({"_target_": "hsl.no.such", "lr": -1}, None),
        ({"_target_": "os.system", "command": -1}, None),
        ({"_target_": "hsl/../x.y", "lr": -1}, None),
        ({"_target_": 3, "lr": -1}, None),
    ],
)
def test_values(node: dict[str, Any], words: str | None) -> None:
    if words is None:
        check_values_of_ours({"a": node})
        return
    with pytest.raises(ConfigError) as told:
        check_values_of_ours({"a": node})
    assert words in str(told.value)


def test_it_needs_no_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from hsl.config.signatures import check_values_of_ours\n"
        "check_values_of_ours({'a': {'_target_': 'hsl.tasks.optimizers.adamw', 'lr': 0.1}})\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
