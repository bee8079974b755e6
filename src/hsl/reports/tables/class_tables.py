"""Tables of the classes, with the thresholds of an image head, and of the tasks beside all fused.

Scores over the classes that a task groups are read off the global space in which all models are scored.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hsl.metrics.pixels.pixel_counts import PER_CLASS
from hsl.reports.models import Model
from hsl.reports.scores import IMAGE_PER_CLASS, Scores
from hsl.reports.statistics.paired_tests import Summary, mean_std
from hsl.reports.tables.score_tables import NONE, Cell, Column, Table
from hsl.reports.tables.titles import kind_of, part_title, title_of, tta_title
from hsl.run_folder.run import Run, ScoredOn

NAMED = 3  # tasks that a heading names; more are counted
SCORES = ("miou", "mean_dice", "pixel_accuracy", "boundary_f1", "ece")


def per_class_table(models: Sequence[Model], on: ScoredOn) -> Table:
    """One row per model and class; of pixels by plain inference, and beside it the IoU by test-time augmentation."""
    of_images = any(model.of_images for model in models)
    names = IMAGE_PER_CLASS if of_images else PER_CLASS
    columns = [Column("model", "model"), Column("class", "class")]
    if of_images:
        columns.append(Column("support", "support (pictures)", "count"))
    else:
        columns += [Column("pixels", "true pixels", "count"), Column("folds_scored", "folds scored", "count")]
    columns += [Column(name, title_of(name), kind_of(name)) for name in names]
    if not of_images:
        columns += [Column("iou_tta", tta_title("iou"), "share"), Column("iou_pooled", "IoU, pooled (%)", "share")]
    rows: list[Sequence[Cell]] = []
    for model in models:
        if model.finished and not model.refused:
            rows += _of_images(model, on) if of_images else _of_pixels(model, on.part)
    caption = (
        f"Per class of the image heads, {part_title(on.part)}, {on.inference} inference. Mean ± sample standard "
        f"deviation over the folds that score the class; {NONE} = not scored. AUROC and average precision: the class "
        "against all others. Support: pictures that show the class."
        if of_images
        else f"Per class, {part_title(on.part)}. Mean ± sample standard deviation over the folds that score the "
        f"class; one in neither truth nor prediction of a fold is not scored there ({NONE}). "
        "For pixels Dice equals F1."
    )
    return Table(f"{'image_' * of_images}per_class", caption, columns, rows)


def _of_images(model: Model, on: ScoredOn) -> list[Sequence[Cell]]:
    summaries = [model.class_summaries(name, on) for name in IMAGE_PER_CLASS]
    firsts = [seeds[0].per_class["support"] for seeds in model.scores(on).values()]
    support = np.sum(firsts[: 1 if on.part == "test" else None], axis=0)  # a test part is the same in every fold
    return [
        [model.label, name, int(support[i]) if firsts else None, *(each[i] for each in summaries)]
        for i, name in enumerate(model.classes)
    ]


def _of_pixels(model: Model, part: str) -> list[Sequence[Cell]]:
    on = ScoredOn(part)
    summaries = [model.class_summaries(name, on) for name in PER_CLASS]
    tta, pooled = model.class_summaries("iou", ScoredOn(part, "tta")), model.pooled(on)
    firsts = [matrices[0].sum(axis=1) for matrices in model.confusions(on).values()]  # each picture once
    pixels = np.sum(firsts, axis=0) if firsts else [0] * len(model.classes)
    rows: list[Sequence[Cell]] = []
    for i, name in enumerate(model.classes):
        row: list[Cell] = [model.label, name, int(pixels[i]), summaries[0][i].num, *(each[i] for each in summaries)]
        rows.append([*row, tta[i], float(pooled.per_class["iou"][i]) if pooled else None])
    return rows


def thresholds_table(models: Sequence[Model], part: str) -> Table | None:
    """One row per model and class of an image head that may find several in a picture; none without one."""
    rows: list[Sequence[Cell]] = []
    for model in models:
        found = [one.thresholds for seeds in model.scores(ScoredOn(part)).values() for one in seeds]
        for name in model.classes:
            values = [float(value) for each in found if (value := each.get(name)) is not None]
            if values:
                rows.append([model.label, name, mean_std(values), min(values), max(values)])
    columns = [Column("model", "model"), Column("class", "class"), Column("threshold", "threshold", "value")]
    columns += [Column("lowest", "lowest", "value"), Column("highest", "highest", "value")]
    caption = (
        "Probability from which on a picture is said to show a class: chosen on the validation part of every run, so "
        "its validation scores are the more optimistic for it. Mean ± sample standard deviation over runs."
    )
    return Table("image_thresholds", caption, columns, rows) if rows else None


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
