"""What two runs have in common and what sets two models apart, read from their configs."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from hsl.config.moved import without_later
from hsl.run_folder.layout import foldless

ABSENT = "–"
OFF = "none"
FIRST = ("loss", "labels", "decoder", "weighting", "patches", "phases", "inference", "optimizer", "scheduler")
"""What says most about a model, where several keys tell models apart equally well."""
SHOWN = 2  # with more differences a label has only those that tell the models apart; the page lists them all


def flatten(config: Mapping[str, Any], ignore: Sequence[str] = (), prefix: str = "") -> dict[str, str]:
    """Dotted keys to values as JSON; lists are values. What is null is off, as if it were not there.

    Args:
        config: nested mappings.
        ignore: patterns of dotted keys to leave out (``*`` also crosses dots).
        prefix: put before every key.

    >>> flatten({"fold": 1, "data": {"size": [2, 3], "patches": None}}, ignore=["fold"])
    {'data.size': '[2, 3]'}
    """
    flat: dict[str, str] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, ignore, f"{key}.")
        elif value is not None and not any(fnmatchcase(key, pattern) for pattern in ignore):
            flat[key] = json.dumps(value, default=str)
    return flat


def without_watchers(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the callbacks that only watch: they make no other model.

    A callback of ours changes what is learned or kept exactly where it names the value that it decides by, ``monitor``
    or ``metric``. Of others nothing is known, so they stay.

    >>> without_watchers({"callbacks": {"rows": {"_target_": "hsl.callbacks.history.History"}, "off": None}})
    {}
    """
    callbacks = {
        name: node
        for name, node in (config.get("callbacks") or {}).items()
        if isinstance(node, Mapping)
        and (not str(node.get("_target_", "")).startswith("hsl.") or node.keys() & {"monitor", "metric"})
    }
    others = {name: node for name, node in config.items() if name != "callbacks"}
    return others | ({"callbacks": callbacks} if callbacks else {})


def comparable(config: Mapping[str, Any], fold: int, ignore: Sequence[str]) -> dict[str, str]:
    """The flattened config in which two runs of one model agree, whatever their fold.

    Args:
        config: of a run.
        fold: its number, which is taken out of the values, see `foldless`.
        ignore: patterns of keys in which the runs may differ.
    """
    told = flatten(without_later(without_watchers(config)), ignore)
    return {key: foldless(value, fold) for key, value in told.items()}


def unlike_predictors(configs: Sequence[Mapping[str, Any]]) -> str:
    """The first name, such as ``tta``, under which runs were scored by different predictors; empty without one."""
    found: dict[str, str] = {}
    for config in configs:
        for node in (config.get("callbacks") or {}).values():
            if isinstance(node, Mapping) and "inference" in node:
                predictor = json.dumps(node.get("predictor"), sort_keys=True, default=str)
                if found.setdefault(str(node["inference"]), predictor) != predictor:
                    return str(node["inference"])
    return ""


def differences(models: Sequence[Mapping[str, str]], name_key: str) -> list[dict[str, str]]:
    """What differs between models beyond the encoder, one short key each.

    Left out is what the encoder's name decides (its normalisation, its stride) and what is the same value in
    two places: interpolated copies.

    Args:
        models: flattened configs.
        name_key: the key of the encoder's name, such as ``encoder.name``.
    """
    room = name_key.rpartition(".")[0] + "."
    columns: dict[tuple[str, ...], list[str]] = {}
    for key in sorted({key for model in models for key in model}):
        column = tuple(_value(key, model, models) for model in models)
        if len(set(column)) > 1:
            columns.setdefault(column, []).append(key)
    names = tuple(model.get(name_key, ABSENT) for model in models)
    kept: dict[str, tuple[str, ...]] = {}
    for column, keys in columns.items():
        of_encoder = any(key.startswith(room) for key in keys)
        if not (of_encoder and _decides(names, column)):
            kept[min(keys, key=lambda key: (key.count("."), len(key), key))] = column
    return [{key: _plain(column[i]) for key, column in kept.items()} for i in range(len(models))]


