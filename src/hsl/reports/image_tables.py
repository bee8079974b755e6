"""Tables of the image heads: ranking, classes, folds, thresholds, pairs."""

import math
from collections.abc import Mapping, Sequence

from hsl.reports.comparison_tables import TALLY, interval_cell, tally_cells
from hsl.reports.contents import fold_name, fold_rows, part_title
from hsl.reports.image_comparisons import ImageComparison
from hsl.reports.image_scores import (
    IMAGE_PER_CLASS,
    ImageScores,
    head_of,
    image_counts,
    image_scores,
    image_summary,
)
from hsl.reports.results import Model
from hsl.reports.run_folder import Run
from hsl.reports.statistics import Interval, Summary, mean_std
from hsl.reports.tables import NONE, Cell, Column, Table

IMAGE_TITLES = {
    "accuracy": "accuracy (%)",
    "balanced_accuracy": "balanced accuracy (%)",
    "macro_f1": "macro F1 (%)",
    "micro_f1": "micro F1 (%)",
    "macro_precision": "macro precision (%)",
    "macro_recall": "macro recall (%)",
    "micro_precision": "micro precision (%)",
    "micro_recall": "micro recall (%)",
    "macro_auroc": "AUROC (%)",
    "macro_average_precision": "average precision (%)",
    "exact_match": "exact match (%)",
}
CLASS_TITLES = {"precision": "precision (%)", "recall": "recall (%)", "f1": "F1 (%)", "auroc": "AUROC (%)"}
CLASS_TITLES |= {"average_precision": "average precision (%)"}
SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "micro_f1", "macro_auroc", "macro_average_precision")
POOLED = ("accuracy", "macro_f1")


def image_ranked(models: Sequence[Model], metric: str, part: str, inference: str) -> list[tuple[int | None, Model]]:
    """Models by the mean of a score of their image heads over folds, best first.

    A model that lacks a fold which another has stands below without a rank, as does one without a mean.
    """
    means = {model.label: image_summary(model, metric, part, inference).mean for model in models}
    folds = {model.label: set(image_scores(model, part, inference)) for model in models}
    every = {fold for model in models if not model.refused for fold in folds[model.label]}

    def order(model: Model) -> tuple[bool, bool, float]:
        mean = means[model.label]
        unknown = math.isnan(mean)
        return unknown or not folds[model.label] >= every, unknown, 0.0 if unknown else -mean

    return [(None if order(model)[0] else i, model) for i, model in enumerate(sorted(models, key=order), start=1)]


def image_ranking_table(
    models: Sequence[tuple[int | None, Model]], part: str, metric: str, intervals: Mapping[str, Interval]
) -> Table:
    """One row per model: mean ± sample standard deviation over folds, and the pooled out-of-fold scores.

    Args:
        models: with their ranks, best first.
        part: val or test.
        metric: the score of the intervals.
        intervals: label to the interval of the pooled score; empty: no such column.
    """
    heads = [head_of(model) for _, model in models]
    names = [*SHOWN, *(["exact_match"] if any(head and head.several for head in heads) else [])]
    with_tta = any(image_scores(model, part, "tta") for _, model in models)
    columns = [Column("rank", "#", "count"), Column("model", "model"), Column("weights", "first weights")]
    columns.append(Column("folds", "folds"))
    columns += [Column(name, IMAGE_TITLES[name], "share") for name in names]
    if with_tta:
        columns += [Column(f"{name}_tta", f"{IMAGE_TITLES[name][:-4]}, TTA (%)", "share") for name in POOLED]
    if part == "val":  # a test part is the same pictures in every fold: pooling would repeat them
        columns += [Column(f"{name}_pooled", f"pooled {IMAGE_TITLES[name]}", "share") for name in POOLED]
    if intervals:
        columns.append(Column("interval", f"pooled {IMAGE_TITLES[metric]}, 95 % interval", "interval"))
    rows = []
    for rank, model in models:
        row: list[Cell] = [rank, model.label, model.initialisation, f"{len(model.folds)} of {model.num_folds}"]
        row += [image_summary(model, name, part, "plain") for name in names]
        row += [image_summary(model, name, part, "tta") for name in POOLED] if with_tta else []
        counts = image_counts(model, part, "plain")
        if part == "val":
            row += [None if counts is None else float(counts.score(name)) for name in POOLED]
        rows.append([*row, *([interval_cell(intervals.get(model.label), "share")] if intervals else [])])
    caption = (
        f"Scores of the image heads on the {part_title(part)}, over the pictures with a known label. Mean ± sample "
        "standard deviation over folds; macro scores are means over the classes."
        + (" Pooled: out-of-fold predictions of all folds together." if part == "val" else "")
        + (
            " Interval: bootstrap of the pooled score over groups (pictures where no group holds two)."
            * bool(intervals)
        )
    )
    return Table("image_ranking" if part == "val" else f"image_ranking_{part}", caption, columns, rows)


