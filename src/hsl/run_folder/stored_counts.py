"""What the scores of every image are made from: ``objects.jsonl`` of the metric pool, and ``pixel_counts.npz``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from hsl.errors import DataError
from hsl.files.io import read_arrays, write_arrays
from hsl.files.row_file import read_rows
from hsl.run_folder.layout import OBJECTS

NUM_THRESHOLDS = 10  # of the IoU, see `hsl.metrics.objects.average_precision.THRESHOLDS`
PerThreshold = Annotated[list[int], Field(min_length=NUM_THRESHOLDS, max_length=NUM_THRESHOLDS)]
NUM_COUNTS = 7  # rows of ``boundaries``, see `hsl.metrics.pixels.formulas.BOUNDARY_COUNTS`
NUM_BINS = 15  # see `hsl.metrics.pixels.formulas.NUM_BINS`
KEYS = ("ids", "part", "inference")


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


@dataclass(frozen=True, eq=False)
class Pictures:
    """The stored counts of several pictures: ``arrays``, whose first dimension runs over ``ids``, by name.

    They are those of `hsl.metrics.pixels.pixel_counts.PixelCounts`.
    """

    ids: Sequence[str]
    arrays: Mapping[str, NDArray[Any]]

    @cached_property
    def totals(self) -> Mapping[str, NDArray[Any]]:
        """The sums over the pictures."""
        return {name: array.sum(0) for name, array in self.arrays.items()}

    @property
    def confusion(self) -> NDArray[np.int64]:
        """``(N, C, C)``, rows the truth."""
        matrices: NDArray[np.int64] = self.arrays["matrices"].sum(1)
        return matrices


def write_pixel_counts(path: Path, pictures: Mapping[tuple[str, str], Pictures]) -> None:
    """Write the counts of the pictures of every (part, inference)."""
    keys = [(name, *on) for on, some in pictures.items() for name in some.ids]
    stored = {name: np.array([key[i] for key in keys]) for i, name in enumerate(KEYS)}
    for name in next(iter(pictures.values())).arrays:
        stored[name] = np.concatenate([some.arrays[name] for some in pictures.values()])
    write_arrays(path, stored)


def read_pixel_counts(path: Path, num_classes: int) -> dict[tuple[str, str], Pictures]:
    """(part, inference) to the counts of its pictures.

    Raises:
        DataError: the file is missing or broken, an array has another shape, or a picture appears twice.
    """
    if not path.exists():
        raise DataError(f"`{path}` is missing: boundary and calibration scores are unknown.")
    shapes = _shapes(num_classes)
    content = read_arrays(path, [*KEYS, *shapes])
    ids, parts, inferences = (np.asarray(content[name]).astype(str) for name in KEYS)
    for name, shape in (dict.fromkeys(KEYS, ()) | shapes).items():
        if content[name].shape != (wanted := (ids.size, *shape)):
            raise DataError(f"`{path}`: `{name}` should have the shape {wanted}. Found {content[name].shape}.")
    found: dict[tuple[str, str], Pictures] = {}
    for part, inference in sorted(set(zip(parts.tolist(), inferences.tolist(), strict=True))):
        chosen = np.flatnonzero((parts == part) & (inferences == inference))
        names = ids[chosen].tolist()
        if len(set(names)) < len(names):
            raise DataError(f"`{path}` should hold each picture once. Found one twice in {part}, {inference}.")
        found[part, inference] = Pictures(names, {name: content[name][chosen] for name in shapes})
    return found


def _shapes(num_classes: int) -> dict[str, tuple[int, ...]]:
    """Of each array, behind the dimension of the pictures."""
    return {
        "matrices": (2, num_classes, num_classes),
        "boundaries": (NUM_COUNTS, num_classes),
        "pixels": (2, NUM_BINS),
        "confidence": (NUM_BINS,),
        "nll": (),
        "brier": (),
    }
