"""A plan as a YAML file for `experiment=@FILE`: every value with its reason in the line above."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

WIDTH = 110
_PLAIN = re.compile(r"[\w/.+%-]+")
_ORDER = ("name", "monitor", "data", "augmentation", "loss", "inference", "trainer", "callbacks")


@dataclass(frozen=True)
class Entry:
    """A value, or the option of a group, and why; one that goes with the entry before it has no reason of its own."""

    value: Any
    reason: str = ""


def plan_text(header: Sequence[str], options: Mapping[str, Entry], values: Mapping[str, Entry]) -> str:
    """The text of the file.

    Args:
        header: Lines of the comment at the top.
        options: Group -> option.
        values: Dotted key -> value.

    Example:
        >>> print(plan_text(["A plan"], {"loss": Entry("ce", "rare classes")}, {"data.batch_size": Entry(4, "fits")}))
        # @package _global_
        # A plan
        defaults:
          # rare classes
          - override /loss: ce
        data:
          # fits
          batch_size: 4
        <BLANKLINE>
    """
    lines = ["# @package _global_", *(f"# {line}" for line in header), "defaults:"]
    for group, entry in options.items():
        lines += [*_comment(entry.reason, "  "), f"  - override /{group}: {_flow(entry.value)}"]
    tree: dict[str, Any] = {}
    for key in sorted(values, key=_place):
        *above, name = key.split(".")
        node = tree
        for word in above:
            node = node.setdefault(word, {})
        node[name] = values[key]
    return "\n".join([*lines, *_branches(tree, "")]) + "\n"


def _place(key: str) -> int:
    first = key.partition(".")[0]
    return _ORDER.index(first) if first in _ORDER else len(_ORDER)


def _branches(tree: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, node in tree.items():
        if isinstance(node, Entry):
            yield from _comment(node.reason, indent)
            yield f"{indent}{_flow(name)}: {_flow(node.value)}"
        else:
            yield f"{indent}{_flow(name)}:"
            yield from _branches(node, indent + "  ")


def _comment(reason: str, indent: str) -> list[str]:
    return [f"{indent}# {' '.join(reason.split())}"] if reason else []


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def command(path: Path, folds: Sequence[int]) -> str:
    """What trains a plan, as it is typed into a shell.

    >>> command(Path("my plans/quick.yaml"), [0]), command(Path("p/standard.yaml"), [0, 1])
    ('hsl train \\'experiment="@my plans/quick.yaml"\\' fold=0', 'hsl train -m experiment=@p/standard.yaml fold=0,1')
    """
    word = f"experiment=@{path}"
    if not _PLAIN.fullmatch(str(path)):
        quoted = str(path).replace("\\", "\\\\").replace('"', '\\"')
        word = shlex.quote(f'experiment="@{quoted}"')
    several = "-m " if len(folds) > 1 else ""
    return f"hsl train {several}{word} fold={','.join(map(str, folds))}"
