"""What a mistyped key or option was meant to be. No part of the config is built or imported."""

import shlex
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

ALIKE = 0.75
"""How alike two keys are at least of which one is offered for the other, 0 to 1."""
ALIKE_BESIDE = 0.65
"""The same for names that stand side by side: keys of one map, options of one group."""


def of_key(key: str, word: str, content: Mapping[str, Any], groups: Collection[str]) -> str:
    """The sentence for a key that the config lacks.

    Args:
        key: With dots, or a group with slashes.
        word: What was typed, ``key=value`` or ``~key``.
        content: The config without it.
        groups: Names of all groups.
    """
    if "/" in key:
        near = get_close_matches(key, groups, 1, ALIKE_BESIDE)
        return f"`{key}` should be a group. Found `{word}`. {_meant(near)}`hsl options` shows all."
    path = key.split(".")
    node: Any = content
    depth = 0
    while depth < len(path) - 1 and isinstance(node, Mapping) and path[depth] in node:
        node, depth = node[path[depth]], depth + 1
    place = ".".join(path[:depth])
    if node is None and (group := place.replace(".", "/")) in groups:
        return f"`{key}` needs `{group}`, which is off. Found `{word}`. Choose one that `hsl options {group}` shows."
    near = _near(path[depth:], node, place) or ([] if place else _elsewhere(key, [*_keys(content), *groups]))
    more = f"What `{place}` takes but does not list is added by `+{word}`." if place else "`--cfg job` shows all."
    if word.startswith("~"):
        more = "`--cfg job` shows all."
    return f"`{key}` should be a key of the config. Found `{word}`. {_meant(near)}{more}"


def of_option(group: str, name: str, options: Collection[str]) -> str:
    """The sentence for an option that a group lacks."""
    meant = _meant(get_close_matches(name, options, 1, ALIKE_BESIDE))
    return f"`{group}` should be one of {', '.join(options)}. Found `{group}={name}`. {meant}".rstrip()


def of_value(word: str, reason: str = "") -> str:
    """The sentence for a word that Hydra's grammar does not take.

    Args:
        word: What was typed.
        reason: What the grammar says of it.
    """
    key, equals, value = word.partition("=")
    if not equals:
        return f"Each word should be `key=value`. Found `{word}`. A blank in a value needs quotes of the shell."
    quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    way = f"Write {shlex.quote(f'{key}={quoted}')}."
    if value.startswith("~"):
        way = "Write the path in full: no shell replaces `~` there."
    elif value[:1] in ("[", "{"):
        way = f"Quote text in it that holds blanks or signs, `'key={{name: \"a > b\"}}'`. Is it text as a whole? {way}"
    return (
        f"`{key}` should be a value of letters, digits and /-_.:%+, or a list [a,b] or map {{a: b}} of such; any other "
        "text stands in double quotes, which the shell has to leave there. "
        f"Found `{word}`{reason and f': {reason}'}. {way}"
    )


def near_group(word: str, groups: Collection[str]) -> str:
    """` Did you mean ...?`, or nothing where no group or key is near."""
    return f" {_meant(get_close_matches(word, groups, 1, ALIKE_BESIDE))}".rstrip()


def _meant(near: list[str]) -> str:
    return f"Did you mean `{near[0]}`? " if near else ""


def _near(rest: list[str], node: Any, place: str) -> list[str]:
    """The key beside which the first unknown one stands, where the rest of the path goes on below it."""
    if not isinstance(node, Mapping):
        return []
    names = {str(name).lower(): name for name in node}
    for name in (names[near] for near in get_close_matches(rest[0].lower(), names, 3, ALIKE_BESIDE)):
        if name != rest[0] and (len(rest) == 1 or ".".join(rest[1:]) in _keys(node[name])):
            return [".".join([*([place] if place else []), name, *rest[1:]])]
    return []


def _elsewhere(key: str, keys: list[str]) -> list[str]:
    """The key of this name below a part, where one part alone has it, or one that is alike as a whole."""
    below = [one for one in keys if one.endswith(f".{key}")]
    return below if len(below) == 1 else get_close_matches(key, keys, 1, ALIKE)


def _keys(node: Any, above: str = "") -> Iterator[str]:
    """The dotted key of every value; a name with a dot of its own cannot be typed."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            if "." not in str(name):
                yield f"{above}{name}"
                yield from _keys(value, f"{above}{name}.")
