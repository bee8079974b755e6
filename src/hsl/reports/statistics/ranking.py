"""The ranking: the score of every model, its interval, and what is said of it against the first."""

import math
from collections.abc import Mapping, Sequence

from hsl.metrics.catalogue import better
from hsl.metrics.pixels.pixel_counts import EMPTY_ONE, METRICS
from hsl.reports.models import Model
from hsl.reports.scores import INFERENCES, SHOWN
from hsl.reports.statistics.comparisons import Comparison, decisive
from hsl.reports.statistics.contrasts import LEAST
from hsl.reports.statistics.paired_tests import Interval
from hsl.reports.statistics.resampling import Estimate
from hsl.reports.tables.run_tables import family
from hsl.reports.tables.score_tables import NONE, Cell, Column, Field, Table, interval_cell, table_of
from hsl.reports.tables.titles import difference_kind, kind_of, part_title, title_of, tta_title
from hsl.run_folder.run import ScoredOn

POOLED = ("accuracy", "macro_f1")  # of image heads
STANDING = (
    f"Interval: 95 %, bootstrap-t of the pooled score over groups, from {LEAST} groups on; where no groups are known, "
    "each picture is one. Against the first: pooled score of this model minus that of the first, with the interval and "
    "the p adjusted for all pairs; p over trainings: corrected resampled t-test; smallest: the difference that so many "
    "groups show in 80 % of studies, where the score can differ by so much."
)


def standing_columns(metric: str) -> list[Column]:
    """The columns of `standing_cells`."""
    unit = " (points)" if kind_of(metric) == "share" else ""
    return [
        Column("interval", "95 % interval", "interval"),
        Column("groups", "groups", "count"),
        Column("verdict", "against the first"),
        Column("difference", f"to the first{unit}", difference_kind(metric)),
        Column("interval_adjusted", "adjusted interval", "interval"),
        Column("adjusted_p", "adjusted p", "p"),
        Column("trainings_p", "p over trainings", "p"),
        Column("smallest", f"smallest{unit}", kind_of(metric)),
    ]


def standing_cells(
    label: str, first: str, estimate: Estimate | None, comparisons: Sequence[Comparison], metric: str
) -> list[Cell]:
    """The interval of a model and how it stands against the first of the ranking; empty where that is not known."""
    row: list[Cell] = [interval_cell(estimate.interval if estimate else None, kind_of(metric))]
    row.append(estimate.num_units if estimate else None)
    pair = next((one for one in comparisons if {one.first, one.second} == {label, first}), None)
    if pair is None:
        return [*row, NONE if label == first else None, None, None, None, None, None]
    row.append(short_verdict(pair, label))
    if pair.score is None:
        return [*row, None, None, None, pair.trainings.p, None]
    sign, adjusted = 1 if pair.first == label else -1, pair.score.adjusted
    shown = adjusted and Interval(sign * adjusted.mean, *sorted((sign * adjusted.low, sign * adjusted.high)))
    row += [sign * pair.score.mean, interval_cell(shown, difference_kind(metric)), pair.score.adjusted_p]
    return [*row, pair.trainings.p, pair.score.smallest]


def short_verdict(pair: Comparison, label: str) -> str:
    """What a comparison says of one of its models, without the names."""
    found = pair.verdict
    if not found.winner:
        return found.pictures
    text = "better on these pictures" if found.winner == label else "worse on these pictures"
    joint = ", and " if found.training.startswith("a new training") else "; "
    return f"{text}{joint}{found.training}"


def ranked(models: Sequence[Model], metric: str, on: ScoredOn) -> list[tuple[int | None, Model]]:
    """Models by their mean over folds, best first: the highest, or the lowest of ECE, NLL and Brier score.

    A model that lacks a fold which another has stands below without a rank: its mean is over other pictures.
    So does one without a mean.
    """
    means = {model.label: model.summary(metric, on).mean for model in models}
    folds = {model.label: set(model.scores(on)) for model in models}
    sign = 1 if better(metric) == "min" else -1
    every = {fold for model in models if not model.refused for fold in folds[model.label]}

    def in_full(model: Model) -> bool:
        return not math.isnan(means[model.label]) and folds[model.label] >= every

    def order(model: Model) -> tuple[bool, bool, float]:
        mean = means[model.label]
        return not in_full(model), math.isnan(mean), sign * mean if not math.isnan(mean) else 0.0

    in_order = sorted(models, key=order)
    return [(i if in_full(model) else None, model) for i, model in enumerate(in_order, start=1)]


