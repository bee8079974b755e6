"""What is read off the sources is what Python would say, and a value out of range needs no torch to be refused."""

import subprocess
import sys
import typing
from typing import Any

import pytest

from hsl.cli import conf_dir
from hsl.config.calls import pkgutil
from hsl.config.signatures import _annotations, check_values_of_ours
from hsl.config.targets import named_targets
from hsl.errors import ConfigError


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
        ({"_target_": "hsl.losses.dice.Dice", "smooth": "x"}, "`a.smooth` should be a number of at least 0"),
        ({"_target_": "hsl.losses.dice.Dice", "classes": "some"}, None),  # its annotation has a name of torch's file
        ({"_target_": "hsl.losses.dice.Dice", "unknown": 1}, None),  # left to `check_calls`
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
