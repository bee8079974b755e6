"""The phases of a run as they are written, and everything that is wrong with them before the first one starts."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from hsl.callbacks.freeze import freeze
from hsl.callbacks.rollback_gate import RollbackGate
from hsl.config.calls import check_calls
from hsl.config.validation import validate
from hsl.data.datamodule import DataModule
from hsl.errors import ConfigError
from hsl.metrics.catalogue import read_mode
from hsl.verbs.opening.building import build_task
from hsl.verbs.train.setup import check_training, make_callbacks

OF_THE_RUN = ("name", "seed", "fold", "resume", "rerun", "entry", "output_root", "run_dir", "cache_dir",
              "data.root", "data.reader", "data.split", "data.fold", "data.tasks", "data.image_labels")  # fmt: skip
"""What no phase may change: which pictures, whose classes, which folder."""


class PhaseRules(BaseModel):
    """The keys of one phase."""

    model_config = ConfigDict(strict=True, extra="forbid")
    freeze: list[str] = []
    refine: bool = False
    overrides: dict[str, Any] = {}


@dataclass(frozen=True)
class Phase:
    """One fit of a run: its config, what it leaves as it is, and whether pseudo-labels are predicted anew after it."""

    name: str
    freeze: tuple[str, ...]
    refine: bool
    cfg: DictConfig


def read_phases(cfg: DictConfig) -> list[Phase]:
    """The phases of a config in their order; none without ``phases``.

    The config of a phase is that of the run with the phase's own ``overrides``; those of other phases do not count.

    Raises:
        ConfigError: a key is unknown or cannot be changed by a phase, or labels are refined where nothing follows.
    """
    content: Any = OmegaConf.to_container(cfg.phases) if cfg.get("phases") else {}
    phases = []
    for name, node in content.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]+", str(name)):
            raise ConfigError(f"`phases` should have names of letters, digits, - and _. Found `{name}`.")
        try:
            rules = PhaseRules.model_validate(node or {})
        except ValidationError as error:
            found = error.errors()[0]
            key = ".".join(["phases", str(name), *(str(part) for part in found["loc"])])
            raise ConfigError(f"`{key}`: {found['msg'].lower()}. A phase has freeze, refine and overrides.") from None
        phases.append(Phase(str(name), tuple(rules.freeze), rules.refine, _overridden(cfg, str(name), rules.overrides)))
    refining = [phase.name for phase in phases if phase.refine]
    if refining and not isinstance(phases[0].cfg.trainer.max_epochs, int):
        raise ConfigError("`trainer.max_epochs` should be a number where labels are refined: a round takes half of it.")
    if len(refining) > 1 or (refining and refining[0] == phases[-1].name):
        raise ConfigError(
            f"`refine` should be true in one phase at most, and not in the last: the labels are for those that follow. "
            f"Found it in {', '.join(refining)}."
        )
    return phases


def round_epochs(max_epochs: int) -> int:
    """Epochs of a round that trains on refined labels."""
    return max(1, max_epochs // 2)


def check_phases(cfg: DictConfig, data: DataModule, task: nn.Module) -> None:
    """Build every part of every phase once and throw it away, so that no mistake waits until hours have passed.

    Args:
        cfg: of the run.
        data: prepared.
        task: built with ``cfg``.

    Raises:
        ConfigError: a phase breaks a rule of any config, freezes everything, changes the model, or asks for several
            devices; a gate watches a phase that does not exist.
    """
    phases = read_phases(cfg)
    for gate in _gates(cfg):
        if unknown := sorted(set(gate.phases or ()) - {phase.name for phase in phases}):
            raise ConfigError(
                f"`rollback_gate.phases` should name phases of the run. Found {', '.join(unknown)}. "
                f"`phases` has {', '.join(phase.name for phase in phases) or 'none'}."
            )
    for phase in phases:
        try:
            validate(phase.cfg)
            check_calls(cast(Any, OmegaConf.to_container(phase.cfg, resolve=True)))
            read_mode(phase.cfg.monitor, phase.cfg.monitor_mode)
            _check_rounds(phase)
            _check_parts(phase, data, task)
        except ConfigError as error:
            raise ConfigError(f"Phase {phase.name}: {error}") from error


def _check_rounds(phase: Phase) -> None:
    every, epochs = phase.cfg.trainer.check_val_every_n_epoch, round_epochs(phase.cfg.trainer.max_epochs)
    if phase.refine and every > epochs:
        raise ConfigError(
            f"`trainer.check_val_every_n_epoch` should be at most {epochs}, half of `trainer.max_epochs`, where labels "
            "are "
            f"refined: a round trains for so long. Found `trainer.check_val_every_n_epoch = {every}`."
        )


def _check_parts(phase: Phase, data: DataModule, task: nn.Module) -> None:
    cfg = phase.cfg
    trainer = instantiate(cfg.trainer)(logger=False, callbacks=[])
    if trainer.world_size > 1:
        # each further process would have to find out by itself which phase is under way
        raise ConfigError(
            f"`trainer.devices` should be 1 in a run of phases. Found {trainer.world_size} processes. Run the folds of "
            "a cross-validation beside each other instead."
        )
    own = build_task(cfg, data.prepared)
    if _shapes(own) != _shapes(task):
        raise ConfigError("`overrides` should leave the model as it is: its weights are handed on. Found another one.")
    for module in freeze(own.network, phase.freeze):
        module.eval()
    check_training(cfg, data, own)


def _gates(cfg: DictConfig) -> list[RollbackGate]:
    return [one for one in make_callbacks(cfg).values() if isinstance(one, RollbackGate)]


def _overridden(cfg: DictConfig, name: str, overrides: Mapping[str, Any]) -> DictConfig:
    own = copy.deepcopy(cfg)
    own.phases = None
    OmegaConf.set_struct(own, True)
    for key, value in overrides.items():
        place, dot, last = key.rpartition(".")
        node = OmegaConf.select(own, place, throw_on_resolution_failure=False) if place else own
        unknown = _unknown(node, last, value)
        if unknown is None:
            try:
                OmegaConf.update(own, key, value)
            except OmegaConfBaseException:
                unknown = last
        if unknown is not None:
            raise ConfigError(
                f"`phases.{name}.overrides` should name keys of the config. Found `{place}{dot}{unknown}`. "
                "`--cfg job` shows all keys; below a part that is null there are none."
            )
    for key in OF_THE_RUN:
        if _plain(own, key) != _plain(cfg, key):
            raise ConfigError(
                f"`phases.{name}.overrides` should leave `{key}` as it is: it belongs to the whole run. "
                f"Found `{_plain(own, key)}`."
            )
    return own


def _unknown(node: Any, name: str, value: Any) -> str | None:
    """The dotted key, from ``node`` on, of what a nested map names and the config lacks; ``None``: there is nothing."""
    if not isinstance(node, DictConfig) or name not in node:
        return name
    if isinstance(value, Mapping) and isinstance(node[name], DictConfig):
        for key, inner in value.items():
            if (unknown := _unknown(node[name], str(key), inner)) is not None:
                return f"{name}.{unknown}"
    return None


def _plain(cfg: DictConfig, key: str) -> Any:
    value = OmegaConf.select(cfg, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _shapes(task: nn.Module) -> dict[str, Any]:
    state = task.state_dict()
    return {name: tuple(value.shape) if isinstance(value, Tensor) else None for name, value in state.items()}
