"""Tables of the comparisons: every pair of models, every class of every pair, and the parts of a split."""

from collections.abc import Sequence

from hsl.metrics.catalogue import better
from hsl.reports.statistics.comparisons import Comparison
from hsl.reports.statistics.paired_tests import Tally
from hsl.reports.statistics.part_tests import differs, part_verdict, sentence
from hsl.reports.tables.score_tables import Cell, Column, Table, interval_cell
from hsl.reports.tables.titles import difference_kind, kind_of, name_of
from hsl.run_folder.provenance import PartTest, PartTests
from hsl.run_folder.run import Run

TALLY = (("wins", "A better"), ("ties", "alike"), ("losses", "B better"))
CAPTION = (
    "A minus B on the same pictures. What decides: the difference of the pooled scores over groups that both were "
    "scored on, with a bootstrap-t; the adjusted interval and the adjusted p hold for all pairs of the table together, "
    "the interval for one alone. A winner is named where the adjusted p is below 0.05. p over trainings: corrected "
    "resampled t-test over folds or seeds. Smallest: the difference that so many groups show in 80 % of studies; "
    "groups and trainings needed: for one of the size found. The rest stands beside it and decides nothing: means over "
    "pictures, Wilcoxon signed-rank test "
)
WHAT = {"pixels": "pixels", "shown": "{unit} that show it", "classes": "classes of the {unit}"}
COLUMNS = [
    Column("head", "head"),
    Column("of", "of"),
    Column("class", "class"),
    Column("parts", "parts"),
    Column("verdict", "verdict"),
    Column("cramers_v", "Cramer's V", "value"),
    Column("divergence", "divergence (bits)", "value"),
    Column("adjusted_p", "adjusted p", "p"),
    Column("p", "p", "p", more=True),
    Column("chi2", "chi-square", "value", more=True),
    Column("freedom", "degrees of freedom", "count", more=True),
]
PARTS_CAPTION = (
    "Do the parts of the split hold the same classes? Shown: how many {unit} show a class, chi-square test of "
    "independence over {unit}; classes: the same of all classes at once, where each of the {unit} is of one; not "
    "tested where more than one cell in five expects fewer than 5, or one fewer than 1 (Cochran 1954). Pixels: "
    "Jensen-Shannon divergence of the class distributions of two parts (0 alike, 1 bit nothing in common), p from "
    "dealing the {unit} anew 999 times. Cramer's V: 0 alike, 1 nothing in common; below 0.1 negligible, 0.3 small, 0.5 "
    "medium (Cohen 1988, scaled for several classes). p adjusted for all rows of its head and kind (Holm). A verdict "
    "needs both: a p below 0.05 and an effect that is not negligible. Unlike parts are no mistake by themselves: of a "
    "split by site they are its purpose."
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


def parts_table(found: Sequence[PartTests], name: str = "parts") -> Table:
    """One row per comparison; with several folds a column tells which."""
    folds = len(found) > 1
    rows: list[Sequence[Cell]] = [
        [*([str(one.fold)] if folds else []), *_parts_row(one, test)] for one in found for test in one.tests
    ]
    unit = found[0].unit if found else "groups"
    return Table(name, PARTS_CAPTION.format(unit=unit), [*([Column("fold", "fold")] if folds else []), *COLUMNS], rows)


def _parts_row(one: PartTests, test: PartTest) -> list[Cell]:
    parts = ", ".join(
        f"{part} {number}" + (f" ({100 * test.shares[part]:.0f} %)" if part in test.shares else "")
        for part, number in test.groups.items()
    )
    numbers: list[Cell] = [test.cramers_v, test.divergence, test.adjusted_p, test.p, test.chi2, test.freedom]
    return [test.head, WHAT[test.of].format(unit=one.unit), test.subject, parts, part_verdict(test), *numbers]


def told(one: PartTests) -> list[str]:
    """What is said first: the comparisons of all classes at once, the classes that differ, and how many others."""
    every = [test for test in one.tests if test.of != "shown"]
    single = [test for test in one.tests if test.of == "shown"]
    unlike, untested = [test for test in single if differs(test)], [test for test in single if test.reason]
    sentences = [sentence(test, one.unit) for test in [*every, *unlike]]
    rest = len(single) - len(unlike) - len(untested)
    if single:
        sentences.append(
            f"Which {one.unit} show a class, {len(single)} classes one by one: {len(unlike)} unlike between the parts, "
            f"{rest} without such a difference, {len(untested)} not tested."
        )
    return sentences


def parts_of(runs: Sequence[Run]) -> list[PartTests]:
    """The comparisons that runs left, alike ones once, by fold; runs from before them have none."""
    found = {run.parts.model_dump_json(): run.parts for run in runs if run.parts}
    return sorted(found.values(), key=lambda one: one.fold)
