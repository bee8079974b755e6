"""What a report says of the heads of one kind: ranking, comparisons and tables, of pixels or of image heads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hsl.reports.models import Model
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
from hsl.run_folder.run import ScoredOn


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
