"""The confirmation round: the best trials trained again with fresh seeds, and compared by the rules of every report."""

from collections.abc import Sequence
from pathlib import Path

import optuna

from hsl.errors import DataError
from hsl.files.locks import locked
from hsl.terminal import say
from hsl.verbs.study.fold_runs import never, run_apart
from hsl.verbs.study.pages.showing import best_first
from hsl.verbs.study.spaces import quoted, words_of
from hsl.verbs.study.stored_study import CONFIRMED, LOCK, REPORT, StoredStudy, best_monitored


def confirm(folder: Path, stored: StoredStudy, study: optuna.Study, top: int, seeds: Sequence[int]) -> None:
    """Train the best ``top`` trials again with each seed on each fold, and write a report of these runs alone.

    The trials themselves are not part of it: the best of many is best by luck, too. What is trained already is not
    trained again.

    Raises:
        DataError: a training did not end well.
    """
    chosen = best_first(study, stored)[:top]
    if not chosen:
        raise DataError(
            f"A study should have a trial that ended well. Found none of {len(study.trials)}. `trials.csv` says why."
        )
    place = folder / CONFIRMED
    place.mkdir(parents=True, exist_ok=True)
    with locked(place / LOCK):
        for trial in chosen:
            for seed in seeds:
                for fold in stored.folds:
                    runs = place / f"trial{trial.number}" / f"seed{seed}" / f"fold{fold}"
                    if best_monitored(runs, stored.monitor, stored.mode) is None:
                        _train(stored, [*words_of(trial.params), f"seed={seed}", f"fold={fold}"], runs)
                say(f"confirmed trial {trial.number} with seed {seed}")
        if len(chosen) > 1:
            _report(folder, place)


def _train(stored: StoredStudy, words: Sequence[str], runs: Path) -> None:
    runs.mkdir(parents=True, exist_ok=True)
    log = runs.with_name(f"{runs.name}.log")
    ended = run_apart("train", [*stored.words, *words, f"run_dir={quoted(runs)}", "resume=last"], log, never)
    if ended.code:
        raise DataError(
            f"`{runs}`: the confirmation should end well. Found: {ended.sentence}. Start the same command again."
        )


def _report(folder: Path, place: Path) -> None:
    log = folder / f"{REPORT}.log"
    words = [f"runs={quoted(place)}", f"output={quoted(folder / REPORT)}"]
    ended = run_apart("report", words, log, never)
    if ended.code:
        raise DataError(f"The report of the confirmation should end well. Found: {ended.sentence}.")
