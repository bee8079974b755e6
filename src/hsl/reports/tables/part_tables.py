"""The table of the comparisons between the parts of a split, and what is said of them."""

from collections.abc import Sequence

from hsl.reports.statistics.part_tests import differs, part_verdict, sentence
from hsl.reports.tables.score_tables import Cell, Column, Table
from hsl.run_folder.provenance import PartTest, PartTests
from hsl.run_folder.run import Run

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
CAPTION = (
    "Do the parts of the split hold the same classes? Shown: how many {unit} show a class, chi-square test of "
    "independence over {unit}; classes: the same of all classes at once, where each of the {unit} is of one; not "
    "tested where more than one cell in five expects fewer than 5, or one fewer than 1 (Cochran 1954). Pixels: "
    "Jensen-Shannon divergence of the class distributions of two parts (0 alike, 1 bit nothing in common), p from "
    "dealing the {unit} anew 999 times. Cramer's V: 0 alike, 1 nothing in common; below 0.1 negligible, 0.3 small, 0.5 "
    "medium (Cohen 1988, scaled for several classes). p adjusted for all rows of its head and kind (Holm). A verdict "
    "needs both: a p below 0.05 and an effect that is not negligible. Unlike parts are no mistake by themselves: of a "
    "split by site they are its purpose."
)


def parts_table(found: Sequence[PartTests], name: str = "parts") -> Table:
    """One row per comparison; with several folds a column tells which."""
    folds = len(found) > 1
    rows: list[Sequence[Cell]] = [
        [*([str(one.fold)] if folds else []), *_row(one, test)] for one in found for test in one.tests
    ]
    unit = found[0].unit if found else "groups"
    return Table(name, CAPTION.format(unit=unit), [*([Column("fold", "fold")] if folds else []), *COLUMNS], rows)


def _row(one: PartTests, test: PartTest) -> list[Cell]:
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
