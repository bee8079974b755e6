"""Reading the files of a run folder; whatever is wrong with one is a `DataError` that names it."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from hsl.config.moved import with_present_targets
from hsl.errors import DataError
from hsl.files.cells import original_rows
from hsl.files.io import read_text
from hsl.files.names import leaves_folder
from hsl.files.row_file import read_rows
from hsl.run_folder.find import Monitor, read_page
from hsl.run_folder.image_predictions import StoredHead

TEXT = ("id", "group", "part", "inference", "prediction")  # columns of per_image.csv that hold no numbers


class StoredScores(BaseModel, extra="allow"):
    """What a report needs of ``metrics.json``; null for NaN.

    The scores are not shown: those in the report are made from the counts of each picture, and have to agree.
    """

    __pydantic_extra__: dict[str, float | None]
    num_images: int | None = None
    confusion: list[list[int]] = []
    per_class: dict[str, dict[str, float | None]] = {}
    tasks: dict[str, "StoredScores"] = {}
    image_heads: dict[str, StoredHead] = {}
    instances: dict[str, float | None] = {}

    @property
    def scores(self) -> dict[str, float | None]:
        """Every other number, by name."""
        return self.__pydantic_extra__


class Metrics(BaseModel):
    """``metrics.json``: part (val, test) to inference (plain, tta) to scores.

    A network of several heads has scores of its own per task, beside those of the space in which they are fused.
    ``classes`` is empty where it has no dense head, ``image_classes`` where it has no image head. ``overlapping``: a
    pixel may show several of them, and the masks in the run folder hold the codes of `hsl.channels`.
    """

    monitor: Monitor
    classes: list[str]
    task_classes: dict[str, list[str]] = {}
    image_classes: dict[str, list[str]] = {}
    overlapping: bool = False
    parts: dict[str, dict[str, StoredScores]]


@dataclass(frozen=True)
class ImageRow:
    """One picture in ``per_image.csv``; ``scores`` holds every column of numbers but those of a class.

    ``prediction`` is where its class map lies below the run folder, empty where it was not kept.
    """

    group: str
    scores: Mapping[str, float]
    prediction: str = ""

    @property
    def miou(self) -> float:
        return self.scores["miou"]


class Surface(BaseModel):
    """``metrics.surface.surface_distances``: one value per class, null for NaN."""

    hd95: list[float | None]
    assd: list[float | None]
    prediction_contour: list[int]
    target_contour: list[int]


NUM_THRESHOLDS = 10  # of the IoU, see `hsl.metrics.objects.average_precision.THRESHOLDS`
PerThreshold = Annotated[list[int], Field(min_length=NUM_THRESHOLDS, max_length=NUM_THRESHOLDS)]


class Panoptic(BaseModel):
    """``metrics.panoptic.panoptic_counts``: one value per class, of ``tp_above`` one per threshold of AP."""

    tp: list[int]
    fp: list[int]
    fn: list[int]
    iou_sum: list[float]
    tp_above: list[PerThreshold] | None = None  # older runs have none


class Instances(BaseModel):
    """``metrics.object_scores.instance_counts``: objects of one class, areas in pixels."""

    tp: int
    fp: int
    fn: int
    aji_intersection: int
    aji_union: int


class Clustering(BaseModel):
    """``metrics.clustering.clustering_scores``: null for NaN."""

    ari: float | None
    voi: float | None
    voi_split: float | None
    voi_merge: float | None


class Failures(BaseModel):
    """``metrics.failures.object_failures``: kind to one count per class, and the largest objects."""

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


def read_config(path: Path) -> dict[str, Any]:
    """The run's own config; it has the integers ``fold`` and ``seed``."""
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise DataError(f"`{path}` is not valid YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(key), int) for key in ("fold", "seed")):
        raise DataError(f"`{path}` should be a run's config with the integers `fold` and `seed`.")
    present: dict[str, Any] = with_present_targets(content)
    return present


def read_metrics(path: Path) -> Metrics:
    """``metrics.json``, whose confusion matrices fit its classes and those of its tasks."""
    metrics = read_page(path, Metrics)
    if len(metrics.image_classes) > 1:
        raise DataError(f"`{path}` should have one image head at most. Found {', '.join(metrics.image_classes)}.")
    for part, inferences in metrics.parts.items():
        for inference, scores in inferences.items():
            place = f"{part}/{inference}"
            if scores.confusion or not scores.image_heads:  # a part may have labels of pictures and no masks
                _check_confusion(path, place, scores.confusion, len(metrics.classes))
            for task, found in scores.tasks.items():
                _check_confusion(path, f"{place}/{task}", found.confusion, len(metrics.task_classes.get(task, ())))
    return metrics


def _check_confusion(path: Path, place: str, rows: Sequence[Sequence[int]], size: int) -> None:
    if len(rows) != size or any(len(row) != size or min(row) < 0 for row in rows):
        raise DataError(
            f"`{path}`: the confusion matrix of {place} should be {size} x {size} counts, one per class. "
            "Evaluate the run again."
        )


def _read_table(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    try:
        rows = original_rows(csv.DictReader(io.StringIO(read_text(path), newline="")))
    except csv.Error as error:
        raise DataError(f"`{path}` is not a CSV table: {error}.") from None
    absent = [name for name in needed if rows and rows[0].get(name) is None]
    if absent or not rows:
        raise DataError(f"`{path}` should have rows with the columns {', '.join(needed)}. Found {len(rows)} rows.")
    return rows


def _number(text: str | None, path: Path) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        raise DataError(f"`{path}` should hold numbers. Found `{text}`.") from None


def read_images(path: Path) -> dict[tuple[str, str], dict[str, ImageRow]]:
    """``per_image.csv``: (part, inference) to id to row."""
    images: dict[tuple[str, str], dict[str, ImageRow]] = {}
    table = _read_table(path, ("id", "group", "part", "inference", "miou"))
    columns = [name for name in table[0] if name and name not in TEXT and "/" not in name]
    for row in table:
        rows = images.setdefault((row["part"], row["inference"]), {})
        if row["id"] in rows:
            raise DataError(f"`{path}` should have one row per picture. Found `{row['id']}` twice.")
        if leaves_folder(row.get("prediction") or ""):
            raise DataError(f"`{path}` should name files of its own folder. Found `{row['prediction']}`.")
        scores = {name: _number(row[name], path) for name in columns}
        rows[row["id"]] = ImageRow(row["group"], scores, row.get("prediction") or "")
    return images


def read_objects(path: Path, num_classes: int) -> dict[tuple[str, str], list[ObjectRow]]:
    """(part, inference) to the rows of the metric pool; empty without the file."""
    if not path.is_file():
        return {}
    found: dict[tuple[str, str], list[ObjectRow]] = {}
    for content in read_rows(path):
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


def read_history(path: Path) -> dict[str, list[float]]:
    """``history.csv``: column to its values, NaN where there is none; without the names of the phases."""
    rows = _read_table(path, ("epoch",))
    return {name: [_number(row.get(name), path) for row in rows] for name in rows[0] if name and name != "phase"}
