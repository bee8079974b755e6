"""What a report says of the heads of one kind, of pixels or images: ranking, comparisons, tables, numbers as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from hsl.files.io import null_for_nan
from hsl.metrics.pixels.pixel_counts import EMPTY_ONE, METRICS, PER_CLASS
from hsl.reports.models import Model
from hsl.reports.page.notes import Note
from hsl.reports.scores import IMAGE_METRICS, INFERENCES, Scores
from hsl.reports.statistics.ablation import ablation_table
from hsl.reports.statistics.comparisons import Comparison, compare, decisive, pooled_estimates
from hsl.reports.statistics.ranking import ranked, ranking_table
from hsl.reports.statistics.resampling import Estimate
from hsl.reports.statistics.variance import variance_table
from hsl.reports.tables.class_tables import per_class_table, task_table, thresholds_table
from hsl.reports.tables.comparison_tables import pairwise_classes_table, pairwise_table
from hsl.reports.tables.object_tables import object_tables
from hsl.reports.tables.run_tables import family_table, folds_table, picture_table
from hsl.reports.tables.score_tables import Table
from hsl.run_folder.run import Run, ScoredOn


@dataclass(frozen=True)
class HeadReport:
    """Models with their ranks, best first; empty where no run has such a head.

    ``metric`` decides, see `decisive`; ``estimates`` are its values by label.
    """

    metric: str
    ranking: Sequence[tuple[int | None, Model]] = ()
    comparisons: Sequence[Comparison] = ()
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)

    @property
    def models(self) -> list[Model]:
        """Best first."""
        return [model for _, model in self.ranking]

    @property
    def ready(self) -> list[Model]:
        """Those with finished runs."""
        return [model for model in self.models if model.finished]


def head_report(
    models: Sequence[Model], metric: str, on: ScoredOn, parts: Sequence[str], resamples: int, seed: int
) -> HeadReport:
    """Rank and compare heads of one kind.

    Args:
        models: those that have such a head, and those that never finished.
        metric: which ranks.
        on: part and inference that rank and are compared.
        parts: those that some run was scored on.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    if not models:
        return HeadReport(decisive(metric))
    ranking = ranked(models, metric, on)
    in_order, of_images = [model for _, model in ranking], models[0].of_images
    comparisons = compare(in_order, on, resamples, seed, metric)
    estimates = pooled_estimates(in_order, on, resamples, seed, metric)
    tables = [
        ranking_table(ranking, on, metric, estimates, comparisons),
        per_class_table(in_order, on),
        folds_table(in_order, on.part),
        pairwise_table(comparisons, decisive(metric), f"{'image_' * of_images}pairwise"),
        *(_of_images(in_order, on) if of_images else _of_pixels(in_order, metric, on, comparisons)),
    ]
    if "test" in parts and on.part != "test":
        test = ranked(in_order, metric, ScoredOn("test", on.inference))
        tables.append(ranking_table(test, ScoredOn("test"), metric))
    return HeadReport(decisive(metric), ranking, comparisons, estimates, {table.name: table for table in tables})


def ablation_of(report: HeadReport, base: Model, on: ScoredOn) -> dict[str, Table]:
    """The table of all others against the base; none where that has no such head."""
    own = next((model for model in report.ready if model.label == base.label), None)
    if own is None:
        return {}
    means = {model.label: model.summary(report.metric, on) for model in report.models}
    name = f"{'image_' * own.of_images}ablation"
    table = ablation_table(report.models, own, report.metric, means, report.estimates, report.comparisons, name)
    return {name: table}


def _of_pixels(models: Sequence[Model], metric: str, on: ScoredOn, comparisons: Sequence[Comparison]) -> list[Table]:
    tables = [
        pairwise_classes_table(comparisons),
        picture_table(models, on),
        variance_table(models, metric, on),
        *object_tables(models, on),
    ]
    if (families := family_table(models, on, metric)) is not None:
        tables.append(families)
    return [*tables, *([task_table(models, on)] if any(model.tasks for model in models) else [])]


def _of_images(models: Sequence[Model], on: ScoredOn) -> list[Table]:
    thresholds = thresholds_table(models, on.part)
    return [] if thresholds is None else [thresholds]


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
