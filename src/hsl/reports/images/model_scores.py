"""Scores of image heads: of a run, and of a model over its folds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hsl.metrics.catalogue import score_names
from hsl.metrics.images.image_counts import COUNTED, Floats, ImageCounts
from hsl.metrics.images.image_scores import image_scores as scores_by_definition
from hsl.reports.counts import image_counts as counts_of
from hsl.reports.models import Model, pooled_over
from hsl.reports.statistics.paired_tests import Summary, mean_std
from hsl.run_folder.image_predictions import ImagePictures, StoredHead
from hsl.run_folder.run import Run, ScoredOn

CURVES = score_names("images", "curves")
IMAGE_METRICS = score_names("images")
IMAGE_PER_CLASS = score_names("images", per_class=True)


@dataclass(frozen=True)
class ImageHead:
    """The image head of a model: its classes, and whether a picture may show several of them."""

    classes: Sequence[str]
    several: bool


@dataclass(frozen=True)
class ImageScores:
    """``overall`` by name, ``per_class`` by name as ``(K,)``; ``thresholds`` of a head of several classes."""

    num_images: int
    overall: Mapping[str, float]
    per_class: Mapping[str, Floats]
    thresholds: Mapping[str, float | None]

    @classmethod
    def of_run(cls, run: Run, on: ScoredOn) -> "ImageScores | None":
        """From the predictions, else those in ``metrics.json``; none where the part was not scored."""
        stored = stored_head(run, on)
        if stored is None or run.metrics is None:
            return None
        pictures = run.image_pictures.get(on)
        thresholds = stored.thresholds or {}
        if pictures is not None:
            return cls(len(pictures.ids), *scores_of(pictures), thresholds)
        overall = {name: _number(stored.scores.get(name)) for name in IMAGE_METRICS}
        rows = [stored.per_class.get(name, {}) for name in run.metrics.image_classes[run.image_head]]
        per_class = {name: np.array([_number(row.get(name)) for row in rows]) for name in (*IMAGE_PER_CLASS, "support")}
        return cls(stored.num_images, overall, per_class, thresholds)


def scores_of(pictures: ImagePictures) -> tuple[dict[str, float], dict[str, Floats]]:
    """Overall scores by ``IMAGE_METRICS`` and scores per class; NaN where nothing is scored.

    What counts decide comes from the predictions that the run wrote, the areas under the curves from its probabilities.
    """
    total = counts_of(pictures).total
    by_definition = scores_by_definition(pictures.probabilities, pictures.labels)
    overall = {name: float(total.score(name)) for name in COUNTED} | {name: by_definition[name] for name in CURVES}
    areas = {name: by_definition["per_class"][name] for name in ("auroc", "average_precision")}
    return overall, total.per_class() | areas


def stored_head(run: Run, on: ScoredOn) -> StoredHead | None:
    """What ``metrics.json`` says of the image head on a part."""
    scores = run.metrics.parts.get(on.part, {}).get(on.inference) if run.metrics else None
    return None if scores is None else scores.image_heads.get(run.image_head)


def head_of(model: Model) -> ImageHead | None:
    """The image head of the model's finished runs; none where it has only dense heads."""
    for run in model.finished.values():
        if run.metrics and run.image_head:
            return ImageHead(run.metrics.image_classes[run.image_head], run.several)
    return None


def image_scores(model: Model, on: ScoredOn) -> dict[int, list[ImageScores]]:
    """Fold to one set of scores per seed; a fold not scored by every seed is left out."""
    return model.per_fold(lambda run: ImageScores.of_run(run, on))


def image_seed_scores(model: Model, name: str, on: ScoredOn) -> dict[int, list[float]]:
    """Fold to an overall score of each seed."""
    return {fold: [one.overall[name] for one in seeds] for fold, seeds in image_scores(model, on).items()}


def image_overall(model: Model, name: str, on: ScoredOn) -> dict[int, float]:
    """Fold to an overall score; several seeds are averaged within their fold first."""
    return {fold: mean_std(seeds).mean for fold, seeds in image_seed_scores(model, name, on).items()}


def image_summary(model: Model, name: str, on: ScoredOn) -> Summary:
    """An overall score over folds; all NaN when averaging is refused."""
    values = {} if model.refused else image_overall(model, name, on)
    return mean_std(list(values.values()))


def image_counts(model: Model, on: ScoredOn) -> ImageCounts | None:
    """Sum over the folds' pictures, each weighing the same; none when refused or where predictions are missing."""
    found = model.per_fold(lambda run: _total(run, on))
    complete = found.keys() == image_scores(model, on).keys()
    counts: ImageCounts | None = pooled_over(found) if complete and not model.refused else None
    return counts


def _total(run: Run, on: ScoredOn) -> ImageCounts | None:
    pictures = run.image_pictures.get(on)
    return None if pictures is None else counts_of(pictures).total


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
