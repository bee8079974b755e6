"""The ranking: the score of every model, its interval, and what is said of it against the first."""

from collections.abc import Mapping, Sequence

from hsl.metrics.pixels.pixel_counts import EMPTY_ONE
from hsl.reports.contents import INFERENCES, classes_scored, part_title
from hsl.reports.models import OVERALL, Model
from hsl.reports.statistics.comparisons import Comparison
from hsl.reports.statistics.contrasts import LEAST
from hsl.reports.statistics.paired_tests import Interval
from hsl.reports.statistics.resampling import Estimate
from hsl.reports.tables.family_table import family
from hsl.reports.tables.score_tables import NONE, Cell, Column, Table, interval_cell
from hsl.reports.tables.titles import difference_kind, kind_of, title_of
from hsl.run_folder.run import ScoredOn

BESIDE_NOTHING = [Column(name, title_of(name), kind_of(name), more=True) for name in EMPTY_ONE]
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


def ranking_table(
    models: Sequence[tuple[int | None, Model]],
    part: str,
    metric: str = "miou",
    estimates: Mapping[str, Estimate] | None = None,
    comparisons: Sequence[Comparison] = (),
    inference: str = "plain",
) -> Table:
    """One row per model: mean ± sample standard deviation over folds, and the pooled score.

    Args:
        models: with their ranks, best first.
        part: val or test.
        metric: the score that ranks.
        estimates: label to the pooled score with its interval; none: no such columns.
        comparisons: of every two models, where there are ``estimates``.
        inference: plain or tta, which ranks.
    """
    title, kind = title_of(metric), kind_of(metric)
    tta = title.replace(" (%)", "") + ", TTA" + " (%)" * title.endswith("(%)")
    both = [(metric, title), (f"{metric}_tta", tta)]
    flags = [way != inference for way in INFERENCES]
    columns = [Column("rank", "#", "count"), Column("model", "model")]
    columns += [Column(key, name, kind, more) for (key, name), more in zip(both, flags, strict=True)]
    pooled = part == "val"  # a test part is the same pictures in every fold: pooling would repeat them
    if pooled:
        columns += [
            Column(key.replace(metric, f"{metric}_pooled"), f"pooled {name}", kind, more)
            for (key, name), more in zip(both, flags, strict=True)
        ]
    columns += standing_columns(metric) if estimates is not None else []
    columns += [Column("folds", "folds"), Column("weights", "first weights", more=True)]
    columns.append(Column("family", "family of the encoder", more=True))
    others = [name for name in OVERALL if name != metric]
    columns += [Column(name, title_of(name), kind_of(name), more=True) for name in others]
    empty = any(model.summary(EMPTY_ONE[0], ScoredOn(part)).num for _, model in models)  # needs counts per picture
    columns += BESIDE_NOTHING if empty else []
    columns.append(Column("classes_scored", "classes scored", more=True))
    first = models[0][1].label if models else ""
    rows = []
    for rank, model in models:
        row: list[Cell] = [rank, model.label, *(model.summary(metric, ScoredOn(part, way)) for way in INFERENCES)]
        row += [_pooled(model, ScoredOn(part, way), metric) for way in INFERENCES] if pooled else []
        if estimates is not None:
            row += standing_cells(model.label, first, estimates.get(model.label), comparisons, metric)
        row += [f"{len(model.folds)} of {model.num_folds}", model.initialisation, family(model)]
        row += [model.summary(name, ScoredOn(part)) for name in (*others, *(EMPTY_ONE if empty else ()))]
        rows.append([*row, classes_scored(model, part)])
    return Table("ranking" if part == "val" else f"ranking_{part}", _caption(part, empty, estimates), columns, rows)


def _caption(part: str, empty: bool, estimates: Mapping[str, Estimate] | None) -> str:
    told = [
        f"Scores on the {part_title(part)}. Mean ± sample standard deviation over folds; the counts of a fold are "
        "pooled over its pictures; mIoU is the macro mean over the classes scored."
    ]
    if empty:
        told.append(
            "Dice, both empty = 1: mean over pictures and foreground classes, where a class that is in neither truth "
            "nor prediction of a picture counts 1; it says little alone, so beside it stands what predicting nothing "
            "scores on the same pictures."
        )
    if estimates is not None:
        told.append(STANDING)
    return " ".join(told)


def _pooled(model: Model, on: ScoredOn, metric: str) -> float | None:
    scores = model.pooled(on)
    return None if scores is None else scores.overall[metric]
