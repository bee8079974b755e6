"""Tables of tier 3: objects, distances and partitions, per class and per group."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from hsl.metrics.catalogue import SCORES, score_names
from hsl.reports.models import Model
from hsl.reports.objects import (
    CLUSTERING,
    COUNTS,
    Metric,
    all_classes,
    by_group,
    distances_of,
    failed,
    groups_of,
    objects_are,
    partition_of,
    quality_of,
)
from hsl.reports.statistics.paired_tests import mean_std
from hsl.reports.tables.score_tables import Cell, Column, Table
from hsl.reports.tables.titles import kind_of, name_of, title_of
from hsl.run_folder.run import ScoredOn
from hsl.run_folder.stored_counts import ObjectRow

EVERY = "all classes"
FAILED = Column("failed", "failed pictures", "count")
MORE = ("object_ap50", "object_ap75")  # the page shows them on request
OBJECTS = [
    *[Column(name, title_of(name), kind_of(name), name in MORE) for name in score_names("objects", "matches", "areas")],
    *[Column(name, name.upper(), "count") for name in COUNTS],
]
DISTANCES = [
    *[
        Column(f"{name}_{which}", f"{name_of(name)}, {which}", kind_of(name))
        for name in ("hd95", "assd")
        for which in ("median", "p95", "mean")
    ],
    Column("scored", "scored", "count"),
    Column("missed", "missed", "count"),
    Column("spurious", "spurious", "count"),
    Column("both_empty", "both empty", "count"),
]
POOLED = (
    "pooled: the counts of all pictures are added up, over folds and seeds, and then divided. "
    f"{EVERY}: counts added up, PQ, SQ, RQ and AP the mean over the classes that have them. Failed pictures are in no "
    "count."
)
OVER_FOLDS = (
    "mean ± sample standard deviation over folds, the counts of a fold pooled over its pictures; PQ, SQ, RQ and AP "
    "are means over the classes that have them. Formulas, and what an object is, under the table of pooled objects."
)
FORMULAS = f"PQ = {SCORES['pq'].formula}, RQ = {SCORES['rq'].formula}, a match needs an IoU above 0.5"
PRECISION = (
    f" AP (Caicedo 2019): {SCORES['object_ap'].formula}; objects of a class map have no score, so this is not the AP "
    "of COCO, which ranks them by one."
)
AJI = f" AJI (Kumar 2017), areas in place of counts: {SCORES['aji'].formula}."
OVER_PICTURES = (
    "median, 95th percentile and mean over the pictures in which truth or prediction holds the class (scored), in "
    "pixels. Where only the truth (missed) or only the prediction (spurious) holds it, the distance is the picture's "
    "diagonal; where neither does (both empty), there is none. Counts are over folds and seeds. Failed pictures are "
    "in no count."
)
Cells = Callable[[Sequence[ObjectRow]], list[list[Cell]]]


@dataclass(frozen=True)
class Section:
    """Rows of one model, of one group or (no name) of all."""

    model: Model
    group: str
    rows: Sequence[ObjectRow]


def object_tables(models: Sequence[Model], on: ScoredOn) -> list[Table]:
    """``objects`` (pooled, and over folds), ``distances`` and ``clustering``, as far as the runs have such rows.

    Objects and distances also by group where a group holds several pictures. Empty when no run has rows of the metric
    pool.
    """
    found = [Section(model, "", model.objects(on)) for model in models if model.finished]
    found = [section for section in found if section.rows]
    if not found:
        return []
    groups = [
        Section(section.model, group, rows)
        for section in found
        for group, rows in by_group(section.rows, groups_of(section.model, on)).items()
    ]
    where = f"{on.part} part, {on.inference}"
    counted = [row.metrics for section in found for row in section.rows]
    areas = any(each.objects for each in counted)  # only metrics=instances has them
    strict = any(each.panoptic and each.panoptic.tp_above for each in counted)
    known = {"aji": areas, "object_ap": strict}
    columns = [column for column in OBJECTS if known.get(column.key.rstrip("0123456789"), True)]
    quality = partial(_quality, columns)
    formula = f"{FORMULAS}; {objects_are(models, on)}.{PRECISION * strict}{AJI * areas}"
    objects, distances = f"{where}; {POOLED} {formula}", f"Distances of contours, {where}; {OVER_PICTURES}"
    tables = [
        _by_class("objects", f"Panoptic quality, {objects}", columns, "panoptic", quality, found),
        _over_folds(found, columns[: -len(COUNTS)], on, f"{where}: {OVER_FOLDS}"),
        _by_class("distances", distances, DISTANCES, "surface", _distances, found),
        _clustering(found, where),
        _by_class("objects_groups", f"Panoptic quality by group, {objects}", columns, "panoptic", quality, groups),
        _by_class("distances_groups", f"By group. {distances}", DISTANCES, "surface", _distances, groups),
    ]
    return [table for table in tables if table.rows]


def _over_folds(sections: Sequence[Section], columns: Sequence[Column], on: ScoredOn, caption: str) -> Table:
    """One row per model: each fold pooled on its own, over all classes; seeds of a fold are averaged first."""
    rows: list[list[Cell]] = []
    for model in (section.model for section in sections):
        folds = model.per_fold(lambda run: run.objects(on) or None)
        scores = [[all_classes(each) for each in seeds] for seeds in folds.values()]
        over = {
            column.key: mean_std([mean_std([one[column.key] for one in seeds]).mean for seeds in scores])
            for column in columns
        }
        if over["pq"].num:
            rows.append([model.label, f"{len(folds)} of {model.num_folds}", *over.values()])
    head = [Column("model", "model"), Column("folds", "folds")]
    return Table("objects_folds", f"Objects over folds, {caption}", [*head, *columns], rows)


def _by_class(
    name: str, caption: str, columns: Sequence[Column], metric: Metric, cells: Cells, sections: Sequence[Section]
) -> Table:
    """One row per section and class; in a group, only for the classes that occur there."""
    grouped = any(section.group for section in sections)
    head = [Column("model", "model"), *([Column("group", "group")] if grouped else []), Column("class", "class")]
    rows: list[list[Cell]] = []
    for section in sections:
        start: list[Cell] = [section.model.label, *([section.group] if grouped else [])]
        num_failed = len(failed(section.rows, metric))
        for title, values in zip([*section.model.classes, EVERY], cells(section.rows), strict=False):
            if not grouped or not _is_nan(values[0]):
                rows.append([*start, title, *values, num_failed])
    return Table(name, caption, [*head, *columns, FAILED], rows)


def _quality(columns: Sequence[Column], rows: Sequence[ObjectRow]) -> list[list[Cell]]:
    """A row per class, then one of all; AJI does not tell classes apart, so it stands in the last row only."""
    classes = quality_of(rows)
    if not classes:
        return []
    every = all_classes(rows) | {name: sum(each[name] for each in classes) for name in COUNTS}
    return [[each.get(column.key) for column in columns] for each in [*classes, every]]


def _distances(rows: Sequence[ObjectRow]) -> list[list[Cell]]:
    return [
        [
            *(value for spread in (each.hd95, each.assd) for value in (spread.median, spread.p95, spread.mean)),
            each.num_scored,
            each.num_missed,
            each.num_spurious,
            each.num_both_empty,
        ]
        for each in distances_of(rows)
    ]


def _clustering(sections: Sequence[Section], where: str) -> Table:
    columns = [Column("model", "model"), *[Column(name, title_of(name), "pictures") for name in CLUSTERING]]
    columns += [Column("scored", "pictures", "count"), Column("unscored", "without a valid pixel", "count"), FAILED]
    rows: list[list[Cell]] = []
    for section in sections:
        if found := partition_of(section.rows):
            scores: list[Cell] = [found.scores[name] for name in CLUSTERING]
            num_scored = found.scores["ari"].num
            rows.append([section.model.label, *scores, num_scored, found.num_unscored, found.num_failed])
    caption = (
        f"Class maps as partitions of the pixels, {where}: mean ± sample standard deviation over pictures, seeds "
        "averaged first. ARI: 1 for equal partitions, 0 for unrelated ones. VOI: 0 for equal partitions; its parts "
        "say how far the prediction cuts (split) and joins (merge) the regions of the truth."
    )
    return Table("clustering", caption, columns, rows)


def _is_nan(cell: Cell) -> bool:
    return isinstance(cell, float) and math.isnan(cell)
