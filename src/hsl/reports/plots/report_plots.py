"""Which plots a report has."""

import math
from collections.abc import Mapping, Sequence

from hsl.metrics.pixels.pixel_counts import PixelCounts
from hsl.reports.models import Model
from hsl.reports.objects import objects_are
from hsl.reports.page.failure_gallery import failure_counts
from hsl.reports.plots.confusion_plots import confusion_plots
from hsl.reports.plots.error_plots import breakdown_plot, distance_plot, failure_plot, reliability_plot
from hsl.reports.plots.plot_files import Plot
from hsl.reports.plots.score_plots import class_plot, curves_plot, ranking_plot
from hsl.reports.plots.task_plots import pareto_plot, task_curves_plot, task_plot
from hsl.reports.plots.weighting_plots import weighting_plots
from hsl.run_folder.run import ScoredOn

DISTANCES = ("hd95", "assd")


def report_plots(
    models: Sequence[Model], metric: str, on: ScoredOn, pareto: Sequence[str] | None = None
) -> dict[str, Plot]:
    """Name to plot; one whose data no run left is absent.

    Args:
        models: those with finished runs, best first; of those without dense heads only the learning curves are drawn.
        metric: the score that ranks.
        on: part and inference.
        pareto: two tasks whose trade-off is drawn; none: see `task_plots.pareto_tasks`.

    Raises:
        ConfigError: ``pareto`` names no two tasks of the models.
    """
    plots: list[Plot | None] = []
    curves = curves_plot(models) if models else None
    models = [model for model in models if model.classes]
    if models:
        plots.append(ranking_plot(models, {model.label: i for i, model in enumerate(models)}, metric, on))
    plots.append(curves)
    if iou := pooled_iou(models, on):
        plots.append(class_plot(iou, models[0].classes, on.part))
    counts = {model.label: model.counts(on) for model in models}
    known = {label: pooled for label, pooled in counts.items() if isinstance(pooled, PixelCounts)}
    if known:
        plots.append(reliability_plot({label: (one.pixels, one.confidence) for label, one in known.items()}))
        plots.append(breakdown_plot({label: one.matrices for label, one in known.items()}))
    for name in DISTANCES:
        if values := _distances(models, name, on):
            plots.append(distance_plot(name, values))
    failures = {model.label: failure_counts(model.objects(on)) for model in models}
    if any(sum(pair) for kinds in failures.values() for pair in kinds.values()):
        plots.append(failure_plot(failures, objects_are(models, on)))
    plots += [task_plot(models, on), pareto_plot(models, on, pareto)]
    plots += [task_curves_plot(models), *weighting_plots(models)]
    plots += confusion_plots(models, on)
    return {plot.name: plot for plot in plots if plot is not None}


def pooled_iou(models: Sequence[Model], on: ScoredOn) -> dict[str, list[float]]:
    """Label to the pooled IoU of each class, of the models that share the first one's classes."""
    pooled = {model.label: model.pooled(on) for model in models if model.classes == models[0].classes}
    return {label: scores.per_class["iou"].tolist() for label, scores in pooled.items() if scores}


def _distances(models: Sequence[Model], name: str, on: ScoredOn) -> Mapping[str, Mapping[str, Sequence[float]]]:
    """Class to label to the distances of the pictures that score the class; background and unscored ones left out."""
    classes = models[0].classes if models else []
    found: dict[str, dict[str, list[float]]] = {title: {} for title in classes[1:]}
    for model in models:
        if model.classes != classes:
            continue
        for row in model.objects(on):
            values = getattr(row.metrics.surface, name) if row.metrics.surface else []
            for title, value in list(zip(classes, values, strict=False))[1:]:
                if value is not None and not math.isnan(value):
                    found[title].setdefault(model.label, []).append(value)
    return {title: per_model for title, per_model in found.items() if per_model}
