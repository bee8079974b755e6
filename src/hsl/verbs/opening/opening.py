"""Opening a run folder, which may come from anyone: its config is data, and builds only what conf/ names."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hsl.config.calls import check_calls
from hsl.config.moved import with_present_targets
from hsl.config.targets import check_targets
from hsl.errors import ConfigError, user_sentence
from hsl.files.io import read_yaml
from hsl.models.state_dict import first_line
from hsl.run_folder.layout import CONFIG, PROVENANCE
from hsl.verbs.opening.places import config_of

_NEEDED = ("callbacks", "data", "encoder", "trainer", "task.network.encoder", "task.network.heads")
_SCORING = ("_target_", "_partial_", "accelerator", "precision", "deterministic", "benchmark",
            "enable_model_summary", "use_distributed_sampler")  # fmt: skip
_UNFIT = (InstantiationException, TypeError, ValueError, LookupError, AttributeError, RuntimeError, MemoryError,
          ArithmeticError, AssertionError, ImportError)  # fmt: skip


def open_run(path: str, allowed: Collection[str]) -> tuple[Path, DictConfig]:
    """A run folder and its config, of which only what is allowed can be built, see `hsl.config.targets`.

    Logger, caches and what else of the trainer writes are taken out: a command writes where its own user says.

    Args:
        path: the folder.
        allowed: the callables that its config may name.

    Raises:
        ConfigError: it is not a run folder, or its config calls what is not allowed or what this version does not have.
        DataError: the config cannot be read.
    """
    file = config_of(path)
    run = file.parent
    text = read_yaml(file)
    try:
        cfg = OmegaConf.create(text)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"`{file}` is not a config: {first_line(error)}. Restore it, or make the run anew.") from None
    content = with_present_targets(OmegaConf.to_container(cfg))
    check_targets(content, allowed, file)
    if lacking := [key for key in _NEEDED if not isinstance(_at(content, key), dict)]:
        raise ConfigError(f"`{file}` should be the config of a run. Found no map `{lacking[0]}` in it. Restore it.")
    try:
        check_calls(content)
    except ConfigError as error:
        raise ConfigError(
            f"`{run}` should be a run of this version of hsl. {error} Take the version that {PROVENANCE} names, "
            f"or correct {CONFIG}."
        ) from None
    return run, _harmless(OmegaConf.create(content))


def place_data(cfg: DictConfig, data_root: str | None, cache_dir: str | None) -> None:
    """Say where the data of a run lie, and where this command keeps what it finds out about them.

    What its teachers said is for its training alone, and may be gone.

    Args:
        cfg: the config of the run; changed.
        data_root: where they lie now; ``None``: where they were. A place with nothing in it is not taken from a run
            folder: some readers would draw or fetch the data there.
        cache_dir: for the scan, the split and decoded pictures.

    Raises:
        ConfigError: the data are not where they were.
    """
    root = cfg.data.get("root")
    if data_root is None and not (isinstance(root, str) and Path(root).exists()):
        raise ConfigError(
            f"`data_root` should say where the data of the run lie now. Found nothing at `data.root = {root}`, where "
            "they were. Give `data_root=FOLDER`; for a data set of the hub its name."
        )
    cfg.data.root, cfg.data.teachers = data_root or root, None
    _set_cache_dir(cfg.data, cache_dir)


@contextmanager
def building_from(run: Path) -> Iterator[None]:
    """Whatever the parts of a run folder raise while they are put together is a fault of the folder, in one sentence.

    Raises:
        ConfigError: its config and its provenance do not make a model.
    """
    try:
        yield
    except _UNFIT as error:
        found = f"{type(error).__name__}: {first_line(error)[:300]}"
        raise ConfigError(
            user_sentence(error)
            or f"`{run}` should hold a config and a provenance that belong together. Found: {found}. Restore them."
        ) from error


def _at(content: Any, key: str) -> Any:
    """The value of a dotted key; ``None`` where there is none."""
    for word in key.split("."):
        content = content.get(word) if isinstance(content, dict) else None
    return content


def _harmless(cfg: DictConfig) -> DictConfig:
    cfg.logger = None
    trainer = {key: value for key, value in cfg.trainer.items() if key in _SCORING and not OmegaConf.is_config(value)}
    cfg.trainer = trainer
    _set_cache_dir(cfg.data, None)
    for node in _maps(cfg.task):
        if {"name", "weights"} <= node.keys():
            node.weights = None  # of an encoder: a checkpoint takes their place, so none are read or fetched
    return cfg


def _set_cache_dir(data: DictConfig, cache_dir: str | None) -> None:
    for node in _maps(data):
        if "cache_dir" in node:
            node.cache_dir = cache_dir


def _maps(node: Any) -> Iterator[DictConfig]:
    """A map and every one below it."""
    if isinstance(node, DictConfig):
        yield node
    if OmegaConf.is_config(node):
        for value in node.values() if isinstance(node, DictConfig) else node:
            yield from _maps(value)
