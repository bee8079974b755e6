"""What `hsl plan` is given: time, memory, orientation and candidates; and the words about the data, for the plans."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from hsl.errors import ConfigError
from hsl.verbs.plan.rules import ORIENTATIONS

_SECONDS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


@dataclass(frozen=True)
class Given:
    """The command line of a plan: seconds, bytes (``None``: what is free) and what is known of the orientation."""

    seconds: float
    memory: float | None
    orientation: str


def read_given(cfg: DictConfig) -> Given:
    """Refuse what breaks a rule; all findings at once.

    Raises:
        ConfigError: there is some.
    """
    findings = []
    seconds = _amount(cfg.time, _SECONDS)
    if not seconds or seconds < 60:
        findings.append(
            f"`time` should be a minute or more, such as 90min, 8h or 2d. Found `time = {cfg.time}`. Say what you have."
        )
    memory = None if cfg.memory == "auto" else _amount(cfg.memory, _BYTES)
    if (memory is None and cfg.memory != "auto") or memory == 0:
        findings.append(f"`memory` should be auto, or a size such as 8GiB. Found `memory = {cfg.memory}`.")
    if cfg.orientation not in ORIENTATIONS:
        findings.append(
            f"`orientation` should be one of {', '.join(ORIENTATIONS)}. Found `orientation = {cfg.orientation}`."
        )
    for key in ("encoders", "decoders"):
        value = cfg[key]
        if not OmegaConf.is_list(value) or not value or not all(isinstance(one, str) for one in value):
            findings.append(f"`{key}` should list options of `{key[:-1]}`, one at least. Found `{key} = {value}`.")
    findings += [finding for name, plan in cfg.plans.items() for finding in _of_plan(str(name), plan)]
    if findings:
        raise ConfigError(" ".join(findings))
    return Given(float(seconds or 0), memory, str(cfg.orientation))


def _of_plan(name: str, plan: DictConfig) -> Iterator[str]:
    share, folds = plan.get("share"), plan.get("folds")
    if not isinstance(share, int | float) or not 0 < share <= 1:
        yield f"`plans.{name}.share` should be above 0 and at most 1, of `time`. Found `{share}`."
    if folds != "all" and not (type(folds) is int and folds >= 1):
        yield f"`plans.{name}.folds` should be all, or a whole number from 1. Found `{folds}`."


def _amount(text: Any, units: Mapping[str, int]) -> float | None:
    found = _AMOUNT.fullmatch(str(text))
    unit = None if found is None else next((one for one in units if one.lower() == found[2].lower()), None)
    return None if found is None or unit is None else float(found[1]) * units[unit]


def data_words() -> tuple[dict[str, Any], dict[str, Any]]:
    """What this command was told of the data: options by group, and values by dotted key.

    Raises:
        ConfigError: a word adds or deletes a key, which a plan cannot repeat.
    """
    hydra = HydraConfig.get()
    options: dict[str, Any] = {"data": hydra.runtime.choices["data"]}
    values: dict[str, Any] = {}
    for override in OverridesParser.create().parse_overrides(list(hydra.overrides.task)):
        key = override.key_or_group
        if key.split(".")[0].split("/")[0] != "data":
            continue
        if override.is_add() or override.is_force_add() or override.is_delete():
            raise ConfigError(
                f"A plan repeats what it is told of the data, and can only set keys that there are. Found "
                f"`{override.input_line}`. Leave it out here, and give it to `hsl train` beside the plan."
            )
        (values if "." in key else options)[key] = _plain(override.value())
    return options, values


def _plain(value: Any) -> Any:
    """Quoted strings of Hydra as text."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(one) for key, one in value.items()}
    return getattr(value, "text", value)
