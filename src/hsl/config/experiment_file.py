"""`experiment=@plan.yaml`: a preset that lies outside of conf/. It may come from anyone, so it is checked like one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from hsl.config.mistyped import of_key, of_option
from hsl.config.targets import check_targets, named_targets
from hsl.errors import ConfigError
from hsl.files.io import read_yaml
from hsl.options import read_options

GROUP = "experiment"
MARK = "@"
_CHOSEN = "override /"
_NOT_FROM_A_FILE = {"entry": "says which function is called", "hydra": "says how runs are started"}

Compose = Callable[[Sequence[str]], Mapping[str, Any]]
"""Words of the command line -> the config of train.py with them, nothing resolved."""


def named_files(words: Sequence[str]) -> list[str]:
    """The paths behind `experiment=@`, also in a sweep or in a list such as ``overrides=["experiment=@plan.yaml"]``.

    Example:
        >>> named_files(["experiment=@a.yaml,@b/c.yaml", "fold=0", "overrides=['experiment=@d.yaml']"])
        ['a.yaml', 'b/c.yaml', 'd.yaml']
    """
    found: list[str] = []
    for word in words:
        if f"{GROUP}={MARK}" not in word.replace('"', "").replace("'", ""):
            continue
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException:
            continue  # told by Hydra itself, with the rest of the command line
        key, value = override.key_or_group, override.value()
        values = list(getattr(value, "list", value if isinstance(value, list) else [value]))
        texts = [str(getattr(one, "text", one)) for one in values]
        found += [text for text in texts if text.startswith(MARK)] if key == GROUP else _inside(texts)
    return list(dict.fromkeys(path.removeprefix(MARK) for path in found))


def _inside(texts: Sequence[str]) -> list[str]:
    return [text.removeprefix(f"{GROUP}=") for text in texts if text.startswith(f"{GROUP}={MARK}")]


def register_all(words: Sequence[str], conf: Path) -> None:
    """Let Hydra find the files that words name.

    Args:
        words: Of the command line.
        conf: The folder of the configs.

    Raises:
        ConfigError: A file is no preset; see `register`.
        DataError: It is not plain YAML.
    """
    if not (paths := named_files(words)):
        return
    groups = {group: [one.name for one in each] for group, each in read_options(conf).items()}
    known = {group: names for group, names in groups.items() if not group.startswith("hydra/")}

    def content(words: Sequence[str]) -> Any:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf), version_base="1.3"):
            return OmegaConf.to_container(compose("train", list(words)), resolve=False)

    for path in paths:
        register(path, known, named_targets(conf), content)


def register(path: str, options: Mapping[str, Sequence[str]], targets: Sequence[str], compose_train: Compose) -> None:
    """Let Hydra find a file under the word that names it, once it is checked.

    Args:
        path: As it stands behind the mark.
        options: The groups that it may choose from, and their options.
        targets: The callables that it may name, see `hsl.config.targets`.
        compose_train: Composes train.py's config.

    Raises:
        ConfigError: The file is missing, is no preset, or sets what a preset may not; all findings at once.
        DataError: It is not plain YAML.
    """
    content = _read(Path(path))
    chosen = list(_chosen_options(content.pop("defaults", []), path, options))
    check_targets(content, targets, Path(path), "Choose an option of conf/, or write the whole command by hand.")
    findings = [
        f"`{path}` should leave `{key}` alone, which {reason}. Found `{key}` in it. Take it out."
        for key, reason in _NOT_FROM_A_FILE.items()
        if content.pop(key, None) is not None
    ]
    base = compose_train([f"{group}={_word(value)}" for group, value in chosen])
    findings += [f"`{path}`: {of_key(key, f'{key}={value}', base, options)}" for key, value in _unknown(content, base)]
    if findings:
        raise ConfigError(" ".join(findings))
    folder, _, name = f"{MARK}{path}".rpartition("/")
    node = {"defaults": [{f"{_CHOSEN}{group}": value} for group, value in chosen], **content}
    ConfigStore.instance().store(name, node, "/".join([GROUP, folder] if folder else [GROUP]), "_global_")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(
            f"`{GROUP}={MARK}PATH` should name a YAML file. Found none at `{path}`. `hsl plan` writes one; the presets "
            f"of hsl itself are named without `{MARK}`."
        )
    content = yaml.safe_load(read_yaml(path))
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"`{path}` should hold keys and values. Found {type(content).__name__}. See docs/plan.md.")
    return content


def _chosen_options(
    defaults: Any, path: str, options: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str | list[str]]]:
    if not isinstance(defaults, list):
        raise ConfigError(
            f"`{path}`: `defaults` should be a list. Found `{defaults}`. Write `- override /GROUP: OPTION`."
        )
    for entry in defaults:
        pair: tuple[str, Any] = (str(entry), None)
        if isinstance(entry, dict) and len(entry) == 1:
            pair = next(iter(entry.items()))
        key, value = pair
        group = str(key).removeprefix(_CHOSEN)
        names = value if isinstance(value, list) else [value]
        if not str(key).startswith(_CHOSEN) or group not in options or group == GROUP:
            raise ConfigError(
                f"`{path}`: each entry of `defaults` should be `override /GROUP: OPTION`, of a group that `hsl "
                f"options` shows. Found `{entry}`. Correct it."
            )
        if strange := [name for name in names if name not in options[group]]:
            raise ConfigError(f"`{path}`: {of_option(group, str(strange[0]), options[group])}")
        yield group, value


def _word(value: str | list[str]) -> str:
    return f"[{','.join(value)}]" if isinstance(value, list) else value


def _unknown(given: Mapping[str, Any], base: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys that the config lacks, and their values. What is null may become a map, for the call to check."""
    for key, value in given.items():
        path = f"{place}.{key}" if place else str(key)
        if not isinstance(base, Mapping) or key not in base:
            yield path, value
        elif isinstance(value, Mapping) and base[key] is not None:
            yield from _unknown(value, base[key], path)
