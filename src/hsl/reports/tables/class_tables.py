"""Tables of the classes: their scores, and the thresholds of an image head."""

from collections.abc import Sequence

import numpy as np

from hsl.metrics.pixels.pixel_counts import PER_CLASS
from hsl.reports.models import Model
from hsl.reports.scores import IMAGE_PER_CLASS
from hsl.reports.statistics.paired_tests import mean_std
from hsl.reports.tables.score_tables import NONE, Cell, Column, Table
from hsl.reports.tables.titles import kind_of, part_title, title_of, tta_title
from hsl.run_folder.run import ScoredOn


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
