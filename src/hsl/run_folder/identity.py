"""Which configs are the same run, and in what two of them differ."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hsl.config.moved import with_first_targets

RUNTIME_KEYS = ("resume", "rerun", "run_dir", "output_root", "cache_dir", "entry")
RUNTIME_DATA_KEYS = ("num_workers", "cache", "cache_gigabytes", "cache_dir", "audit", "root")
"""Where the data lie is no part of a run, what they are is: a run remembers the hashes of its pictures and masks."""

PLACES = ("path", "dirpath", "save_dir")
SHOWN = 5


def config_identity(cfg: DictConfig) -> str:
    """SHA-256 of everything in the config that can change a number; paths and worker counts are left out."""
    copy: Any = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    OmegaConf.set_struct(copy, False)
    for key in RUNTIME_KEYS:
        copy[key] = None
    content: Any = OmegaConf.to_container(copy, resolve=True)
    return hashlib.sha256(json.dumps(_comparable(content), sort_keys=True).encode()).hexdigest()


def differing(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys in which two resolved configs are another run, each with its earlier and its present value.

    Example:
        >>> differing({"seed": 0, "data": {"batch_size": 8}}, {"seed": 0, "data": {"batch_size": 4}})
        {'data.batch_size': (8, 4)}
    """
    one, two = _flat(_comparable(earlier)), _flat(_comparable(now))
    keys = sorted(one.keys() | two.keys())
    return {key: (one.get(key), two.get(key)) for key in keys if one.get(key) != two.get(key)}


def in_words(differences: Mapping[str, tuple[Any, Any]]) -> str:
    """The first of the differing keys.

    Example:
        >>> in_words({"seed": (0, 1), "data.batch_size": (8, 4)})
        '`seed` (0, now 1), `data.batch_size` (8, now 4)'
    """
    listed = [f"`{key}` ({earlier}, now {now})" for key, (earlier, now) in list(differences.items())[:SHOWN]]
    more = len(differences) - len(listed)
    return ", ".join(listed) + (f" and {more} more" if more else "")


def _comparable(content: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved config without what changes no number."""
    kept = {key: value for key, value in with_first_targets(content).items() if key not in RUNTIME_KEYS}
    if isinstance(kept.get("data"), Mapping):
        kept["data"] = {key: value for key, value in kept["data"].items() if key not in RUNTIME_DATA_KEYS}
    return kept | {group: _without_places(kept[group]) for group in ("logger", "callbacks") if group in kept}


def _without_places(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _without_places(value) for key, value in node.items() if key not in PLACES}
    return node


def _flat(node: Any, place: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping) or not node:
        return {place: node}
    return {key: value for name, inner in node.items() for key, value in _flat(inner, f"{place}.{name}"
            if place else str(name)).items()}  # fmt: skip
