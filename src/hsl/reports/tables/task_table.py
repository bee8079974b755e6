"""The table of the tasks: the scores of each head of a network that has several, beside those of all fused."""

from collections.abc import Mapping, Sequence

from hsl.reports.models import Model
from hsl.reports.tables.score_tables import Cell, Column, Table
from hsl.reports.tables.titles import kind_of, title_of
from hsl.reports.ungrouped import ungrouped
from hsl.run_folder.run import ScoredOn

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
