"""Tables of the comparisons: every pair of models, and every class of every pair."""

from collections.abc import Sequence

from hsl.reports.comparisons import Comparison
from hsl.reports.contents import KINDS, TITLES
from hsl.reports.effects import Tally
from hsl.reports.pixel_counts import LOWER_IS_BETTER
from hsl.reports.statistics import Interval
from hsl.reports.tables import Cell, Column, Table, text_of

TALLY = (("wins", "A better"), ("ties", "alike"), ("losses", "B better"))


def pairwise_table(comparisons: Sequence[Comparison], metric: str = "miou") -> Table:
    """One row per pair of models."""
    kind = "points" if KINDS[metric] == "share" else "signed"
    unit = " (points)" if kind == "points" else ""
    columns = [Column("first", "model A"), Column("second", "model B"), Column("images", "pictures", "count")]
    columns += [
        Column("difference", f"A − B{unit}", kind),
        Column("interval", "95 % interval", "interval"),
        Column("interval_groups", "95 % by group", "interval"),
        Column("pooled", f"pooled A − B{unit}", kind),
        Column("interval_pooled", "95 %, pooled", "interval"),
        Column("wilcoxon_holm_p", "Wilcoxon p (Holm)", "p"),
        Column("corrected_t_p", "fold t-test p", "p"),
        Column("rank_biserial", "rank-biserial r", "effect"),
        Column("cohens_dz", "Cohen's d_z", "effect"),
    ]
    columns += [Column(key, title, "count") for key, title in TALLY]
    columns.append(Column("verdict", "verdict"))
    lower = ", lower is better" if metric in LOWER_IS_BETTER else ""
    caption = (
        f"{TITLES[metric].removesuffix(' (%)')}{lower}, A minus B on the same pictures. Mean of the per-picture "
        "differences with bootstrap intervals over pictures and over whole groups; difference of the pooled scores "
        "with the bootstrap over whole groups (pictures where no group holds two). Wilcoxon signed-rank test over "
        "pictures (Holm), corrected resampled t-test over folds. Effect sizes of the per-picture differences: "
        "matched-pairs rank-biserial correlation (Kerby 2014) and mean over standard deviation, d_z (Cohen 1988). "
        "A picture counts as alike where the difference is exactly 0. A winner is named only where every interval "
        "lies on one side of 0."
    )
    return Table("pairwise", caption, columns, [_row(one, kind) for one in comparisons])


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


def _row(one: Comparison, kind: str) -> list[Cell]:
    return [
        one.first,
        one.second,
        one.num_images if one.by_image else None,
        one.by_image.mean if one.by_image else None,
        interval_cell(one.by_image, kind),
        interval_cell(one.by_group, kind),
        one.pooled.mean if one.pooled else None,
        interval_cell(one.pooled, kind),
        one.wilcoxon_holm_p,
        one.corrected_t_p,
        one.rank_biserial,
        one.cohens_dz,
        *tally_cells(one.pictures),
        one.verdict,
    ]


def interval_cell(interval: Interval | None, kind: str) -> str | None:
    """Both ends as a reader sees them."""
    return f"[{text_of(interval.low, kind)}, {text_of(interval.high, kind)}]" if interval else None


def tally_cells(found: Tally | None) -> list[Cell]:
    """The columns of ``TALLY``."""
    return [found.wins, found.ties, found.losses] if found else [None, None, None]
