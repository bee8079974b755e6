"""JSON read as dataclasses: what is missing or of another type is told by its key."""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hsl.errors import DataError


def typed(value: Any, hint: Any, path: Path, advice: str, key: str = "") -> Any:
    """A value of JSON as a type of a schema of dataclasses, checked at every depth.

    Args:
        value: as JSON holds it.
        hint: its type.
        path: of the file, for the message of an error.
        advice: the way out, for the same.
        key: of the value in the file.

    Raises:
        DataError: it is of another type.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if isinstance(hint, types.UnionType) or origin is typing.Union:
        inner = next(each for each in arguments if each is not types.NoneType)
        return None if value is None else typed(value, inner, path, advice, key)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _filled(value, hint, path, advice, key)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {name: typed(each, arguments[1], path, advice, f"{key}.{name}") for name, each in value.items()}
    if origin in (tuple, Sequence) and isinstance(value, list):
        many = len(arguments) == 1 or arguments[-1] is Ellipsis
        kinds = [arguments[0]] * len(value) if many else list(arguments)
        if len(kinds) == len(value):
            pairs = enumerate(zip(value, kinds, strict=True))
            return tuple(typed(each, kind, path, advice, f"{key}[{i}]") for i, (each, kind) in pairs)
    plain = float if hint is float and isinstance(value, int) and not isinstance(value, bool) else type(value)
    if value in arguments if origin is Literal else plain is hint:
        return hint(value) if plain is float else value
    raise DataError(
        f"`{path}` should have as `{key.removeprefix('.')}` {_called(hint)}. Found `{str(value)[:80]}`. {advice}"
    )


def _filled(value: Mapping[str, Any], kind: Any, path: Path, advice: str, key: str) -> Any:
    """A dataclass from its attributes; what a newer writer of this format adds is passed over."""
    hints, given = typing.get_type_hints(kind), {}
    for each in dataclasses.fields(kind):
        where = f"{key}.{each.name}"
        if each.name in value:
            given[each.name] = typed(value[each.name], hints[each.name], path, advice, where)
        elif each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING:
            raise DataError(f"`{path}` should have the key `{where.removeprefix('.')}`. Found none. {advice}")
    return kind(**given)


def _called(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")
