"""Tables of the image heads: ranking, classes, folds, thresholds, pairs."""

import math
from collections.abc import Mapping, Sequence

from hsl.reports.contents import fold_name, fold_rows, part_title
from hsl.reports.images.image_comparisons import decisive
from hsl.reports.images.model_scores import (
    IMAGE_PER_CLASS,
    ImageScores,
    head_of,
    image_counts,
    image_scores,
    image_summary,
)
from hsl.reports.models import Model
from hsl.reports.statistics.comparisons import Comparison
from hsl.reports.statistics.paired_tests import Summary, mean_std
from hsl.reports.statistics.ranking import STANDING, standing_cells, standing_columns
from hsl.reports.statistics.resampling import Estimate
from hsl.reports.tables.score_tables import NONE, Cell, Column, Table
from hsl.reports.tables.titles import name_of, title_of
from hsl.run_folder.run import Run, ScoredOn

SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "micro_f1", "macro_auroc", "macro_average_precision")
POOLED = ("accuracy", "macro_f1")


def image_ranked(models: Sequence[Model], metric: str, on: ScoredOn) -> list[tuple[int | None, Model]]:
    """Models by the mean of a score of their image heads over folds, best first.

    A model that lacks a fold which another has stands below without a rank, as does one without a mean.
    """
    means = {model.label: image_summary(model, metric, on).mean for model in models}
    folds = {model.label: set(image_scores(model, on)) for model in models}
    every = {fold for model in models if not model.refused for fold in folds[model.label]}

    def order(model: Model) -> tuple[bool, bool, float]:
        mean = means[model.label]
        unknown = math.isnan(mean)
        return unknown or not folds[model.label] >= every, unknown, 0.0 if unknown else -mean

    return [(None if order(model)[0] else i, model) for i, model in enumerate(sorted(models, key=order), start=1)]


def image_ranking_table(
    models: Sequence[tuple[int | None, Model]],
    part: str,
    metric: str,
    estimates: Mapping[str, Estimate] | None = None,
    comparisons: Sequence[Comparison] = (),
) -> Table:
    """One row per model: mean ± sample standard deviation over folds, and the pooled out-of-fold scores.

    Args:
        models: with their ranks, best first.
        part: val or test.
        metric: the score that ranks.
        estimates: label to the pooled score that decides, with its interval; none: no such columns.
        comparisons: of every two models, where there are ``estimates``.
    """
    heads, deciding = [head_of(model) for _, model in models], decisive(metric)
    others = [name for name in (*SHOWN, metric) if name != metric]
    others += ["exact_match"] if metric != "exact_match" and any(head and head.several for head in heads) else []
    with_tta = any(image_scores(model, ScoredOn(part, "tta")) for _, model in models)
    pooled = list(dict.fromkeys((deciding, *POOLED))) if part == "val" else []  # a test part is the same in every fold
    columns = [Column("rank", "#", "count"), Column("model", "model"), Column(metric, title_of(metric), "share")]
    columns += [Column(f"{name}_pooled", f"pooled {title_of(name)}", "share", name != deciding) for name in pooled]
    columns += standing_columns(deciding) if estimates is not None else []
    columns += [Column("folds", "folds"), Column("weights", "first weights", more=True)]
    columns += [Column(name, title_of(name), "share", more=True) for name in others]
    if with_tta:
        columns += [Column(f"{name}_tta", f"{name_of(name)}, TTA (%)", "share", more=True) for name in POOLED]
    first = models[0][1].label if models else ""
    rows = []
    for rank, model in models:
        counts = image_counts(model, ScoredOn(part))
        row: list[Cell] = [rank, model.label, image_summary(model, metric, ScoredOn(part))]
        row += [None if counts is None else float(counts.score(name)) for name in pooled]
        if estimates is not None:
            row += standing_cells(model.label, first, estimates.get(model.label), comparisons, deciding)
        row += [f"{len(model.folds)} of {model.num_folds}", model.initialisation]
        row += [image_summary(model, name, ScoredOn(part)) for name in others]
        if with_tta:
            row += [image_summary(model, name, ScoredOn(part, "tta")) for name in POOLED]
        rows.append(row)
    return Table(
        "image_ranking" if part == "val" else f"image_ranking_{part}", _caption(part, estimates), columns, rows
    )


def _caption(part: str, estimates: Mapping[str, Estimate] | None) -> str:
    told = (
        f"Scores of the image heads on the {part_title(part)}, over the pictures with a known label. Mean ± sample "
        "standard deviation over folds; macro scores are means over the classes."
    )
    told += " Pooled: out-of-fold predictions of all folds together." * (part == "val")
    return told if estimates is None else f"{told} {STANDING}"


def image_per_class_table(models: Sequence[Model], on: ScoredOn) -> Table:
    """One row per model and class of its image head."""
    columns = [Column("model", "model"), Column("class", "class"), Column("support", "support (pictures)", "count")]
    columns += [Column(name, title_of(name), "share") for name in IMAGE_PER_CLASS]
    rows: list[Sequence[Cell]] = []
    for model in models:
        head = head_of(model)
        if head is None or model.refused:
            continue
        folds = image_scores(model, on)
        firsts = [seeds[0].per_class["support"] for seeds in folds.values()][: 1 if on.part == "test" else None]
        for i, name in enumerate(head.classes):
            summaries = [_class_summary(list(folds.values()), score, i) for score in IMAGE_PER_CLASS]
            rows.append([model.label, name, int(sum(first[i] for first in firsts)) if firsts else None, *summaries])
    caption = (
        f"Per class of the image heads, {part_title(on.part)}, {on.inference} inference. Mean ± sample standard "
        f"deviation over the folds that score the class; {NONE} = not scored. AUROC and average precision: the class "
        "against all others. Support: pictures that show the class."
    )
    return Table("image_per_class", caption, columns, rows)


def image_folds_table(models: Sequence[Model], part: str) -> Table:
    """One row per model, fold and seed, also for what is missing."""
    columns = [Column("model", "model"), Column("fold", "fold"), Column("seed", "seed", "count")]
    columns += [Column("status", "status"), Column("images", "pictures", "count")]
    columns += [Column(name, title_of(name), "share") for name in SHOWN]
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
            found = [one.thresholds for seeds in image_scores(model, ScoredOn(part)).values() for one in seeds]
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


def _fold_row(model: Model, run: Run, part: str) -> list[Cell]:
    scores = ImageScores.of_run(run, ScoredOn(part))
    row: list[Cell] = [model.label, fold_name(model, run.fold), run.seed]
    row += [run.state, scores.num_images if scores else None]
    row += [scores.overall[name] if scores else None for name in SHOWN]
    monitor = run.metrics.monitor if run.metrics else None
    row += [monitor.name, monitor.value, monitor.epoch + 1] if monitor else [None, None, None]
    return [*row, run.provenance.get("wall_time_s"), str(run.folder)]


def _class_summary(folds: Sequence[Sequence[ImageScores]], name: str, place: int) -> Summary:
    return mean_std([mean_std([float(one.per_class[name][place]) for one in seeds]).mean for seeds in folds])