def _value(key: str, model: Mapping[str, str], models: Sequence[Mapping[str, str]]) -> str:
    """Of a key that others have: it is null in a model that calls the same there, and no key of another call."""
    if key in model:
        return model[key]
    call = f"{key.rpartition('.')[0]}._target_"
    return "null" if call in model and all(one.get(call) == model[call] for one in models if key in one) else ABSENT


def labels(models: Sequence[Mapping[str, str]], name_key: str) -> list[str]:
    """A short, unique name for each model: its encoder, then what else differs.

    Where more than ``SHOWN`` parts are needed to tell them apart, a value that most models share is not said.

    >>> labels([{"e.name": '"tu-a.in1k"', "lr": "1"}, {"e.name": '"b"', "lr": "2"}], "e.name")
    ['a · lr=1', 'b · lr=2']
    """
    full = [_plain(model.get(name_key, ABSENT)).removeprefix("tu-") for model in models]  # smp's mark of timm
    short = [name.partition(".")[0] for name in full]  # without the tag of published weights
    bases = full if len(set(short)) < len(set(full)) else short
    found = differences(models, name_key)
    columns = {_last(key): [_shown(key, one[key]) for one in found] for key in found[0]} if found else {}
    if len(columns) > SHOWN:
        values = {_last(key): [one[key] for one in found] for key in found[0] if not key.endswith("._target_")}
        columns = _telling(bases, values | _words(found))
    usual = {name: _of_most(column) for name, column in columns.items()} if len(columns) > SHOWN else {}
    made: list[str] = []
    for i, base in enumerate(bases):
        parts = [f"{name}={column[i]}" for name, column in columns.items() if column[i] != usual.get(name)]
        label = " · ".join([base, *parts])
        same = sum(other == label or other.startswith(f"{label} (") for other in made)
        made.append(f"{label} ({same + 1})" if same else label)
    return made


def _words(found: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """A word per model for each group of the config whose parts differ: ``weighting=nash_mtl``.

    It is the innermost part that the model has there: a method inside an aggregation says more than the aggregation.
    """
    every = [key for key in found[0] if key.endswith("._target_")]
    words: dict[str, list[str]] = {}
    for group in sorted({_group(key) for key in every} - {"task"}):  # which holds copies
        targets = [key for key in every if _group(key) == group]
        inner = -1 if group != "loss" else 1  # a loss of several heads says more than the terms that it is made of
        targets.sort(key=lambda key: inner * key.count("."))
        words[group] = [next((one[key] for key in targets if one[key] != ABSENT), OFF) for one in found]
    return words


def _group(key: str) -> str:
    """The group of the config: the first part of the key, below ``data`` the second (``data.labels``)."""
    parts = key.split(".")
    return parts[1] if parts[0] == "data" and len(parts) > 2 else parts[0]


def _telling(bases: Sequence[str], columns: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The few columns that tell the models apart: the one with the most values first, then as in ``FIRST``."""
    seen: list[tuple[str, ...]] = [(base,) for base in bases]
    kept: dict[str, list[str]] = {}
    for name in sorted(columns, key=lambda name: (-len(set(columns[name])), _place(name))):
        longer = [(*one, value) for one, value in zip(seen, columns[name], strict=True)]
        if len(set(longer)) > len(set(seen)):
            kept[name], seen = columns[name], longer
    return kept


def _of_most(column: Sequence[str]) -> str | None:
    value, count = Counter(column).most_common(1)[0]
    return value if 2 * count > len(column) else None


def _shown(key: str, value: str) -> str:
    """A part that a model does not have is none; a value is absent because the part is another."""
    return OFF if key.endswith("._target_") and value == ABSENT else value


def _place(name: str) -> int:
    return FIRST.index(name) if name in FIRST else len(FIRST)


def _decides(names: Sequence[str], column: Sequence[str]) -> bool:
    return len(set(zip(names, column, strict=True))) == len(set(names))


def _last(key: str) -> str:
    """``loss._target_`` is called ``loss``, ``optimizer.lr`` is called ``lr``."""
    return key.removesuffix("._target_").rpartition(".")[2]


def _plain(value: str) -> str:
    if not value.startswith('"'):
        return value
    text: str = json.loads(value)
    if text.startswith("hsl."):
        text = text.rpartition(".")[2]
    return text if len(text) <= 40 else f"…{text[-39:]}"
