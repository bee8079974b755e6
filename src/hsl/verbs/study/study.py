"""`hsl study`: trials asked of Optuna, trained as runs of the suite, told, and confirmed."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.exceptions import ExperimentalWarning

from hsl.config.validation import validate
from hsl.errors import ConfigError, DataError
from hsl.files.locks import locked
from hsl.metrics.catalogue import read_mode
from hsl.terminal import say
from hsl.verbs.code_version import code_version
from hsl.verbs.study.checks import check_settings, check_trials_compose
from hsl.verbs.study.confirm import confirm
from hsl.verbs.study.fold_runs import never, run_apart
from hsl.verbs.study.full_disk import told_of_a_full_disk
from hsl.verbs.study.grid import most_trials
from hsl.verbs.study.pages.showing import is_done, print_table, status_line
from hsl.verbs.study.pages.study_page import PAGE, write_pages
from hsl.verbs.study.running import Trials
from hsl.verbs.study.spaces import Dimension, as_json, from_json, read_space, whole_of
from hsl.verbs.study.stored_study import (
    STUDY,
    StoredStudy,
    new_study,
    read_study,
    write_study,
)
from hsl.verbs.study.study_storage import code_of, open_storage
from hsl.verbs.study.trials import next_trial

BEGIN = ".begin"


def study(cfg: DictConfig) -> None:
    """Run the trials that are left, confirm the best, and write the page.

    Every call is a worker: the same command on another machine that shares the folder, or more ``study.workers``, share
    the work. A trial whose worker was killed is gone on with from its last epoch.

    Raises:
        ConfigError: the space, the storage or a setting breaks a rule, or is not that of the study.
        DataError: no point is left, or no trial ended well.
    """
    validate(cfg)
    settings = Settings.read(cfg)
    if not (settings.folder / STUDY).is_file():
        check_trials_compose(settings.words, settings.space)
    settings.folder.mkdir(parents=True, exist_ok=True)
    with locked(settings.folder / BEGIN):
        stored, trials = _begin(cfg, settings)
    num_trials = _reachable(settings, trials)
    if settings.workers > 1:
        _run_workers(settings)
    else:
        _work(settings, stored, trials, num_trials)
        if settings.is_helper:
            return
    if not is_done(trials, num_trials):
        say(f"{status_line(trials, stored)}. Others are at work on the rest; the same command goes on where they end.")
        return
    if settings.top:
        confirm(settings.folder, stored, trials, settings.top, settings.seeds)
    write_pages(settings.folder, stored, trials)
    print_table(trials, stored)
    say(f"{settings.folder / PAGE}")


@dataclass(frozen=True)
class Settings:
    """``study`` of the config, read and checked, and what stands behind train.py in every trial."""

    cfg: DictConfig
    folder: Path
    words: tuple[str, ...]
    space: dict[str, Dimension]

    @classmethod
    def read(cls, cfg: DictConfig) -> "Settings":
        """Those of a composed config.

        Raises:
            ConfigError: one breaks a rule; all findings at once.
        """
        check_settings(cfg.study)
        space = read_space(_plain(cfg.study.space))
        words = tuple(_trial_words())
        return cls(cfg, Path(cfg.output_root) / str(cfg.study.name), words, space)

    @property
    def workers(self) -> int:
        """Processes on this machine."""
        return int(self.cfg.study.workers)

    @property
    def num_trials(self) -> int:
        """How many there are to be."""
        return int(self.cfg.study.num_trials)

    @property
    def top(self) -> int:
        """How many are confirmed."""
        return int(self.cfg.study.confirm.top)

    @property
    def seeds(self) -> list[int]:
        """Of the confirmation."""
        return [int(seed) for seed in self.cfg.study.confirm.seeds]

    @property
    def is_helper(self) -> bool:
        """Whether another process of this machine started it, and does the rest."""
        return bool(self.cfg.study.helper)

    @cached_property
    def own_words(self) -> list[str]:
        """What this command was given."""
        return list(HydraConfig.get().overrides.task)


def _reachable(settings: Settings, trials: optuna.Study) -> int:
    """How many trials there are to be: as many as were asked for, or as the space has points."""
    most = most_trials(trials, settings.space)
    if most >= settings.num_trials:
        return settings.num_trials
    if not settings.is_helper:
        say(f"`study.space` has {most} points, fewer than study.num_trials={settings.num_trials}: all are tried.")
    return int(most)


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _trial_words() -> list[str]:
    """The experiment that was chosen, by the study or by the user, and all that is not of the study."""
    choices, parser = HydraConfig.get().runtime.choices, OverridesParser.create()
    given = [word for word in HydraConfig.get().overrides.task if not _is_of_study(parser, word)]
    chosen = choices.get("experiment")
    named = any(word.startswith("experiment=") for word in given)
    return [*([] if chosen in (None, "null") or named else [f"experiment={chosen}"]), *given]


def _is_of_study(parser: OverridesParser, word: str) -> bool:
    key = parser.parse_override(word).key_or_group
    return key.partition(".")[0] in ("study", "sampler", "pruner")


def _begin(cfg: DictConfig, settings: Settings) -> tuple[StoredStudy, optuna.Study]:
    """Open the study, or make it; one process at a time."""
    mode, folder = read_mode(cfg.monitor, cfg.monitor_mode), settings.folder
    facts = {"name": str(cfg.study.name), "words": list(settings.words), "monitor": str(cfg.monitor), "mode": mode,
             "objectives": list(cfg.study.objectives), "folds": list(cfg.study.folds)}  # fmt: skip
    if (folder / STUDY).is_file():
        stored = read_study(folder)
        _check_same(stored, facts)
    else:
        stored = new_study(**facts, space=as_json(settings.space))
    trials = _open(cfg, settings, stored)
    _check_code(code_of(trials, stored), bool(cfg.study.other_code))
    if not (folder / STUDY).is_file():
        write_study(folder, stored)
    return stored, trials


def _open(cfg: DictConfig, settings: Settings, stored: StoredStudy) -> optuna.Study:
    whole = whole_of(settings.space, from_json(stored.space))
    with warnings.catch_warnings():  # of samplers and pruners whose arguments may still change; the lock holds them
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler, pruner = instantiate(cfg.sampler), instantiate(cfg.pruner)
    if callable(sampler):  # of the space itself
        sampler = sampler(whole, settings.space)
    return open_storage(settings.folder, stored, cfg.study.storage, sampler, pruner)


def _check_same(stored: StoredStudy, facts: dict[str, Any]) -> None:
    known = stored.model_dump()
    if unlike := [key for key, value in facts.items() if known[key] != value]:
        found = "; ".join(f"{key} {facts[key]}, there {known[key]}" for key in unlike)
        raise ConfigError(
            f"A study goes on as it began. Found {found}. Give the words that it began with, or another `study.name`."
        )


def _check_code(begun_by: str, other_code: bool) -> None:
    if begun_by != code_version() and not other_code:
        raise ConfigError(
            f"The study was begun by hsl {begun_by}. Found hsl {code_version()}, whose runs may differ. Take that "
            "version, or go on all the same with `study.other_code=true`."
        )


def _work(settings: Settings, stored: StoredStudy, trials: optuna.Study, num_trials: int) -> None:
    """Trial after trial, until none is to be had."""
    whole = whole_of(settings.space, from_json(stored.space))
    running = Trials(stored, trials, settings.cfg.study.prune_by)
    with told_of_a_full_disk(settings.folder):
        while claimed := next_trial(trials, settings.folder, stored.id, whole, settings.space, num_trials):
            try:
                say(running.run(claimed))
            finally:
                claimed.release()
            say(status_line(trials, stored, num_trials))


def _run_workers(settings: Settings) -> None:
    """The same command in further processes; one that is killed is replaced, and its trial goes on."""
    words = [*settings.own_words, "study.workers=1", "study.helper=true"]
    with ThreadPoolExecutor(settings.workers) as pool:
        list(pool.map(_keep_running, [words] * settings.workers))


def _keep_running(words: Sequence[str]) -> None:
    while (ended := run_apart("study", words, None, never)).code < 0:
        say(f"a worker was ended by signal {-ended.code}; another takes its place", error=True)
    if ended.code:
        raise DataError(
            "A worker of the study ended early, for the reason above. Mend it, and start the same command again."
        )
