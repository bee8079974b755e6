"""Scores of a task over the classes that it groups, read off the global space in which all models are scored."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hsl.reports.models import Model
from hsl.reports.scores import Scores
from hsl.reports.statistics.paired_tests import Summary, mean_std
from hsl.run_folder.run import Run, ScoredOn


def ungrouped(model: Model, task: str, on: ScoredOn) -> tuple[int | None, Summary]:
    """How many classes a task has before it groups them, its background included, and their mIoU over folds.

    The confusion matrix is that of the global space, where the heads of a network are fused and a flat one predicts;
    the classes that the task does not name are one. Each other class counts by itself: of branching coral, say, that
    which is alive and that which is dead. NaN where a run does not tell how its tasks read the classes.
    """

    def of_run(run: Run) -> float | None:
        named, matrix = named_by(run, task), run.confusion(on)
        if named is None or matrix is None or len(named) != len(matrix):
            return None
        return Scores.of(merged(matrix, named)).overall["miou"]

    folds = {} if model.refused else model.per_fold(of_run)
    numbers = {1 + int(named.sum()) for run in model.finished.values() if (named := named_by(run, task)) is not None}
    return next(iter(numbers)) if len(numbers) == 1 else None, mean_std(
        [mean_std(each).mean for each in folds.values()]
    )


def named_by(run: Run, task: str) -> NDArray[np.bool_] | None:
    """``(C,)``: whether a task names, so does not call background, each class of the global space; none: not known."""
    tables, members = run.provenance.get("source_tables"), run.provenance.get("members")
    if not isinstance(tables, dict) or task not in tables or not members or len(tables[task]) != len(members):
        return None
    if run.overlapping:  # the heads read codes, and group none of the channels
        return None
    found = np.zeros(max(members) + 1, dtype=np.bool_)
    found[np.array(members)[np.array(tables[task]) > 0]] = True
    return found


def merged(matrix: NDArray[np.int64], kept: Sequence[bool] | NDArray[np.bool_]) -> NDArray[np.int64]:
    """A confusion matrix in which the classes that are not kept are one, the first.

    >>> merged(np.array([[5, 1, 2], [1, 7, 0], [3, 0, 9]]), [False, True, False])
    array([[19,  1],
           [ 1,  7]])
    """
    place = np.where(kept, np.cumsum(kept), 0)
    total = np.zeros((int(np.sum(kept)) + 1,) * 2, np.int64)
    np.add.at(total, (place[:, None], place[None, :]), matrix)
    return total
