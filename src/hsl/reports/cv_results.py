"""The numbers of a report as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from hsl.files.io import null_for_nan
from hsl.metrics.pixels.pixel_counts import EMPTY_ONE, METRICS, PER_CLASS
from hsl.reports.head_report import HeadReport
from hsl.reports.models import Model
from hsl.reports.page.notes import Note
from hsl.reports.scores import IMAGE_METRICS, INFERENCES, Scores
from hsl.reports.statistics.comparisons import Comparison
from hsl.reports.statistics.resampling import Estimate
from hsl.run_folder.run import Run, ScoredOn


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


def image_results(report: HeadReport, parts: Sequence[str]) -> dict[str, Any]:
    """What ``cv_results.json`` says of image heads; nothing where there are none."""
    if not report.ranking:
        return {}
    models = [
        {
            "rank": rank,
            "label": model.label,
            "classes": list(model.classes),
            "parts": _parts_json(model, parts),
            "pooled_score": _estimate_json(report.estimates, model.label),
        }
        for rank, model in report.ranking
    ]
    comparisons = [one.as_json for one in report.comparisons]
    return {"image_heads": null_for_nan({"models": models, "comparisons": comparisons})}


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
    if not model.scores(on):
        return None
    names = IMAGE_METRICS if model.of_images else (*METRICS, *EMPTY_ONE)
    found: dict[str, Any] = {
        "folds": {name: model.overall(name, on) for name in names},
        "over_folds": {name: asdict(model.summary(name, on)) for name in names},
    }
    pooled = model.pooled(on)
    if model.of_images:
        return found | {"pooled": None if pooled is None else dict(pooled.overall)}
    per_class = {name: [asdict(one) for one in model.class_summaries(name, on)] for name in PER_CLASS}
    return found | {"per_class": per_class, "pooled": None if pooled is None else _pooled_json(pooled)}


def _pooled_json(scores: Scores) -> dict[str, Any]:
    classes = {name: values.tolist() for name, values in scores.per_class.items()}
    return {**scores.overall, "classes_scored": scores.classes_scored, "per_class": classes}
