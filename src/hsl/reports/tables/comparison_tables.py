"""Tables of the comparisons: every pair of models, and every class of every pair."""

from collections.abc import Sequence

from hsl.metrics.catalogue import better
from hsl.reports.statistics.comparisons import Comparison
from hsl.reports.statistics.paired_tests import Tally
from hsl.reports.tables.score_tables import Cell, Column, Table, interval_cell
from hsl.reports.tables.titles import difference_kind, kind_of, name_of

TALLY = (("wins", "A better"), ("ties", "alike"), ("losses", "B better"))
CAPTION = (
    "A minus B on the same pictures. What decides: the difference of the pooled scores over groups that both were "
    "scored on, with a bootstrap-t; the adjusted interval and the adjusted p hold for all pairs of the table together, "
    "the interval for one alone. A winner is named where the adjusted p is below 0.05. p over trainings: corrected "
    "resampled t-test over folds or seeds. Smallest: the difference that so many groups show in 80 % of studies; "
    "groups and trainings needed: for one of the size found. The rest stands beside it and decides nothing: means over "
    "pictures, Wilcoxon signed-rank test "
)


def pairwise_table(comparisons: Sequence[Comparison], metric: str = "miou", name: str = "pairwise") -> Table:
    """One row per pair of models.

    Args:
        comparisons: of pixels, or of image heads.
        metric: the score that decides.
        name: of the table.
    """
    kind, of_images = difference_kind(metric), name.startswith("image")
    unit = " (points)" if kind == "points" else ""
    beside = list(dict.fromkeys(other for one in comparisons for other in one.beside))
    columns = [
        Column("first", "model A"),
        Column("second", "model B"),
        Column("verdict", "verdict"),
        Column("training", "another training"),
        Column("difference", f"A − B{unit}", kind),
        Column("interval", "95 % interval", "interval"),
        Column("groups", "groups", "count"),
        Column("interval_adjusted", "adjusted interval", "interval"),
        Column("adjusted_p", "adjusted p", "p"),
        Column("trainings_p", "p over trainings", "p"),
        Column("smallest", f"smallest{unit}", kind_of(metric)),
        Column("needed", "groups needed", "count"),
        Column("trainings", "trainings", "count", more=True),
        Column("trainings_needed", "trainings needed", "count", more=True),
        Column("images", "pictures", "count", more=True),
    ]
    for other in beside:
        key = other.replace(" ", "_")
        columns += [Column(key, f"{other}, A − B{unit}", kind, more=True)]
        columns += [Column(f"interval_{key}", f"95 %, {other}", "interval", more=True)]
    columns += [Column("mcnemar_holm_p", "McNemar p (Holm)", "p", more=True)] if of_images else []
    columns += [
        Column("wilcoxon_holm_p", "Wilcoxon p (Holm)", "p", more=True),
        Column("rank_biserial", "rank-biserial r", "effect", more=True),
        Column("cohens_dz", "Cohen's d_z", "effect", more=True),
    ]
    columns += [Column(key, title, "count", more=True) for key, title in TALLY]
    lower = ", lower is better" if better(metric) == "min" else ""
    tests = "and McNemar's exact test over pictures (Holm)" if of_images else "over pictures (Holm)"
    caption = (
        f"{name_of(metric)}{' of image heads' * of_images}{lower}, {CAPTION}{tests}, matched-pairs rank-biserial "
        "correlation (Kerby 2014), mean over standard deviation d_z (Cohen 1988), and the pictures that each wins; a "
        "picture counts as alike where the difference is exactly 0."
    )
    rows = [_row(one, kind, beside, of_images) for one in comparisons]
    return Table(name, caption, columns, rows)


def pairwise_classes_table(comparisons: Sequence[Comparison]) -> Table:
    """One row per pair of models and class."""
    columns = [Column("first", "model A"), Column("second", "model B"), Column("class", "class")]
    columns += [Column("images", "pictures", "count")]
    columns += [Column(key, title, "count") for key, title in TALLY]
    rows: list[Sequence[Cell]] = [
        [one.first, one.second, each.name, each.wins + each.ties + each.losses, *tally_cells(each)]
        for one in comparisons
        for each in one.classes
    ]
    caption = (
        "Pictures on which the IoU of a class is higher for A, alike (a difference of exactly 0) and higher for B. "
        "Denominator: the pictures whose truth holds the class."
    )
    return Table("pairwise_classes", caption, columns, rows)


def _row(one: Comparison, kind: str, beside: Sequence[str], of_images: bool) -> list[Cell]:
    found, score = one.verdict, one.score
    row: list[Cell] = [one.first, one.second, found.pictures, found.training or None]
    row += [score.mean, interval_cell(score.interval, kind), score.num_units] if score else [None, None, None]
    row += [interval_cell(score.adjusted, kind), score.adjusted_p] if score else [None, None]
    row += [one.trainings.p, *([score.smallest, score.needed] if score else [None, None])]
    row += [one.trainings.num, one.trainings.needed, one.num_images] if not one.refused else [None, None, None]
    for other in beside:
        each = one.beside.get(other)
        row += [each.mean, interval_cell(each.interval, kind)] if each else [None, None]
    row += [one.mcnemar_holm_p] if of_images else []
    return [*row, one.wilcoxon_holm_p, one.rank_biserial, one.cohens_dz, *tally_cells(one.pictures)]


def tally_cells(found: Tally | None) -> list[Cell]:
    """The columns of ``TALLY``."""
    return [found.wins, found.ties, found.losses] if found else [None, None, None]
