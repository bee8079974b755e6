"""What the config of a run folder may name. It may come from anyone, so this is asked before any of it is imported."""

import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from hsl.errors import ConfigError
from hsl.run_folder.layout import PROVENANCE

EARLIER = frozenset(
    ["lightning.pytorch.callbacks.EarlyStopping", "lightning.pytorch.callbacks.ModelCheckpoint",
     "torchjd.aggregation.AlignedMTLWeighting", "torchjd.aggregation.IMTLGWeighting"]
)  # fmt: skip
"""Constructors of libraries that conf/ named in earlier versions, whose run folders name them still."""

_TARGET = re.compile(r"""_target_["']?\s*:\s*["']?([A-Za-z_][\w.]*)""")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)


def named_targets(folder: Path) -> list[str]:
    """Every ``_target_`` in the YAML files below a folder of configs, sorted; but those that Hydra itself builds.

    Args:
        folder: where train.yaml and a folder per group lie.
    """
    paths = (path for path in folder.rglob("*.yaml") if path.relative_to(folder).parts[0] != "hydra")
    texts = (path.read_text(encoding="utf8") for path in paths)
    return sorted({target for text in texts for target in _TARGET.findall(text)})


def allowed_targets(cfg: DictConfig) -> frozenset[str]:
    """What a verb builds of the run folders that it opens: ``targets``, those of conf/, `EARLIER` ones, and ``trust``.

    Raises:
        ConfigError: ``trust`` is no list of dotted names.
    """
    trust = cfg.trust
    names = trust if isinstance(trust, Sequence) and not isinstance(trust, str) else [trust]
    if wrong := [name for name in names if not (isinstance(name, str) and _DOTTED.fullmatch(name))]:
        raise ConfigError(
            f"`trust` should be a list of exact names such as mypackage.MyEncoder. Found `{wrong[0]}`. "
            "Write `trust=[mypackage.MyEncoder]`."
        )
    return EARLIER.union(cfg.targets, names)


def check_targets(content: Mapping[str, Any], allowed: Collection[str], where: Path, way: str | None = None) -> None:
    """Refuse a stored config that names a callable outside of a list, or that is not written out.

    Nothing is imported and nothing is resolved: an interpolation would be looked up on this machine, in its environment
    or by a resolver that runs code.

    Args:
        content: the config as it stands in the file.
        allowed: the exact names that may be called.
        where: the file, for the message.
        way: what to do about a callable; ``None``: what to do where it is the config of a run folder.

    Raises:
        ConfigError: every finding at once.
    """
    strange: dict[str, Any] = {}
    for path, value, is_target in _values(content):
        if is_target and not (isinstance(value, str) and value in allowed):
            strange[path] = value
        elif isinstance(value, str) and "${" in value:
            raise ConfigError(
                f"`{where}` should hold plain values, as hsl writes it. Found `{path} = {value}`, which would be "
                "looked up on this machine. Write the value itself."
            )
    if strange:
        listed = ", ".join(f"`{path} = {value}`" for path, value in strange.items())
        sentence = (
            f"`{where}` should name only callables that conf/ names, because what it names is run. Found {listed}."
        )
        if way is not None:
            raise ConfigError(f"{sentence} {way}")
        names = sorted({value for value in strange.values() if isinstance(value, str) and _DOTTED.fullmatch(value)})
        packages = {name: name.partition(".")[0] for name in names}
        yours = [name for name, package in packages.items() if package != "hsl"]
        advice = f" If this is your own code, allow it with `trust=[{','.join(yours)}]`." if yours else ""
        if sys.stdlib_module_names & set(packages.values()):
            advice = " No model is made of parts of Python itself: somebody wrote this in. Do not use this folder."
        raise ConfigError(
            f"{sentence}{advice} A run of another version of hsl needs the version that its {PROVENANCE} names."
        )


def _values(node: Any, path: str = "") -> Iterator[tuple[str, Any, bool]]:
    """Dotted path and value of every ``_target_``, whatever it holds, and of every other leaf."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            below = f"{path}.{key}" if path else str(key)
            if key == "_target_":
                yield below, value, True
            else:
                yield from _values(value, below)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _values(value, f"{path}[{i}]")
    else:
        yield path, node, False
