"""Scores of one run, of its pixels or of its image head, made from the counts that it stored."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from hsl.metrics.catalogue import SCORES, score_names
from hsl.metrics.images.image_counts import ImageCounts
from hsl.metrics.images.image_scores import image_scores
from hsl.metrics.pixels.formulas import Floats, confusion_scores
from hsl.metrics.pixels.pixel_counts import CONFUSION_METRICS, EMPTY_ONE, METRICS, PER_CLASS, PixelCounts
from hsl.run_folder.pictures import ImagePictures
from hsl.run_folder.run import Run, ScoredOn
from hsl.run_folder.scores import StoredHead
from hsl.run_folder.stored_counts import Pictures

CURVES = score_names("images", "curves")
IMAGE_METRICS = score_names("images")
SHOWN = tuple(name for name in IMAGE_METRICS if SCORES[name].tabled)
IMAGE_PER_CLASS = score_names("images", per_class=True)
Counts = PixelCounts | ImageCounts
INFERENCES = ("plain", "tta")


@dataclass(frozen=True)
class Counted:
    """The pictures of a part, by id, and the counts of each ``(N, ...)``."""

    ids: Sequence[str]
    counts: Counts

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Id to place."""
        return {name: i for i, name in enumerate(self.ids)}


@dataclass(frozen=True)
class Scores:
    """Scores of pooled counts: ``overall`` by name, ``per_class`` by name as ``(C,)``; NaN where nothing is scored.

    ``thresholds``: by class, of an image head of several classes.
    """

    overall: Mapping[str, float]
    per_class: Mapping[str, Floats]
    thresholds: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def classes_scored(self) -> int:
        """How many classes of pixels are in truth or prediction."""
        return int(np.isfinite(self.per_class["iou"]).sum())

    @classmethod
    def of(cls, confusion: NDArray[np.int64]) -> "Scores":
        """Recompute the scores that a confusion matrix has, by the definition that the runs use; others are NaN."""
        table = confusion_scores(confusion)
        unknown = np.full(len(confusion), math.nan)
        known = {name: float(table[name]) for name in CONFUSION_METRICS}
        return cls(
            dict.fromkeys(METRICS, math.nan) | known,
            {name: table.get(name, unknown) for name in PER_CLASS},
        )

    @classmethod
    def of_counts(cls, counts: Counts) -> "Scores":
        """Recompute every score that sums have; of pixels the error shares too."""
        return cls(counts.scores(), counts.per_class())

    @classmethod
    def of_run(cls, run: Run, on: ScoredOn) -> "Scores | None":
        """Every score for which the run left counts, of pixels also ``EMPTY_ONE``; none where it was not scored.

        What an image head left no predictions of is that of ``metrics.json``.
        """
        return _of_run(run, on)


@lru_cache(maxsize=2048)
def _of_run(run: Run, on: ScoredOn) -> Scores | None:
    if run.of_images:
        stored = run.stored(on)
        return _of_image_head(run, on, stored) if isinstance(stored, StoredHead) else None
    counts, confusion = total_counts(run, on), run.confusion(on)
    if confusion is None:
        return None
    found = Scores.of_counts(counts) if counts else Scores.of(confusion)
    pictures = run.pictures.get(on)
    beside = dict.fromkeys(EMPTY_ONE, math.nan) if pictures is None else PixelCounts(**pictures.arrays).empty_one()
    return Scores({**found.overall, **beside}, found.per_class)


def _of_image_head(run: Run, on: ScoredOn, stored: StoredHead) -> Scores:
    """What counts decide follows from the predictions of the run, the areas under the curves from its probabilities."""
    pictures, thresholds = run.image_pictures.get(on), stored.thresholds or {}
    if pictures is None:
        overall = {name: _number(stored.scores.get(name)) for name in IMAGE_METRICS}
        rows = [stored.per_class.get(name, {}) for name in run.classes]
        names = (*IMAGE_PER_CLASS, "support")
        return Scores(overall, {key: np.array([_number(row.get(key)) for row in rows]) for key in names}, thresholds)
    found = Scores.of_counts(picture_counts(pictures).total)
    by_definition = image_scores(pictures.probabilities, pictures.labels)
    curves = {name: by_definition[name] for name in CURVES}
    areas = {name: by_definition["per_class"][name] for name in score_names("images", "curves", per_class=True)}
    return Scores({**found.overall, **curves}, {**found.per_class, **areas}, thresholds)


def counted(run: Run, on: ScoredOn) -> Counted | None:
    """The counts of every picture; none where the run left none."""
    pictures = run.image_pictures.get(on) if run.of_images else run.pictures.get(on)
    return None if pictures is None else Counted(pictures.ids, picture_counts(pictures))


def total_counts(run: Run, on: ScoredOn) -> Counts | None:
    """Their sum over the pictures."""
    if not run.of_images and (pictures := run.pictures.get(on)):
        return PixelCounts(**pictures.totals)
    found = counted(run, on)
    return None if found is None else found.counts.total


def picture_groups(run: Run, on: ScoredOn) -> dict[str, str]:
    """Id to the group of every picture that was scored."""
    if not run.of_images:
        return {name: row.group for name, row in run.images.get(on, {}).items()}
    pictures = run.image_pictures.get(on)
    return dict(zip(pictures.ids, pictures.groups, strict=True)) if pictures else {}


def picture_counts(pictures: Pictures | ImagePictures) -> Counts:
    """Of every picture by itself."""
    if isinstance(pictures, Pictures):
        return PixelCounts(**pictures.arrays)
    return ImageCounts.of(pictures.target, pictures.predicted, pictures.several)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
