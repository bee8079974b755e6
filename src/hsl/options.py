"""The choices of the configuration groups, read off their files without composing them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from hsl.errors import ConfigError


@dataclass(frozen=True)
class Option:
    """One file of a group: ``group=name`` on the command line; ``default`` where train.yaml leads to it."""

    name: str
    description: str
    default: bool


Groups = Mapping[str, Sequence[Option]]


def read_options(folder: Path) -> Groups:
    """Every option of every group below a folder of configs, nested groups too (``data/split``).

    Args:
        folder: where train.yaml and a folder per group lie.
    """
    chosen = set(_chosen(folder, "", "train"))
    groups: dict[str, list[Option]] = {}
    for path in sorted(folder.rglob("[!_]*.yaml")):
        if path.parent != folder:  # those are verbs
            group = path.parent.relative_to(folder).as_posix()
            option = Option(path.stem, _description(path), (group, path.stem) in chosen)
            groups.setdefault(group, []).append(option)
    return dict(sorted(groups.items()))


def readers(folder: Path) -> dict[str, str]:
    """Option of ``data`` to the function that reads it."""
    contents = {
        path.stem: yaml.safe_load(path.read_text(encoding="utf8")) for path in (folder / "data").glob("[!_]*.yaml")
    }
    return {name: content["reader"]["_target_"] for name, content in sorted(contents.items())}


def options_below(groups: Groups, group: str | None) -> Groups:
    """A group and those nested in it; all of them without one.

    Raises:
        ConfigError: there is no such group.

    Example:
        >>> list(options_below({"data": [], "data/split": [], "decoder": []}, "data"))
        ['data', 'data/split']
    """
    if group is None:
        return groups
    found = {name: options for name, options in groups.items() if f"{name}/".startswith(f"{group}/")}
    if not found:
        raise ConfigError(f"`group` should be one of {', '.join(groups)}. Found `group = {group}`.")
    return found


def options_json(groups: Groups) -> str:
    """A JSON object: group to its options, each with name, description and default."""
    return json.dumps({group: [asdict(one) for one in options] for group, options in groups.items()}, indent=2)


def options_text(groups: Groups) -> str:
    """A table for people, in which the defaults have a star."""
    width = max(len(one.name) for options in groups.values() for one in options)
    lines = []
    for group, options in groups.items():
        lines.append(group)
        lines += [f"{'*' if one.default else ' '} {one.name:<{width}}  {one.description}" for one in options]
        lines.append("")
    return "\n".join([*lines, "* = what train.py takes; GROUP=NAME takes another."])


def _chosen(folder: Path, group: str, name: str) -> Iterator[tuple[str, str]]:
    """The (group, option) pairs of a config's defaults list, and those of the options' own lists."""
    content = yaml.safe_load((folder / group / f"{name}.yaml").read_text(encoding="utf8")) or {}
    for entry in content.get("defaults", []):
        if isinstance(entry, str):  # another file of the same group becomes part of this one
            if (folder / group / f"{entry}.yaml").is_file():
                yield from _chosen(folder, group, entry)
            continue
        for key, value in entry.items():
            word = key.split()[-1]  # behind `override` or `optional`
            inner = word.removeprefix("/") if word.startswith("/") else f"{group}/{word}".removeprefix("/")
            for option in value if isinstance(value, list) else [value]:
                if (folder / inner / f"{option}.yaml").is_file():  # Hydra has groups of its own, and null is no file
                    yield inner, option
                    yield from _chosen(folder, inner, option)


def _description(path: Path) -> str:
    """The first comment that is none of Hydra's own."""
    for line in path.read_text(encoding="utf8").splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.removeprefix("#").strip()
    return ""
