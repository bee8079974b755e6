"""``objects.jsonl``: what the metric pool found in every picture."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from hsl.errors import DataError
from hsl.files.row_file import read_rows
from hsl.run_folder.layout import OBJECTS

NUM_THRESHOLDS = 10  # of the IoU, see `hsl.metrics.objects.average_precision.THRESHOLDS`
PerThreshold = Annotated[list[int], Field(min_length=NUM_THRESHOLDS, max_length=NUM_THRESHOLDS)]


class Surface(BaseModel):
    """``hsl.metrics.objects.surface.surface_distances``: one value per class, null for NaN."""

    hd95: list[float | None]
    assd: list[float | None]
    prediction_contour: list[int]
    target_contour: list[int]


class Panoptic(BaseModel):
    """``hsl.metrics.objects.panoptic.panoptic_counts``: one value per class, of ``tp_above`` one per threshold."""

    tp: list[int]
    fp: list[int]
    fn: list[int]
    iou_sum: list[float]
    tp_above: list[PerThreshold] | None = None  # older runs have none


class Instances(BaseModel):
    """``hsl.metrics.objects.jaccard.instance_counts``: objects of one class, areas in pixels."""

    tp: int
    fp: int
    fn: int
    aji_intersection: int
    aji_union: int


class Clustering(BaseModel):
    """``hsl.metrics.objects.clustering.clustering_scores``: null for NaN."""

    ari: float | None
    voi: float | None
    voi_split: float | None
    voi_merge: float | None


class Failures(BaseModel):
    """``hsl.metrics.objects.failures.object_failures``: kind to one count per class, and the largest objects."""

    false_negatives: dict[str, list[int]]
    false_positives: dict[str, list[int]]
    objects: list[dict[str, Any]]


class ObjectMetrics(BaseModel):
    """What the metric pool found in a picture; none: not measured, or it failed."""

    surface: Surface | None = None
    panoptic: Panoptic | None = None
    objects: Instances | None = None
    clustering: Clustering | None = None
    failures: Failures | None = None


class ObjectRow(BaseModel):
    """A line of ``objects.jsonl``; ``errors`` has an entry per metric that failed."""

    id: str
    metrics: ObjectMetrics
    errors: dict[str, dict[str, str]]


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines as `hsl.metrics.pool.pool.MetricPool` wrote them; none without the file."""
    return list(read_rows(folder / OBJECTS)) if (folder / OBJECTS).is_file() else []


def read_objects(folder: Path, num_classes: int) -> dict[tuple[str, str], list[ObjectRow]]:
    """(part, inference) to the rows of the metric pool; empty without the file."""
    path = folder / OBJECTS
    found: dict[tuple[str, str], list[ObjectRow]] = {}
    for content in read_lines(folder):
        try:
            row = ObjectRow.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(each) for each in first["loc"])
            raise DataError(f"`{path}`, picture {content['id']!r}: `{place}`: {first['msg']}.") from None
        for metric in (row.metrics.surface, row.metrics.panoptic):
            lists = metric.model_dump(exclude_none=True) if metric else {}
            if wrong := [name for name, values in lists.items() if len(values) != num_classes]:
                raise DataError(f"`{path}`, picture {row.id!r}: `{wrong[0]}` should have {num_classes} values.")
        part, _, inference = str(content["part"]).partition("/")
        found.setdefault((part, inference), []).append(row)
    return found