def image_per_class_table(models: Sequence[Model], part: str, inference: str) -> Table:
    """One row per model and class of its image head."""
    columns = [Column("model", "model"), Column("class", "class"), Column("support", "support (pictures)", "count")]
    columns += [Column(name, CLASS_TITLES[name], "share") for name in IMAGE_PER_CLASS]
    rows: list[Sequence[Cell]] = []
    for model in models:
        head = head_of(model)
        if head is None or model.refused:
            continue
        folds = image_scores(model, part, inference)
        firsts = [seeds[0].per_class["support"] for seeds in folds.values()][: 1 if part == "test" else None]
        for i, name in enumerate(head.classes):
            summaries = [_class_summary(list(folds.values()), score, i) for score in IMAGE_PER_CLASS]
            rows.append([model.label, name, int(sum(first[i] for first in firsts)) if firsts else None, *summaries])
    caption = (
        f"Per class of the image heads, {part_title(part)}, {inference} inference. Mean ± sample standard deviation "
        f"over the folds that score the class; {NONE} = not scored. AUROC and average precision: the class against all "
        "others. Support: pictures that show the class."
    )
    return Table("image_per_class", caption, columns, rows)


def image_folds_table(models: Sequence[Model], part: str) -> Table:
    """One row per model, fold and seed, also for what is missing."""
    columns = [Column("model", "model"), Column("fold", "fold"), Column("seed", "seed", "count")]
    columns += [Column("status", "status"), Column("images", "pictures", "count")]
    columns += [Column(name, IMAGE_TITLES[name], "share") for name in SHOWN]
    columns += [Column("monitor", "monitored"), Column("monitored", "best monitored", "value")]
    columns += [Column("best_epoch", "best epoch", "count"), Column("wall_time_s", "time (h:m:s)", "seconds")]
    columns.append(Column("folder", "run folder"))
    rows = fold_rows(models, lambda model, run: _fold_row(model, run, part), len(columns))
    return Table("image_folds", f"Every fold of the image heads on its own, {part_title(part)}.", columns, rows)


def thresholds_table(models: Sequence[Model], part: str) -> Table | None:
    """One row per model and class of a head of several classes; none without one."""
    rows: list[Sequence[Cell]] = []
    for model in models:
        head = head_of(model)
        for i, name in enumerate(head.classes if head else ()):
            found = [one.thresholds for seeds in image_scores(model, part, "plain").values() for one in seeds]
            values = [float(value) for each in found if (value := each.get(name)) is not None]
            if values and head:
                rows.append([model.label, head.classes[i], mean_std(values), min(values), max(values)])
    columns = [Column("model", "model"), Column("class", "class"), Column("threshold", "threshold", "value")]
    columns += [Column("lowest", "lowest", "value"), Column("highest", "highest", "value")]
    caption = (
        "Probability from which on a picture is said to show a class: chosen on the validation part of every run, so "
        "its validation scores are the more optimistic for it. Mean ± sample standard deviation over runs."
    )
    return Table("image_thresholds", caption, columns, rows) if rows else None


def image_pairwise_table(comparisons: Sequence[ImageComparison]) -> Table:
    """One row per pair of models."""
    columns = [Column("first", "model A"), Column("second", "model B"), Column("images", "pictures", "count")]
    columns += [
        Column("difference", "right, A − B (points)", "points"),
        Column("interval", "95 % interval", "interval"),
        Column("interval_groups", "95 % by group", "interval"),
        Column("macro_f1", "macro F1, A − B (points)", "points"),
        Column("interval_macro_f1", "95 %, macro F1", "interval"),
        Column("mcnemar_holm_p", "McNemar p (Holm)", "p"),
        Column("wilcoxon_holm_p", "Wilcoxon p (Holm)", "p"),
        Column("corrected_t_p", "fold t-test p", "p"),
        Column("corrected_t_macro_f1_p", "fold t-test p, macro F1", "p"),
    ]
    columns += [Column(key, title, "count") for key, title in TALLY]
    columns.append(Column("verdict", "verdict"))
    caption = (
        "Image heads, A minus B on the same pictures. Right: share of the pictures whose class is right (accuracy), or "
        "all of whose classes are (exact match); bootstrap intervals over pictures and over whole groups. Macro F1: "
        "pooled, bootstrap over whole groups (pictures where no group holds two). McNemar's exact test on the pictures "
        "that only one model has right and Wilcoxon signed-rank test (both Holm), corrected resampled t-test over "
        "folds. A winner is named only where every interval lies on one side of 0."
    )
    rows = [[one.first, one.second, *_numbers(one), *tally_cells(one.pictures), one.verdict] for one in comparisons]
    return Table("image_pairwise", caption, columns, rows)


def _numbers(one: ImageComparison) -> list[Cell]:
    return [
        one.num_images if one.by_image else None,
        one.by_image.mean if one.by_image else None,
        interval_cell(one.by_image, "points"),
        interval_cell(one.by_group, "points"),
        one.macro_f1.mean if one.macro_f1 else None,
        interval_cell(one.macro_f1, "points"),
        one.mcnemar_holm_p,
        one.wilcoxon_holm_p,
        one.corrected_t_p,
        one.corrected_t_macro_f1_p,
    ]


def _fold_row(model: Model, run: Run, part: str) -> list[Cell]:
    scores = ImageScores.of_run(run, part, "plain")
    row: list[Cell] = [model.label, fold_name(model, run.fold), run.seed]
    row += [run.state, scores.num_images if scores else None]
    row += [scores.overall[name] if scores else None for name in SHOWN]
    monitor = run.metrics.monitor if run.metrics else None
    row += [monitor.name, monitor.value, monitor.epoch] if monitor else [None, None, None]
    return [*row, run.provenance.get("wall_time_s"), str(run.folder)]


def _class_summary(folds: Sequence[Sequence[ImageScores]], name: str, place: int) -> Summary:
    return mean_std([mean_std([float(one.per_class[name][place]) for one in seeds]).mean for seeds in folds])
