"""The table of the tasks: the scores of each head of a network that has several, beside those of all fused.

Scores over the classes that a task groups are read off the global space in which all models are scored.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hsl.reports.models import Model
from hsl.reports.scores import Scores
from hsl.reports.statistics.paired_tests import Summary, mean_std
from hsl.reports.tables.score_tables import Cell, Column, Table
from hsl.reports.tables.titles import kind_of, title_of
from hsl.run_folder.run import Run, ScoredOn

NAMED = 3  # tasks that a heading names; more are counted
SCORES = ("miou", "mean_dice", "pixel_accuracy", "boundary_f1", "ece")


def task_table(models: Sequence[Model], on: ScoredOn) -> Table:
    """A row per model for the classes in which all are scored, with the H-mean over tasks, then one per task.

    The H-mean is over the same tasks in every model: those that all call primary, and where these are not all, all. A
    model of one head that no task reads has the first row only.
    """
    shared = _shared_tasks(models)
    columns = [Column("model", "model"), Column("task", "task"), Column("role", "role")]
    columns.append(Column("classes", "classes", "count"))
    columns += [Column(name, title_of(name), kind_of(name)) for name in SCORES]
    columns += [Column("classes_ungrouped", "classes, ungrouped", "count")]
    columns += [Column("miou_ungrouped", "mIoU, ungrouped (%)", "share")]
    columns += [
        Column(key, f"H-mean of the mIoU of {_named(key, tasks)} (%)", "share") for key, tasks in shared.items()
    ]
    rows: list[Sequence[Cell]] = []
    for model in models:
        if not model.finished:
            continue
        pooled = any(run.overlapping for run in model.finished.values())
        role = "pooled" if pooled else "one head" if _is_flat(model) else "fused"
        means = [model.h_mean(on, tasks) for tasks in shared.values()]
        rows.append([*_row(model, "global", role, model, on), None, None, *means])
        for task in model.tasks:
            role = "primary" if task in model.primary else "auxiliary"
            role = f"{role}, read from the one head" if _is_flat(model) else role
            row = _row(model, task, role, model.on_task(task), on)
            rows.append([*row, *ungrouped(model, task, on), *[None for _ in shared]])
    caption = (
        f"Scores of every task, {on} inference, from the pixel counts of the task. Mean ± sample "
        "standard deviation over folds. Global: the heads fused into the classes that models of one head are scored on "
        "too; of overlapping channels, all of them pooled. A model of one head is scored on a task by the classes that "
        "it predicts, as the task reads them. Ungrouped: over the classes that the task puts together, each by itself "
        "and all that it does not name as one, read off the global classes. H-mean: harmonic mean over tasks, per run, "
        "over the same tasks in every model. Tasks have unlike classes: compare their scores between models, not with "
        "one another."
    )
    return Table("tasks", caption, columns, rows)


def _shared_tasks(models: Sequence[Model]) -> dict[str, list[str]]:
    """The tasks of the H-means: those that are primary in every model that has tasks, and all that they share."""
    having = [model for model in models if model.tasks]
    everywhere = [task for task in having[0].tasks if all(task in one.tasks for one in having)] if having else []
    primary = [task for task in everywhere if all(task in one.primary for one in having)]
    return {"h_mean": primary} | ({"h_mean_all": everywhere} if primary != everywhere else {})


def _named(key: str, tasks: Sequence[str]) -> str:
    if len(tasks) <= NAMED:
        return " and ".join([", ".join(tasks[:-1]), tasks[-1]] if len(tasks) > 1 else tasks) or "no common task"
    return f"all {len(tasks)} tasks" if key == "h_mean_all" else f"the {len(tasks)} primary tasks"


def _is_flat(model: Model) -> bool:
    """Whether it has one dense head: none of its own for any task."""
    task = next((run.config.get("task") for run in model.finished.values()), None)
    heads = task.get("network", {}).get("heads", {}) if isinstance(task, Mapping) else {}
    return not model.tasks or (bool(heads) and "_target_" not in heads)


def _row(model: Model, task: str, role: str, scored: Model, on: ScoredOn) -> list[Cell]:
    scores: list[Cell] = [scored.summary(name, on) for name in SCORES]
    return [model.label, task, role, len(scored.classes), *scores]


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
