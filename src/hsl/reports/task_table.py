"""The table of the tasks: the scores of each head of a network that has several, beside those of all fused."""

from collections.abc import Sequence

from hsl.reports.contents import KINDS, TITLES
from hsl.reports.results import Model
from hsl.reports.tables import Cell, Column, Table

SCORES = ("miou", "mean_dice", "pixel_accuracy", "boundary_f1", "ece")


def task_table(models: Sequence[Model], part: str, inference: str) -> Table:
    """A row per model for the fused classes, with the H-mean of the primary tasks, then one per task.

    A model of one head has the first row only, in which it is compared with the others.
    """
    columns = [Column("model", "model"), Column("task", "task"), Column("role", "role")]
    columns.append(Column("classes", "classes", "count"))
    columns += [Column(name, TITLES[name], KINDS[name]) for name in SCORES]
    columns.append(Column("h_mean", "H-mean of the primary tasks' mIoU (%)", "share"))
    rows: list[Sequence[Cell]] = []
    for model in models:
        if not model.finished:
            continue
        role = "fused" if model.tasks else "one head"
        rows.append([*_row(model, "global", role, model, part, inference), model.h_mean(part, inference)])
        for task in model.tasks:
            role = "primary" if task in model.primary else "auxiliary"
            rows.append([*_row(model, task, role, model.on_task(task), part, inference), None])
    caption = (
        f"Scores of every task, {part}, {inference} inference, from the pixel counts of the task. Mean ± sample "
        "standard deviation over folds. Global: the heads fused into the classes that models of one head are scored on "
        "too. H-mean: harmonic mean over the primary tasks, per run. Tasks have unlike classes: compare their scores "
        "between models, not with one another."
    )
    return Table("tasks", caption, columns, rows)


def _row(model: Model, task: str, role: str, scored: Model, part: str, inference: str) -> list[Cell]:
    scores: list[Cell] = [scored.summary(name, part, inference) for name in SCORES]
    return [model.label, task, role, len(scored.classes), *scores]
