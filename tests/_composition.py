"""Hydra composes a config of 45 files in 0.2 s, and the tests compose 900: what is the same each time is kept."""

import copy
from collections.abc import Callable
from typing import Any

from hydra._internal import config_loader_impl as loader
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import DefaultsList

from hsl.cli import conf_dir


def remember_compositions() -> None:
    """Keep in this process each file, the files that a choice of options leads to, and these as one config.

    Only of our own conf/, which does not change meanwhile. Values are set anew; a mistake is not kept.
    """
    composer = loader.ConfigLoaderImpl
    ConfigRepository.load_config = copies_of(
        ConfigRepository.load_config, lambda repo, config_path: (repo, config_path)
    )
    composer._compose_config_from_defaults_list = copies_of(
        composer._compose_config_from_defaults_list, lambda _, defaults, repo: (repo, repr(defaults))
    )
    loader.create_defaults_list = lists_of_choices(loader.create_defaults_list)


def copies_of(compute: Callable[..., Any], arguments_of: Callable[..., tuple[Any, str]]) -> Callable[..., Any]:
    kept: dict[str, Any] = {}

    def load(*given: Any, **named: Any) -> Any:
        repo, key = arguments_of(*given, **named)
        if not ours(repo):
            return compute(*given, **named)
        if key not in kept:
            kept[key] = compute(*given, **named)
        return copy.deepcopy(kept[key])

    return load


def lists_of_choices(compute: Callable[..., DefaultsList]) -> Callable[..., DefaultsList]:
    kept: dict[Any, DefaultsList] = {}

    def create(repo: Any, config_name: Any, overrides_list: Any, prepend_hydra: bool, skip_missing: bool) -> Any:
        if not ours(repo):
            return compute(repo, config_name, overrides_list, prepend_hydra, skip_missing)
        chosen = [one for one in overrides_list if repo.group_exists(one.key_or_group)]
        key = (config_name, prepend_hydra, skip_missing, *(one.input_line for one in chosen))
        if key not in kept:
            kept[key] = compute(repo, config_name, chosen, prepend_hydra, skip_missing)
        of_chosen, sweeps = kept[key].config_overrides, [one for one in overrides_list if one.is_sweep_override()]
        values = [one for one in overrides_list if one in of_chosen or one not in [*chosen, *sweeps]]
        return DefaultsList(kept[key].defaults, kept[key].defaults_tree, values, kept[key].overrides)

    return create


def ours(repo: Any) -> bool:
    places = [one.path.removeprefix("file://") for one in repo.get_sources() if one.scheme() == "file"]
    return places == [str(conf_dir())]
