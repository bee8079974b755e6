"""The calls that a config names, held against the signatures of what they call before any of them is made."""

import inspect
import json
import math
import pkgutil
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from hsl.errors import ConfigError

RESERVED = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")
"""What Hydra itself reads in a node."""


def check_calls(content: Mapping[str, Any]) -> None:
    """Check that each ``_target_`` exists, takes every key of its node, and allows the types of the values.

    Third-party annotations count too, so ``trainer.max_epochs=abc`` is found before anything is read. Types that only
    a program can check (modules, functions) and values that are themselves calls are left to the call.

    Args:
        content: A resolved config. What it names is imported.

    Raises:
        ConfigError: Every finding at once: the key, the rule and the way out.
    """
    findings: dict[tuple[str, ...], str] = {}  # a node that is interpolated somewhere is told once, where it stands
    for path, node in sorted(calls_in(content), key=lambda call: call[0].count(".")):
        for key, sentence in _findings(path, node):
            findings.setdefault((node["_target_"], key, repr(node.get(key))), sentence)
    for path, node in sorted(_settings_of_nothing(content), key=lambda found: found[0].count(".")):
        findings.setdefault(
            ("", path.rpartition(".")[2], repr(node)),
            f"`{path}` should be a call, as those beside it are. Found `{path} = {node}`, without `_target_`: the "
            f"option that it belongs to is not chosen. Choose that, or take it away with `~{path}`.",
        )
    if findings:
        raise ConfigError(" ".join(findings.values()))


def check_values(content: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Check the values that are no arguments of a call.

    Args:
        content: A resolved config.
        kinds: Dotted key -> annotation of its value; a key that the config lacks has none.

    Raises:
        ConfigError: Every finding at once: the key and the rule.
    """
    findings = []
    for key, kind in kinds.items():
        node: Any = content
        *above, name = key.split(".")
        for word in above:
            node = node.get(word) if isinstance(node, dict) else None
        missing = isinstance(node, dict) and node.get(name) is None and type(None) not in typing.get_args(kind)
        if isinstance(node, dict) and name in node and (missing or not fits(node[name], kind)):
            findings.append(sentence_of(key, kind, node[name]))
    if findings:
        raise ConfigError(" ".join(findings))


def calls_in(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node with a ``_target_``, with its dotted path, the outer ones first."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from calls_in(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from calls_in(value, f"{path}[{i}]")


def _settings_of_nothing(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Maps without ``_target_`` in a map of calls, below the top: a preset sets them for an option that was changed."""
    calls = (
        path and "_target_" not in node and any(isinstance(one, dict) and "_target_" in one for one in node.values())
    )
    for key, value in node.items():
        if isinstance(value, dict):
            if calls and value and "_target_" not in value:
                yield f"{path}.{key}", value
            yield from _settings_of_nothing(value, f"{path}.{key}" if path else str(key))


def _findings(path: str, node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The key that is wrong and what to say of it."""
    target = node["_target_"]
    try:
        function = pkgutil.resolve_name(target)
        signature = inspect.signature(function)
    except (ImportError, AttributeError):
        yield "_target_", f"`{path}._target_` should be something that Python can import. Found `{target}`."
        return
    except ValueError:  # built-in types have no signature
        return
    parameters = signature.parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    arguments = {key: value for key, value in node.items() if key not in RESERVED}
    hints = _hints(function)
    for key, value in arguments.items():
        known = parameters.get(key)
        if known is None and not open_ended:
            near = get_close_matches(key, parameters, n=1)
            meant = f"Did you mean `{path}.{near[0]}`? Else leave it out" if near else "Leave it out"
            preset = "" if "[" in path else f", with `~{path}.{key}` where a preset sets it"
            yield key, f"`{path}.{key}` should be a key of `{path}`. Found `{path}.{key} = {value}`. {meant}{preset}."
        elif known is not None and value != known.default and not fits(value, hints.get(key, Any)):
            yield key, sentence_of(f"{path}.{key}", hints[key], value)
    if not node.get("_partial_") and "_args_" not in node:
        given = set(arguments)
        for name, parameter in parameters.items():
            required = parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)  # fmt: skip
            if required and name not in given:
                yield name, f"`{path}.{name}` should be given. Found no value. Add `+{path}.{name}=...`."


def sentence_of(key: str, annotation: Any, value: Any) -> str:
    """What to say of a value that is not one of the annotated type and range."""
    wanted = _in_words(annotation)
    if isinstance(value, float) and not math.isfinite(value):
        wanted = wanted.replace("a number", "a finite number")
    way = (
        f" Quote it: `'{key}=\"{value}\"'`." if wanted.startswith("text") and type(value) in (int, float, bool) else ""
    )
    return f"`{key}` should be {wanted}. Found `{key} = {'null' if value is None else value}`.{way}"


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function.__init__ if inspect.isclass(function) else function, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}  # annotations of names that are imported for type checkers alone


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value of YAML is one of the annotated type and range; true where only a program could tell."""
    if any(True for _ in calls_in(value)) or (value is None and _plain(annotation) not in _SCALARS):
        return True  # a part that is null is one that the verb does without
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))
        adapter.validate_json(json.dumps(value), strict=True)  # strict, but a list is a tuple too, as in YAML
    except ValidationError as error:
        return any(finding["type"] in ("needs_python_object", "is_instance_of") for finding in error.errors())
    except (PydanticUserError, TypeError):
        return True
    return True


def _plain(annotation: Any) -> Any:
    """A type without its range."""
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation


_SCALARS = (int, float, str, bool)
_WORDS = {
    int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null",
    list: "a list", tuple: "a list", dict: "a map",
}  # fmt: skip


_SEVERAL = {"a number": "numbers", "a whole number": "whole numbers", "text": "words"}
_BOUNDED = (" of at least ", " above ", " in [", " in (")


def _range_in_words(marks: typing.Iterable[Any]) -> str:
    """What the bounds of pydantic's `Field` say, behind the words of a type."""
    bounds = {
        name: getattr(bound, name)
        for mark in marks
        for bound in getattr(mark, "metadata", ())
        for name in ("ge", "gt", "le", "lt")
        if hasattr(bound, name)
    }
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if low is None:
        return ""
    if high is None:
        return f" of at least {low}" if "ge" in bounds else f" above {low}"
    return f" in {'[' if 'ge' in bounds else '('}{low}, {high}{']' if 'le' in bounds else ')'}"


def _in_words(annotation: Any) -> str:
    """A type as a person writes it in YAML."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_in_words(one) for one in arguments))
    if origin is Literal:
        return ", ".join(json.dumps(one).strip('"') for one in arguments)
    if origin is typing.Annotated:
        return _in_words(arguments[0]) + _range_in_words(arguments[1:])
    kind = origin or annotation
    of = _in_words(arguments[-1]) if inspect.isclass(kind) and issubclass(kind, typing.Collection) and arguments else ""
    if of in _SEVERAL and not issubclass(kind, Mapping):
        number = f"{len(arguments)} " if kind is tuple and Ellipsis not in arguments else ""
        return f"a list of {number}{_SEVERAL[of]}"
    if any(sign in of for sign in _BOUNDED):
        return f"{'a map' if issubclass(kind, Mapping) else 'a list'}, each value {of}"
    if kind in _WORDS:
        return _WORDS[kind]
    if kind is Callable:
        return "a map with `_target_`"
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return "a map"
    if inspect.isclass(kind) and issubclass(kind, typing.Collection):
        return "a list"
    return inspect.formatannotation(annotation)
