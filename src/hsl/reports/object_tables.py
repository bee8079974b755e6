"""Tables of tier 3: objects, distances and partitions, per class and per group."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hsl.reports.objects import (
    CLUSTERING,
    Metric,
    by_group,
    distances_of,
    failed,
    groups_of,
    partition_of,
    quality_of,
)
from hsl.reports.results import Model
from hsl.reports.run_files import ObjectRow
from hsl.reports.statistics import mean_std
from hsl.reports.tables import Cell, Column, Table

EVERY = "all classes"
FAILED = Column("failed", "failed pictures", "count")
OBJECTS = [
    Column("pq", "PQ (%)", "share"),
    Column("sq", "SQ (%)", "share"),
    Column("rq", "RQ (%)", "share"),
    Column("tp", "TP", "count"),
    Column("fp", "FP", "count"),
    Column("fn", "FN", "count"),
]
DISTANCES = [
    *[
        Column(f"{key}_{which}", f"{title}, {which}", "pixels")
        for key, title in (("hd95", "HD95"), ("assd", "ASSD"))
        for which in ("median", "p95", "mean")
    ],
    Column("scored", "scored", "count"),
    Column("missed", "missed", "count"),
    Column("spurious", "spurious", "count"),
    Column("both_empty", "both empty", "count"),
]
POOLED = (
    "pooled: the counts of all pictures are added up, over folds and seeds, and then divided. "
    "PQ = SQ x RQ = IoU sum / (TP + FP/2 + FN/2); objects are connected components, a match needs an IoU above 0.5. "
    f"{EVERY}: counts added up, PQ, SQ and RQ the mean over the classes that have them. Failed pictures are in no "
    "count."
)
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


def object_tables(models: Sequence[Model], part: str, inference: str) -> list[Table]:
    """``objects``, ``distances`` and ``clustering``; the first two also by group where a group holds several pictures.

    Empty when no run has rows of the metric pool.
    """
    found = [Section(model, "", model.objects(part, inference)) for model in models if model.finished]
    found = [section for section in found if section.rows]
    if not found:
        return []
    groups = [
        Section(section.model, group, rows)
        for section in found
        for group, rows in by_group(section.rows, groups_of(section.model, part, inference)).items()
    ]
    where = f"{part} part, {inference}"
    objects, distances = f"Panoptic quality, {where}; {POOLED}", f"Distances of contours, {where}; {OVER_PICTURES}"
    tables = [
        _by_class("objects", objects, OBJECTS, "panoptic", _quality, found),
        _by_class("distances", distances, DISTANCES, "surface", _distances, found),
        _clustering(found, where),
    ]
    if groups:
        tables += [
            _by_class("objects_groups", f"By group. {objects}", OBJECTS, "panoptic", _quality, groups),
            _by_class("distances_groups", f"By group. {distances}", DISTANCES, "surface", _distances, groups),
        ]
    return tables


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


def _quality(rows: Sequence[ObjectRow]) -> list[list[Cell]]:
    found = quality_of(rows)
    if not found:
        return []
    classes: list[list[Cell]] = [[each.pq, each.sq, each.rq, each.tp, each.fp, each.fn] for each in found]
    shares: list[Cell] = [mean_std([getattr(each, name) for each in found]).mean for name in ("pq", "sq", "rq")]
    sums: list[Cell] = [sum(getattr(each, name) for each in found) for name in ("tp", "fp", "fn")]
    return [*classes, [*shares, *sums]]


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
    titles = {"ari": "ARI", "voi": "VOI (bits)", "voi_split": "VOI, split", "voi_merge": "VOI, merge"}
    columns = [Column("model", "model"), *[Column(name, titles[name], "pictures") for name in CLUSTERING]]
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
