"""One trial: its folds trained one after the other, pruned where the pruner says so, and told to the study."""

import errno
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from hsl.verbs.study.fold_runs import Ended, never, run_apart
from hsl.verbs.study.full_disk import says_full
from hsl.verbs.study.spaces import quoted, words_of
from hsl.verbs.study.stored_study import StoredStudy, best_monitored, monitored_epochs
from hsl.verbs.study.trials import Claimed

VALUES, SECONDS, PARAMETERS, WHY = "folds", "seconds", "parameters", "why"
KILLED_OFTEN = 3
"""A training that was killed from outside so often is not begun again: memory does not suffice, most likely."""


@dataclass(frozen=True, eq=False)
class Trials:
    """Runs trials of a study.

    Attributes:
        stored: what it searches.
        study: where trials are kept.
        prune_by: ``folds``, ``epochs`` (of the first fold) or ``None``.
    """

    stored: StoredStudy
    study: optuna.Study
    prune_by: str | None

    def run(self, claimed: Claimed) -> str:
        """Train what is left of a trial, and tell the study.

        Returns:
            A sentence about it.

        Raises:
            OSError: a disk has no room.
        """
        values: dict[int, float] = {}
        facts: list[Any] = []
        for place, fold in enumerate(self.stored.folds):
            found = self._value(claimed, fold)
            if found is None:  # a worker that was killed had not come so far
                ended = self._train(claimed, fold, first=place == 0)
                if ended.stopped:
                    return self._pruned(claimed, "epochs of the first fold")
                found = None if ended.code else self._value(claimed, fold)
            if found is None:
                why = ended.sentence if ended.code else f"it left no `{self.stored.monitor}`"
                if says_full(why):  # every further trial would fail alike
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return self._failed(claimed, f"fold {fold}: {why}")
            values[fold] = found[0]
            facts.append(found[1])
            claimed.trial.set_user_attr(VALUES, {str(key): value for key, value in values.items()})
            last = place == len(self.stored.folds) - 1
            if self.prune_by == "folds" and self._report(claimed, place, found[0]) and not last:
                return self._pruned(claimed, f"{place + 1} of {len(self.stored.folds)} folds")
        return self._complete(claimed, values, facts)

    def _value(self, claimed: Claimed, fold: int) -> tuple[float, Mapping[str, Any]] | None:
        return best_monitored(claimed.folder / f"fold{fold}", self.stored.monitor, self.stored.mode)

    def _train(self, claimed: Claimed, fold: int, *, first: bool) -> Ended:
        runs = claimed.folder / f"fold{fold}"
        log = claimed.folder / f"fold{fold}.log"
        words = [*self.stored.words, *words_of(claimed.point), f"fold={fold}", f"run_dir={quoted(runs)}", "resume=last"]
        watch = self._watch(claimed, runs) if first and self.prune_by == "epochs" else never
        for _ in range(KILLED_OFTEN):
            ended = run_apart("train", words, log, watch)
            if ended.code >= 0 or ended.stopped:
                break
        return ended

    def _watch(self, claimed: Claimed, runs: Path) -> Callable[[], bool]:
        """Reports each epoch as it ends; whether the training is to stop."""
        seen = len(self.study.get_trials(deepcopy=False)[claimed.trial.number].intermediate_values)

        def wants_end() -> bool:
            nonlocal seen
            new = monitored_epochs(runs, self.stored.monitor)[seen:]
            for value in new:
                claimed.trial.report(value, seen)
                seen += 1
            return bool(new) and claimed.trial.should_prune()

        return wants_end

    def _report(self, claimed: Claimed, step: int, value: float) -> bool:
        if step not in self.study.get_trials(deepcopy=False)[claimed.trial.number].intermediate_values:
            claimed.trial.report(value, step)
        return claimed.trial.should_prune()

    def _complete(self, claimed: Claimed, values: dict[int, float], facts: Sequence[Any]) -> str:
        known = {
            "score": statistics.fmean(values.values()),
            PARAMETERS: float(facts[0]["num_parameters"]),
            SECONDS: sum(float(one.get("wall_time_s") or 0.0) for one in facts),
        }
        for name in (PARAMETERS, SECONDS):
            claimed.trial.set_user_attr(name, known[name])
        self.study.tell(claimed.trial, [known[name] for name in self.stored.objectives])
        return (
            f"trial {claimed.trial.number}: {self.stored.monitor} {known['score']:.4f}{spread(list(values.values()))}"
        )

    def _pruned(self, claimed: Claimed, after: str) -> str:
        claimed.trial.set_user_attr(WHY, f"pruned after {after}")
        self.study.tell(claimed.trial, state=TrialState.PRUNED)
        return f"trial {claimed.trial.number}: pruned after {after}"

    def _failed(self, claimed: Claimed, why: str) -> str:
        claimed.trial.set_user_attr(WHY, why)
        self.study.tell(claimed.trial, state=TrialState.FAIL)
        return f"trial {claimed.trial.number}: failed, {why}"


def spread(values: Sequence[float]) -> str:
    """ " ± standard deviation" over folds; nothing of one fold, whose spread is unknown."""
    return f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