def ranking_table(
    ranking: Sequence[tuple[int | None, Model]],
    on: ScoredOn,
    metric: str = "miou",
    estimates: Mapping[str, Estimate] | None = None,
    comparisons: Sequence[Comparison] = (),
) -> Table:
    """One row per model: mean ± sample standard deviation over folds, and the pooled score.

    Args:
        ranking: models of one kind of head with their ranks, best first.
        on: part and inference that rank.
        metric: the score that ranks.
        estimates: label to the pooled score that decides, with its interval; none: no such columns.
        comparisons: of every two models, where there are ``estimates``.
    """
    models, ranks = [model for _, model in ranking], {model.label: rank for rank, model in ranking}
    of_images, deciding = any(model.of_images for model in models), decisive(metric)
    fields: list[Field] = [
        (Column("rank", "#", "count"), lambda model: ranks[model.label]),
        (Column("model", "model"), lambda model: model.label),
        *(_leading_of_images(metric, on.part) if of_images else _leading(metric, on)),
    ]
    if estimates is not None:
        first = models[0].label if models else ""
        cells = {
            model.label: standing_cells(model.label, first, estimates.get(model.label), comparisons, deciding)
            for model in models
        }
        fields += [
            (column, lambda model, i=i: cells[model.label][i])  # type: ignore[misc]
            for i, column in enumerate(standing_columns(deciding))
        ]
    fields += [
        (Column("folds", "folds"), lambda model: f"{len(model.folds)} of {model.num_folds}"),
        (Column("weights", "first weights", more=True), lambda model: model.initialisation),
        *(_others_of_images(models, metric, on.part) if of_images else _others(models, metric, on.part)),
    ]
    name = f"{'image_' * of_images}ranking{'' if on.part == 'val' else f'_{on.part}'}"
    caption = _caption_of_images(on.part) if of_images else _caption(models, on.part)
    return table_of(name, f"{caption}{'' if estimates is None else f' {STANDING}'}", fields, models)


def _mean(metric: str, on: ScoredOn, more: bool = False) -> Field:
    tta = on.inference == "tta"
    column = Column(f"{metric}{'_tta' * tta}", tta_title(metric) if tta else title_of(metric), kind_of(metric), more)
    return column, lambda model: model.summary(metric, on)


def _pooled(metric: str, on: ScoredOn, more: bool) -> Field:
    def read(model: Model) -> float | None:
        scores = model.pooled(on)
        return None if scores is None else scores.overall[metric]

    tta = on.inference == "tta"
    title = f"pooled {tta_title(metric) if tta else title_of(metric)}"
    return Column(f"{metric}_pooled{'_tta' * tta}", title, kind_of(metric), more), read


def _leading(metric: str, on: ScoredOn) -> list[Field]:
    """The score that ranks, by either inference; not pooled on a test part, which is the same in every fold."""
    ways = [ScoredOn(on.part, inference) for inference in INFERENCES]
    fields = [_mean(metric, way, way != on) for way in ways]
    return fields + ([_pooled(metric, way, way != on) for way in ways] if on.part == "val" else [])


def _leading_of_images(metric: str, part: str) -> list[Field]:
    on, deciding = ScoredOn(part), decisive(metric)
    pooled = dict.fromkeys((deciding, *POOLED)) if part == "val" else {}
    return [_mean(metric, on), *(_pooled(name, on, name != deciding) for name in pooled)]


def _others(models: Sequence[Model], metric: str, part: str) -> list[Field]:
    empty = _has_empty_one(models, part)
    names = [*(name for name in METRICS if name != metric), *(EMPTY_ONE if empty else ())]
    return [
        (Column("family", "family of the encoder", more=True), family),
        *(_mean(name, ScoredOn(part), more=True) for name in names),
        (Column("classes_scored", "classes scored", more=True), lambda model: classes_scored(model, part)),
    ]


def _others_of_images(models: Sequence[Model], metric: str, part: str) -> list[Field]:
    names = [name for name in SHOWN if name != metric]
    names += ["exact_match"] if metric != "exact_match" and any(model.several for model in models) else []
    with_tta = any(model.scores(ScoredOn(part, "tta")) for model in models)
    fields = [_mean(name, ScoredOn(part), more=True) for name in names]
    return fields + ([_mean(name, ScoredOn(part, "tta"), more=True) for name in POOLED] if with_tta else [])


def _has_empty_one(models: Sequence[Model], part: str) -> bool:
    """Whether there are counts per picture, which these scores need."""
    return any(model.summary(EMPTY_ONE[0], ScoredOn(part)).num for model in models)


def classes_scored(model: Model, part: str) -> str:
    """How many of the classes the folds score, plain inference."""
    counts = sorted({one.classes_scored for seeds in model.scores(ScoredOn(part)).values() for one in seeds})
    spread = "–".join(str(number) for number in (counts[:1] + counts[-1:] if len(counts) > 1 else counts))
    return f"{spread or NONE} of {len(model.classes)}"


def _caption(models: Sequence[Model], part: str) -> str:
    told = (
        f"Scores on the {part_title(part)}. Mean ± sample standard deviation over folds; the counts of a fold are "
        "pooled over its pictures; mIoU is the macro mean over the classes scored."
    )
    beside = (
        " Dice, both empty = 1: mean over pictures and foreground classes, where a class that is in neither truth "
        "nor prediction of a picture counts 1; it says little alone, so beside it stands what predicting nothing "
        "scores on the same pictures."
    )
    return told + beside * _has_empty_one(models, part)


def _caption_of_images(part: str) -> str:
    told = (
        f"Scores of the image heads on the {part_title(part)}, over the pictures with a known label. Mean ± sample "
        "standard deviation over folds; macro scores are means over the classes."
    )
    return told + " Pooled: out-of-fold predictions of all folds together." * (part == "val")
