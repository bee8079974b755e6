"""Which trial a worker takes: one that a dead worker left, or a new point that nobody tried."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from hsl.errors import DataError
from hsl.files.locks import locked, try_lock
from hsl.verbs.study.spaces import Dimension, Value, drawn_points, fits, point_key, suggest
from hsl.verbs.study.stored_study import LOCK, trial_folder

PLACE, PASSED = "place", "passed over"
UNNAMED_S = 5.0  # for which a trial without a place may be one that is just asked for
MAX_PASSED = 200
"""Points in a row that were tried before, or lie outside of a narrowed space."""


@dataclass(frozen=True, eq=False)
class Claimed:
    """A trial of this process: nobody else has it until the process ends or `release`s it.

    Attributes:
        trial: as Optuna knows it.
        point: key -> value.
        folder: of its runs.
        again: whether another worker had begun it.
    """

    trial: Trial
    point: Mapping[str, Value]
    folder: Path
    again: bool
    lock: IO[str]

    def release(self) -> None:
        """Let others have it."""
        self.lock.close()


def is_counted(trial: FrozenTrial) -> bool:
    """Whether a trial is one of ``study.num_trials``; a point that was passed over is none."""
    return PASSED not in trial.system_attrs and PASSED not in trial.user_attrs


def next_trial(
    study: optuna.Study,
    folder: Path,
    place: str,
    space: Mapping[str, Dimension],
    allowed: Mapping[str, Dimension],
    num_trials: int,
) -> Claimed | None:
    """Take a trial, one process at a time.

    Args:
        study: where trials are kept.
        folder: of the study.
        place: the id of that folder.
        space: what is drawn from.
        allowed: what a point has to lie in, see `hsl.verbs.study.spaces.fits`.
        num_trials: how many there may be.

    Returns:
        ``None`` where all trials are done or with other workers.

    Raises:
        DataError: no new point was found.
    """
    with locked(folder / LOCK):
        if left := _left_behind(study, folder, place, space):
            return left
        for _ in range(MAX_PASSED):
            if sum(map(is_counted, study.get_trials(deepcopy=False))) >= num_trials:
                return None
            tried = drawn_points(study)
            trial = study.ask()
            trial.set_user_attr(PLACE, place)
            point = suggest(trial, space)
            earlier = tried.get(point_key(trial.params))
            if earlier is None and fits(point, allowed):
                return _claim(trial, point, trial_folder(folder, trial.number), again=False)
            reason = "outside of the narrowed space" if earlier is None else f"the point of trial {earlier}"
            trial.set_user_attr(PASSED, reason)
            study.tell(trial, state=TrialState.FAIL)
    raise DataError(
        f"`study.space` should have points that were not tried. Found none in {MAX_PASSED} draws; "
        f"{len(drawn_points(study))} were. Take `sampler=grid`, which finds the last "
        "ones of a space of few points, widen it under another `study.name`, or take `study.num_trials` back."
    )


def _left_behind(study: optuna.Study, folder: Path, place: str, space: Mapping[str, Dimension]) -> Claimed | None:
    """A running trial whose worker is gone: its lock is free. One of another machine's folder is left alone.

    The times of trials are those of other machines' clocks, which may be hours off: none is compared with this one's.
    """
    unnamed = _unnamed(study)
    if unnamed:
        time.sleep(UNNAMED_S)
        unnamed &= _unnamed(study)
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        runs = trial_folder(folder, frozen.number)
        if frozen.user_attrs.get(PLACE) != place and frozen.number not in unnamed:
            continue
        trial = Trial(study, frozen._trial_id)  # the only way to go on with a trial
        runs.mkdir(parents=True, exist_ok=True)
        lock = try_lock(runs / LOCK)
        if lock is None:
            continue
        trial.set_user_attr(PLACE, place)
        return Claimed(trial, suggest(trial, space), runs, again=True, lock=lock)
    return None


def _unnamed(study: optuna.Study) -> set[int]:
    """Running trials that no worker took: each was only just asked for, or its worker died on the way."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return {trial.number for trial in running if PLACE not in trial.user_attrs}


def _claim(trial: Trial, point: Mapping[str, Value], runs: Path, *, again: bool) -> Claimed:
    runs.mkdir(parents=True, exist_ok=True)
    lock = try_lock(runs / LOCK)
    if lock is None:
        raise DataError(
            f"`{runs}` should be free for a new trial. Found another process in it. Give the study "
            "another `study.name`."
        )
    return Claimed(trial, point, runs, again, lock)
