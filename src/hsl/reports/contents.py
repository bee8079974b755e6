"""Which tables a report has, and its numbers as JSON."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np

from hsl.metrics.catalogue import better
from hsl.metrics.pixels.pixel_counts import EMPTY_ONE, PER_CLASS
from hsl.reports.models import OVERALL, Model, Scores
from hsl.reports.page.notes import Note
from hsl.reports.statistics.comparisons import Comparison
from hsl.reports.statistics.resampling import Estimate
from hsl.reports.tables.score_tables import NONE, Cell, Column, Table
from hsl.reports.tables.titles import kind_of, title_of
from hsl.run_folder.run import Run, ScoredOn

INFERENCES = ("plain", "tta")


def ranked(models: Sequence[Model], metric: str, on: ScoredOn) -> list[tuple[int | None, Model]]:
    """Models by their mean over folds, best first: the highest, or the lowest of ECE, NLL and Brier score.

    A model that lacks a fold which another has stands below without a rank: its mean is over other pictures.
    So does one without a mean.
    """
    means = {model.label: model.summary(metric, on).mean for model in models}
    sign = 1 if better(metric) == "min" else -1
    every = {fold for model in models if not model.refused for fold in model.confusions(on)}

    def in_full(model: Model) -> bool:
        return not math.isnan(means[model.label]) and set(model.confusions(on)) >= every

    def order(model: Model) -> tuple[bool, bool, float]:
        mean = means[model.label]
        return not in_full(model), math.isnan(mean), sign * mean if not math.isnan(mean) else 0.0

    in_order = sorted(models, key=order)
    return [(i if in_full(model) else None, model) for i, model in enumerate(in_order, start=1)]


def folds_table(models: Sequence[Model], part: str) -> Table:
    """One row per model, fold and seed, also for what is missing."""
    columns = [Column("model", "model"), Column("fold", "fold")]
    columns += [
        Column("seed", "seed", "count"),
        Column("status", "status"),
        Column("images", "pictures", "count"),
    ]
    columns += [Column("miou", title_of("miou"), "share"), Column("miou_tta", "mIoU, TTA (%)", "share")]
    columns += [Column(name, title_of(name), kind_of(name)) for name in OVERALL[1:]]
    columns += [Column("best_epoch", "best epoch", "count"), Column("wall_time_s", "time (h:m:s)", "seconds")]
    columns.append(Column("folder", "run folder"))
    rows = fold_rows(models, lambda model, run: _fold_row(model, run, part), len(columns))
    return Table("folds", f"Every fold on its own, {part_title(part)}.", columns, rows)


def fold_rows(
    models: Sequence[Model], row: Callable[[Model, Run], list[Cell]], num_columns: int
) -> list[Sequence[Cell]]:
    """A row per model, fold and seed; of a fold that is missing the reason in the fourth column, after the seed."""
    rows: list[Sequence[Cell]] = []
    for model in models:
        done = {fold: model.seeds(fold) for fold in model.folds}
        for fold in sorted({*done, *model.missing}):
            rows += [row(model, run) for run in done.get(fold, [])]
            if fold in model.missing:
                gap: list[Cell] = [model.label, fold_name(model, fold), None, model.missing[fold]]
                rows.append([*gap, *[None] * (num_columns - len(gap))])
    return rows


def _fold_row(model: Model, run: Run, part: str) -> list[Cell]:
    scores = {inference: Scores.of_run(run, ScoredOn(part, inference)) for inference in INFERENCES}
    stored = run.metrics.parts.get(part, {}).get("plain") if run.metrics else None
    return [
        model.label,
        fold_name(model, run.fold),
        run.seed,
        run.state,
        stored.num_images if stored else None,
        *[_overall(scores[inference], "miou") for inference in INFERENCES],
        *[_overall(scores["plain"], name) for name in OVERALL[1:]],
        run.metrics.monitor.epoch + 1 if run.metrics else None,
        run.provenance.get("wall_time_s"),
        str(run.folder),
    ]


def per_class_table(models: Sequence[Model], part: str) -> Table:
    """One row per model and class."""
    columns = [Column("model", "model"), Column("class", "class"), Column("pixels", "true pixels", "count")]
    columns.append(Column("folds_scored", "folds scored", "count"))
    columns += [Column(name, title_of(name), kind_of(name)) for name in PER_CLASS]
    columns += [Column("iou_tta", "IoU, TTA (%)", "share"), Column("iou_pooled", "IoU, pooled (%)", "share")]
    rows: list[Sequence[Cell]] = []
    for model in models:
        if not model.finished or model.refused:
            continue
        summaries = {name: model.class_summaries(name, ScoredOn(part)) for name in PER_CLASS}
        tta = model.class_summaries("iou", ScoredOn(part, "tta"))
        pooled, pixels = model.pooled(ScoredOn(part)), _true_pixels(model, part)
        for i, name in enumerate(model.classes):
            row: list[Cell] = [model.label, name, pixels[i], summaries["iou"][i].num]
            row += [summaries[score][i] for score in PER_CLASS]
            rows.append([*row, tta[i], float(pooled.per_class["iou"][i]) if pooled else None])
    caption = (
        f"Per class, {part_title(part)}. Mean ± sample standard deviation over the folds that score the "
        f"class; one in neither truth nor prediction of a fold is not scored there ({NONE}). "
        "For pixels Dice equals F1."
    )
    return Table("per_class", caption, columns, rows)


def cv_results(
    models: Sequence[tuple[int | None, Model]],
    comparisons: Sequence[Comparison],
    notes: Sequence[Note],
    runs: Sequence[Run],
    parts: Sequence[str],
    estimates: Mapping[str, Estimate] | None = None,
) -> dict[str, Any]:
    """Everything in the report, for programs; NaN is null."""
    page = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "models": [
            _model_json(rank, model, parts) | {"pooled_score": _estimate_json(estimates, model.label)}
            for rank, model in models
        ],
        "comparisons": [one.as_json for one in comparisons],
        "notes": [asdict(note) for note in notes],
        "runs": [{"folder": str(run.folder), "status": run.status, "reason": run.reason} for run in runs],
    }
    result: dict[str, Any] = null_for_nan(page)
    return result


def _estimate_json(estimates: Mapping[str, Estimate] | None, label: str) -> dict[str, Any] | None:
    found = (estimates or {}).get(label)
    return None if found is None else asdict(found)


def _model_json(rank: int | None, model: Model, parts: Sequence[str]) -> dict[str, Any]:
    return {
        "rank": rank,
        "label": model.label,
        "initialisation": model.initialisation,
        "differences": dict(model.differences),
        "classes": model.classes,
        "folds": model.folds,
        "missing": {str(fold): reason for fold, reason in model.missing.items()},
        "refused": model.refused or None,
        "parts": _parts_json(model, parts),
        "primary": model.primary,
        "tasks": {task: _parts_json(model.on_task(task), parts) for task in model.tasks},
        "h_mean": {part: {way: asdict(model.h_mean(ScoredOn(part, way))) for way in INFERENCES} for part in parts},
    }


def _parts_json(model: Model, parts: Sequence[str]) -> dict[str, Any]:
    return {part: {way: _scores_json(model, ScoredOn(part, way)) for way in INFERENCES} for part in parts}


def _scores_json(model: Model, on: ScoredOn) -> dict[str, Any] | None:
    if not model.confusions(on):
        return None
    pooled = model.pooled(on)
    return {
        "folds": {name: model.overall(name, on) for name in (*OVERALL, *EMPTY_ONE)},
        "over_folds": {name: asdict(model.summary(name, on)) for name in (*OVERALL, *EMPTY_ONE)},
        "per_class": {name: [asdict(one) for one in model.class_summaries(name, on)] for name in PER_CLASS},
        "pooled": None if pooled is None else _pooled_json(pooled),
    }


def _pooled_json(scores: Scores) -> dict[str, Any]:
    classes = {name: values.tolist() for name, values in scores.per_class.items()}
    return {**scores.overall, "classes_scored": scores.classes_scored, "per_class": classes}


def part_title(part: str) -> str:
    """What a reader calls it."""
    return {"val": "validation part of each fold", "test": "held-out test part"}.get(part, part)


def _overall(scores: Scores | None, name: str) -> float | None:
    return None if scores is None else scores.overall[name]


def fold_name(model: Model, fold: int) -> str:
    """Its number, and the group that was left out if there is one."""
    names = [each.name for each in model.split.folds] if model.split else []
    return f"{fold}: {names[fold]}" if fold < len(names) and names[fold] != str(fold) else str(fold)


def classes_scored(model: Model, part: str) -> str:
    """How many of the classes the folds score, plain inference."""
    matrices = [matrix for fold in model.confusions(ScoredOn(part)).values() for matrix in fold]
    counts = sorted({Scores.of(matrix).classes_scored for matrix in matrices})
    spread = "–".join(str(number) for number in (counts[:1] + counts[-1:] if len(counts) > 1 else counts))
    return f"{spread or NONE} of {len(model.classes)}"


def _true_pixels(model: Model, part: str) -> list[int]:
    """Per class, each picture once: one seed of every fold."""
    firsts = [matrices[0].sum(axis=1) for matrices in model.confusions(ScoredOn(part)).values()]
    return [int(number) for number in np.sum(firsts, axis=0)] if firsts else [0] * len(model.classes)


def null_for_nan(node: Any) -> Any:
    """JSON has no NaN: what is not known is null."""
    if isinstance(node, Mapping):
        return {str(key): null_for_nan(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [null_for_nan(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node
