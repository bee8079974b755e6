"""Tier 3: data-set values of objects, distances and partitions, from the rows of the metric pool."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from hsl.batch import DISTANCE
from hsl.metrics.catalogue import score_names
from hsl.metrics.objects.average_precision import pool_precision
from hsl.metrics.objects.jaccard import pool_objects
from hsl.metrics.objects.panoptic import pool_panoptic
from hsl.metrics.objects.surface import summarise_surface
from hsl.reports.models import Model
from hsl.reports.statistics.paired_tests import Summary, mean_std
from hsl.run_folder.run import ScoredOn
from hsl.run_folder.stored_counts import ObjectRow

COUNTS = ("tp", "fp", "fn")
MATCHED = score_names("objects", "matches")
CLUSTERING = score_names("objects", "regions")
WORKER = "worker"  # the error record of a picture that killed its worker: no metric of it is known
Metric = Literal["surface", "panoptic", "objects", "clustering"]
TRUE = (
    "the instance maps of the data set",
    "connected components, or the instance maps of the data set where it has any",
)
PREDICTED = ("basins of a watershed on the predicted distance map", "connected components")


@dataclass(frozen=True)
class Spread:
    """Mean, median and 95th percentile over the pictures in which a class is scored."""

    mean: float
    median: float
    p95: float


@dataclass(frozen=True)
class Distances:
    """HD95 and ASSD of one class in pixels; ``missed`` and ``spurious`` count the pictures with one contour empty."""

    hd95: Spread
    assd: Spread
    num_scored: int
    num_both_empty: int
    num_missed: int
    num_spurious: int


@dataclass(frozen=True)
class Partition:
    """Means over pictures of ARI and VOI (bits) by name, and how many pictures had no score or failed."""

    scores: Mapping[str, Summary]
    num_unscored: int
    num_failed: int


def quality_of(rows: Sequence[ObjectRow]) -> list[dict[str, float]]:
    """By class ``MATCHED`` and ``COUNTS``, pooled over pictures; NaN where nothing is to be found.

    Empty where no row has the counts.
    """
    if not (found := _found(rows, "panoptic")):
        return []
    pooled, names = pool_panoptic(found) | pool_precision(found), (*MATCHED, *COUNTS)
    return [dict(zip(names, values, strict=True)) for values in zip(*(pooled[name] for name in names), strict=True)]


def all_classes(rows: Sequence[ObjectRow]) -> dict[str, float]:
    """Data-set values over all classes: ``MATCHED`` as means over the classes that have them, and ``aji``.

    AJI is pooled too, and NaN where no row has its areas (``metrics=instances`` counts them).
    """
    classes, counted = quality_of(rows), _found(rows, "objects")
    found = {name: mean_std([each[name] for each in classes]).mean for name in MATCHED}
    return found | {"aji": pool_objects(counted)["aji"] if counted else math.nan}


def objects_are(models: Sequence[Model], on: ScoredOn) -> str:
    """A clause on what the runs counted as an object; where the models differ in it, it names them."""
    true: dict[str, list[str]] = {}
    predicted: dict[str, list[str]] = {}
    for model in models:
        if rows := model.objects(on):
            counted = any(row.metrics.objects for row in rows)
            true.setdefault(TRUE[0 if counted else 1], []).append(model.label)
            cut = all(_cuts(run.config) for run in model.finished.values())
            predicted.setdefault(PREDICTED[0 if cut else 1], []).append(model.label)
    return f"true objects are {_of_whom(true)}; predicted objects are {_of_whom(predicted)}"


def _of_whom(told: Mapping[str, Sequence[str]]) -> str:
    """What most models do, then by name those that do otherwise."""
    first, *others = sorted(told, key=lambda text: -len(told[text]))
    return "; ".join([first, *(f"of {', '.join(told[text])} {text}" for text in others)])


def _cuts(config: Mapping[str, Any]) -> bool:
    """Whether the network of a run predicts distances: the head is evaluated, and a part of the loss trains it."""
    task, loss = config.get("task") or {}, config.get("loss") or {}
    evaluated = (task.get("network") or {}).get("evaluated") or ()
    return DISTANCE in evaluated and (loss.get("weights") or {}).get(DISTANCE, 0) > 0


def distances_of(rows: Sequence[ObjectRow]) -> list[Distances]:
    """One entry per class; empty where no row has distances."""
    if not (found := _found(rows, "surface")):
        return []
    table = summarise_surface(found)
    spreads = {
        name: [
            Spread(*values)
            for values in zip(*(table[f"{name}_{kind}"] for kind in ("mean", "median", "p95")), strict=True)
        ]
        for name in ("hd95", "assd")
    }
    counts = [table[name] for name in ("num_scored", "num_both_empty", "num_missed", "num_spurious")]
    return [
        Distances(spreads["hd95"][i], spreads["assd"][i], *(int(count[i]) for count in counts))
        for i in range(len(counts[0]))
    ]


def partition_of(rows: Sequence[ObjectRow]) -> Partition | None:
    """Several seeds of one picture are averaged first; none where no row has the scores."""
    if not any(row.metrics.clustering for row in rows) and not failed(rows, "clustering"):
        return None
    values: dict[str, dict[str, list[float]]] = {name: {} for name in CLUSTERING}
    for row in rows:
        for name in CLUSTERING if row.metrics.clustering else ():
            value = getattr(row.metrics.clustering, name)
            values[name].setdefault(row.id, []).append(math.nan if value is None else value)
    means = {name: [mean_std(found).mean for found in values[name].values()] for name in CLUSTERING}
    num_unscored = sum(math.isnan(value) for value in means["ari"])
    scores = {name: mean_std(found) for name, found in means.items()}
    return Partition(scores, num_unscored, len(failed(rows, "clustering")))


def failed(rows: Sequence[ObjectRow], metric: Metric) -> set[str]:
    """Ids of the pictures for which a metric ended with an error, in any run; they are in no score."""
    return {
        row.id for row in rows if not getattr(row.metrics, metric) and (metric in row.errors or WORKER in row.errors)
    }


def groups_of(model: Model, on: ScoredOn) -> dict[str, str]:
    """Id to group, by the per-image rows of the runs."""
    return {name: row.group for run in model.finished.values() for name, row in run.images.get(on, {}).items()}


def by_group(rows: Sequence[ObjectRow], groups: Mapping[str, str]) -> dict[str, list[ObjectRow]]:
    """Group to its rows; empty unless there are several groups and one of them holds several pictures."""
    found: dict[str, list[ObjectRow]] = {}
    for row in rows:
        found.setdefault(groups.get(row.id, row.id), []).append(row)
    several = 1 < len(found) < len({row.id for row in rows})
    return dict(sorted(found.items())) if several else {}


def _found(rows: Sequence[ObjectRow], metric: Metric) -> list[dict[str, list[float]]]:
    metrics: list[BaseModel | None] = [getattr(row.metrics, metric) for row in rows]
    return [each.model_dump() for each in metrics if each is not None]
