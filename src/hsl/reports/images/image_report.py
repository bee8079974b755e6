"""The part of a report that is about image heads."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hsl.metrics.images.image_counts import COUNTED
from hsl.reports.contents import INFERENCES, null_for_nan
from hsl.reports.images.image_comparisons import compare_images, decisive, image_estimates
from hsl.reports.images.image_plots import image_plots
from hsl.reports.images.image_tables import (
    image_folds_table,
    image_per_class_table,
    image_ranked,
    image_ranking_table,
    thresholds_table,
)
from hsl.reports.images.model_scores import IMAGE_METRICS, head_of, image_counts, image_scores, image_summary
from hsl.reports.images.model_scores import image_overall as overall
from hsl.reports.models import Model
from hsl.reports.plots.plot_files import Plot
from hsl.reports.statistics.comparisons import Comparison
from hsl.reports.statistics.resampling import Estimate
from hsl.reports.tables.comparison_tables import pairwise_table
from hsl.reports.tables.score_tables import Table
from hsl.reports.tables.titles import title_of
from hsl.run_folder.run import ScoredOn


@dataclass(frozen=True)
class ImageReport:
    """Models with their ranks, best first; empty where no run has an image head.

    ``title`` is that of the score that ranks, ``metric`` the one that decides, ``estimates`` its value by label.
    """

    ranked: Sequence[tuple[int | None, Model]] = ()
    comparisons: Sequence[Comparison] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    title: str = ""
    metric: str = ""
    estimates: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def models(self) -> list[Model]:
        """Those with finished runs, best first."""
        return [model for _, model in self.ranked if model.finished]

    def plots(self, places: Mapping[str, int], metric: str, on: ScoredOn) -> dict[str, Plot]:
        """As `image_plots`."""
        return image_plots(self.models, places, metric, on)


def image_report(
    models: Sequence[Model], metric: str, on: ScoredOn, parts: Sequence[str], resamples: int, seed: int
) -> ImageReport:
    """Rank and compare the image heads.

    Args:
        models: all; those with finished runs and no image head are left out.
        metric: one of ``IMAGE_METRICS``, which ranks.
        on: part and inference that rank and are compared.
        parts: those that some run was scored on.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    own = [model for model in models if head_of(model) or not model.finished]
    if not any(model.finished for model in own):
        return ImageReport()
    ranked = image_ranked(own, metric, on)
    in_order = [model for _, model in ranked]
    settings = (on, resamples, seed)
    estimates = image_estimates(in_order, *settings, metric)
    comparisons = compare_images(in_order, *settings, metric)
    tables = [
        image_ranking_table(ranked, on.part, metric, estimates, comparisons),
        image_per_class_table(in_order, on),
        image_folds_table(in_order, on.part),
        pairwise_table(comparisons, decisive(metric), "image_pairwise"),
    ]
    thresholds = thresholds_table(in_order, on.part)
    tables += [] if thresholds is None else [thresholds]
    if "test" in parts and on.part != "test":
        tables.append(image_ranking_table(image_ranked(own, metric, ScoredOn("test", on.inference)), "test", metric))
    by_name = {table.name: table for table in tables}
    return ImageReport(ranked, comparisons, by_name, title_of(metric), decisive(metric), estimates)


def image_results(report: ImageReport, parts: Sequence[str]) -> dict[str, Any]:
    """What ``cv_results.json`` says of image heads; nothing where there are none."""
    if not report.ranked:
        return {}
    models = [
        {
            "rank": rank,
            "label": model.label,
            "classes": list(head.classes) if (head := head_of(model)) else [],
            "parts": {part: {way: _scores(model, ScoredOn(part, way)) for way in INFERENCES} for part in parts},
            "pooled_score": asdict(found) if (found := report.estimates.get(model.label)) else None,
        }
        for rank, model in report.ranked
    ]
    comparisons = [one.as_json for one in report.comparisons]
    return {"image_heads": null_for_nan({"models": models, "comparisons": comparisons})}


def _scores(model: Model, on: ScoredOn) -> dict[str, Any] | None:
    if not image_scores(model, on):
        return None
    counts = image_counts(model, on)
    return {
        "folds": {name: overall(model, name, on) for name in IMAGE_METRICS},
        "over_folds": {name: asdict(image_summary(model, name, on)) for name in IMAGE_METRICS},
        "pooled": None if counts is None else {name: float(counts.score(name)) for name in COUNTED},
    }
