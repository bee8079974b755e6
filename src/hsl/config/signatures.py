"""Arguments of our own calls, held against the text of the sources: a value out of range is answered without torch."""

import ast
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hsl.config import ranges
from hsl.config.calls import RESERVED, calls_in, fits, sentence_of
from hsl.errors import ConfigError

_OURS = re.compile(r"hsl(\.[A-Za-z_]\w*)+", re.ASCII)
ROOT = Path(__file__).parents[1]
KNOWN = {
    **{name: one for name, one in vars(ranges).items() if not name.startswith("_")},
    **{one.__name__: one for one in (int, float, str, bool, list, tuple, dict)},
    "Any": Any,
    "Callable": Callable,
    "Literal": Literal,
    "Mapping": Mapping,
    "Sequence": Sequence,
}
"""What the annotations that are read here may be made of; one with another name is left to `check_calls`."""


def check_values_of_ours(content: Mapping[str, Any]) -> None:
    """Check values by the annotations of what ``hsl.*`` targets name, without importing it.

    Args:
        content: A resolved config. Nothing of it is imported; `hsl.config.calls.check_calls` checks the rest.

    Raises:
        ConfigError: Every finding at once: the key and the rule.
    """
    found = dict.fromkeys(sentence for path, node in calls_in(dict(content)) for sentence in _findings(path, node))
    if found:
        raise ConfigError(" ".join(found))


def _findings(path: str, node: Mapping[str, Any]) -> Iterator[str]:
    annotations = _annotations(node["_target_"]) if isinstance(node["_target_"], str) else {}
    for key, value in node.items():
        if key in annotations and key not in RESERVED:
            annotation, default = annotations[key]
            if value != default and not fits(value, annotation):
                yield sentence_of(f"{path}.{key}", annotation, value)


@functools.cache
def _annotations(target: str) -> dict[str, tuple[Any, Any]]:
    """Argument to annotation and default; empty where the source does not tell."""
    module, _, name = target.partition("hsl.")[2].rpartition(".")
    file = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    if not _OURS.fullmatch(target) or not file.is_file():
        return {}
    for node in _parsed(file).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return next(
                (_of(one) for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), {}
            )
        if isinstance(node, ast.FunctionDef) and node.name == name and not node.decorator_list:  # which may change it
            return _of(node)
    return {}


@functools.cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf8"))


def _of(function: ast.FunctionDef) -> dict[str, tuple[Any, Any]]:
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + [*given.defaults, *given.kw_defaults]
    found = {}
    for argument, default in zip([*positional, *given.kwonlyargs], defaults, strict=True):
        if argument.annotation is not None and _names(argument.annotation) <= KNOWN.keys():
            text = compile(ast.Expression(argument.annotation), "<annotation>", "eval")
            found[argument.arg] = eval(text, {"__builtins__": {}, **KNOWN}), _literal(default)
    return found


def _names(annotation: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}


def _literal(default: ast.expr | None) -> Any:
    """The value of a default that is written out."""
    try:
        return ast.literal_eval(default) if default is not None else ...
    except ValueError:
        return ...
