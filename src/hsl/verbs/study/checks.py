"""What a study is asked before anything is trained: its settings, and whether every end of its space composes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hsl.config.calls import check_calls, check_values
from hsl.config.ranges import KEYS
from hsl.config.signatures import check_values_of_ours
from hsl.config.validation import validate
from hsl.errors import ConfigError, user_sentence
from hsl.terminal import say
from hsl.verbs.study.spaces import Dimension, Value, words_of

_NO_KEY = re.compile(r"Could not override '([^']+)'.*")
OBJECTIVES = ("score", "parameters", "seconds")
FIRST_PRUNED_FOLD = 4  # of a signed-rank test: one in 2^4 is the first p below 0.1


def check_settings(study: DictConfig) -> None:
    """Refuse settings that break a rule; all findings at once.

    Raises:
        ConfigError: there are some.
    """
    findings = [
        f"`study.{key}` should be a whole number, {least} at least. Found `{OmegaConf.select(study, key)}`."
        for key, least in (("num_trials", 1), ("workers", 1), ("confirm.top", 0))
        if not _is_whole(OmegaConf.select(study, key), least)
    ]
    if not isinstance(study.name, str) or not study.name or study.name.startswith(".") or "/" in study.name:
        findings.append(f"`study.name` should be a name for a folder. Found `{study.name}`.")
    for key in ("folds", "confirm.seeds"):
        values = OmegaConf.select(study, key)
        whole = (
            OmegaConf.is_list(values) and all(_is_whole(one, 0) for one in values) and len(set(values)) == len(values)
        )
        if not whole or not len(values):
            findings.append(
                f"`study.{key}` should list whole numbers from 0, one at least, none twice. Found `{values}`."
            )
    objectives = study.objectives
    known = OmegaConf.is_list(objectives) and len(objectives) and set(objectives) <= set(OBJECTIVES)
    if not known or len(set(objectives)) < len(objectives):
        findings.append(f"`study.objectives` should list some of {', '.join(OBJECTIVES)}. Found `{objectives}`.")
    elif (len(objectives) > 1 or "score" not in objectives) and study.prune_by is not None:
        findings.append(
            f"Only a study of the score alone can be pruned. Found `study.objectives = "
            f"{list(objectives)}`. Set `pruner=none`."
        )
    if findings:
        raise ConfigError(" ".join(findings))
    if study.prune_by == "folds" and len(study.folds) <= FIRST_PRUNED_FOLD:
        say(
            f"! Nothing is pruned: with {len(study.folds)} folds a signed-rank test cannot tell before the last one "
            f"({FIRST_PRUNED_FOLD} are needed before it). Prune by epochs: pruner=median"
        )


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_trials_compose(words: Sequence[str], space: Mapping[str, Dimension]) -> None:
    """Compose train.py's config at both ends of every dimension: a wrong key or option is found now, not in trial 17.

    Raises:
        ConfigError: some do not compose, or break a rule; all findings at once.
    """
    findings = []
    for dimension in space.values():
        for value in dict.fromkeys(dimension.ends):
            point = {**_needed(dimension, space), dimension.key: value}
            if told := _told([*words, *words_of(point)]):
                findings.append(f"`study.space.{dimension.key}` cannot be {value}: {told}")
                break
    if findings:
        raise ConfigError(" ".join(findings))


def _needed(dimension: Dimension, space: Mapping[str, Dimension]) -> dict[str, Value]:
    """A point of the dimensions without which this one does not vary."""
    needed: dict[str, Value] = {}
    for key, values in dimension.when.items():
        needed |= {**_needed(space[key], space), key: values[0]}
    return needed


def _told(words: Sequence[str]) -> str | None:
    """What is wrong with words of train.py; ``None``: nothing that can be seen without data."""
    try:
        cfg = compose("train", list(words))
        validate(cfg)
        content: Any = OmegaConf.to_container(cfg, resolve=True)
        check_values(content, KEYS)
        check_values_of_ours(content)
        check_calls(content)
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        if isinstance(error, ConfigError):
            return user_sentence(error)
        if isinstance(error, MissingConfigException) and error.missing_cfg_file:
            group, _, name = error.missing_cfg_file.rpartition("/")
            return f"`{group}` has no option `{name}`. `hsl options {group}` lists those that it has."
        return _NO_KEY.sub(
            r"the config has no key `\1`. `python train.py --cfg job` shows all.", str(error).partition("\n")[0]
        )
    return None
