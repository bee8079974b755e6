"""Which pictures two models can be compared on, and what each of them got there."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.metrics.pixels.pixel_counts import Floats, PixelCounts
from hsl.reports.counts import picture_counts
from hsl.reports.models import Model
from hsl.reports.statistics.paired_tests import mean_std
from hsl.run_folder.layout import PROVENANCE, SPLITS
from hsl.run_folder.pixel_counts import Pictures
from hsl.run_folder.run import Run, ScoredOn


class NotPairedError(ValueError):
    """Two models have no pictures in common, or not for certain."""


@dataclass(frozen=True)
class Scored:
    """What a model got on the pictures of some folds: id to score and to group, and the counts of each run.

    Several seeds (for a test part also folds) are averaged in ``scores``. ``runs`` is empty where one of them
    left no pixel counts.
    """

    scores: Mapping[str, float]
    groups: Mapping[str, str]
    runs: Sequence[Pictures] = ()

    def counts(self, ids: Sequence[str]) -> PixelCounts | None:
        """Counts of each picture ``(N, ...)``; none where one has none.

        Summed over the runs that scored the picture and brought to one weight, so that each weighs the same.
        """
        times = self._times(ids)
        if not times.all():
            return None
        factor = np.lcm.reduce(times) // times
        sums = [
            self._sum(ids, lambda counts, name=each.name: getattr(counts, name))  # type: ignore[misc]
            for each in fields(PixelCounts)
        ]
        return PixelCounts(*[array * factor.reshape(-1, *[1] * (array.ndim - 1)) for array in sums])

    def labelled(self) -> tuple[str, ...]:
        """The pictures with a labelled pixel; where a run left no pixel counts, those with a score.

        A picture without foreground has no `foreground_iou` of its own where nothing is predicted there, and yet what
        is predicted there counts in the pooled score.
        """
        ids = tuple(self.scores)
        if not self._times(ids).all():
            return tuple(name for name in ids if not math.isnan(self.scores[name]))
        pixels = self._sum(ids, lambda counts: counts.confusion.sum((-1, -2)))
        return tuple(name for name, num in zip(ids, pixels.tolist(), strict=True) if num)

    def class_iou(self, ids: Sequence[str]) -> Floats | None:
        """IoU of each class ``(N, C)``, the mean over the runs; NaN where the truth does not hold the class."""
        times = self._times(ids)
        if not times.all():
            return None
        present = self._sum(ids, lambda counts: counts.confusion.sum(-1)) > 0
        iou = self._sum(ids, lambda counts: np.nan_to_num(counts.per_class()["iou"])) / times[:, None]
        return np.where(present, iou, np.nan)

    def _sum(self, ids: Sequence[str], read: Callable[[PixelCounts], NDArray[Any]]) -> NDArray[Any]:
        """Of each picture, over the runs that scored it."""
        total: NDArray[Any] | None = None
        for run in self.runs:
            here = [i for i, name in enumerate(ids) if name in run.places]
            values = read(picture_counts(run.pick([ids[i] for i in here])))
            if total is None:
                total = np.zeros((len(ids), *values.shape[1:]), dtype=values.dtype)
            total[here] += values
        return np.zeros(len(ids)) if total is None else total

    def _times(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """How many runs scored each picture."""
        return np.array([sum(name in run.places for run in self.runs) for name in ids], dtype=np.int64)


def common_folds(first: Model, second: Model, classes: Callable[[Model], object] = attrgetter("classes")) -> list[int]:
    """The folds that both have finished.

    Args:
        first: a model.
        second: another.
        classes: what both must know alike; by default the classes of their pixels.

    Raises:
        NotPairedError: a model is refused, their data, fold assignments, test pictures or classes are unlike or
            not known, or there is no such fold.
    """
    for model in (first, second):
        if model.refused:
            raise NotPairedError(f"{model.label}: {model.refused}")
    hashes = [
        str(next(iter(model.finished.values())).provenance.get("split_sha256") or "") for model in (first, second)
    ]
    for model, digest in zip((first, second), hashes, strict=True):
        if not digest:
            raise NotPairedError(f"{model.label}: {PROVENANCE} does not tell the split hash")
        if model.split is None:
            raise NotPairedError(f"{model.label}: no run has a {SPLITS} that can be read")
    if hashes[0] != hashes[1]:
        raise NotPairedError(f"they saw unlike data (split hashes {hashes[0][:12]} and {hashes[1][:12]})")
    if first.split and second.split and sorted(first.split.test) != sorted(second.split.test):
        raise NotPairedError("they have unlike test pictures")
    if first.split and second.split and first.split.assignment != second.split.assignment:
        raise NotPairedError("they have unlike fold assignments of the same data")
    if classes(first) != classes(second):
        raise NotPairedError("they have unlike class lists")
    folds = sorted(set(first.folds) & set(second.folds))
    if not folds:
        raise NotPairedError("no fold is finished in both")
    if changed := [fold for fold in folds if len(_annotations(first, fold) | _annotations(second, fold)) > 1]:
        raise NotPairedError(f"masks or labels changed between their runs of fold {', '.join(map(str, changed))}")
    return folds


def _annotations(model: Model, fold: int) -> set[tuple[str, str]]:
    """Hashes of what was scored in validation and test; runs of before do not tell them."""
    told = [run.provenance.get("annotations_sha256") for (number, _), run in model.finished.items() if number == fold]
    return {(hashes["val"], hashes["test"]) for hashes in told if hashes}


def scored_pictures(model: Model, folds: Sequence[int], on: ScoredOn, metric: str) -> Scored:
    """The pictures of some folds with their score and group.

    Raises:
        NotPairedError: a run has no row of a picture, or the runs of a fold scored unlike pictures.
    """
    values: dict[str, list[float]] = {}
    groups: dict[str, str] = {}
    runs = [run for fold in folds for run in model.seeds(fold)]
    for fold in folds:
        found = [run.images.get(on, {}) for run in model.seeds(fold)]
        if not all(found) or len({frozenset(rows) for rows in found}) > 1:
            raise NotPairedError(f"{model.label} has no complete per-image rows for {on} in fold {fold}")
    for run in runs:
        for name, score in _picture_scores(run, on, metric).items():
            values.setdefault(name, []).append(score)
            groups[name] = run.images[on][name].group
    counts = [run.pictures.get(on) for run in runs]
    known = [each for each in counts if each is not None]
    scores = {name: mean_std(found).mean for name, found in sorted(values.items())}
    return Scored(scores, groups, known if len(known) == len(counts) else ())


def _picture_scores(run: Run, on: ScoredOn, metric: str) -> dict[str, float]:
    """Id to score: the column of ``per_image.csv``, else from the pixel counts; NaN where neither is there."""
    rows, pictures = run.images[on], run.pictures.get(on)
    if pictures and not all(metric in row.scores for row in rows.values()):
        scores = dict(zip(pictures.ids, picture_counts(pictures).score(metric).tolist(), strict=True))
        return {name: scores.get(name, float("nan")) for name in rows}
    return {name: row.scores.get(metric, float("nan")) for name, row in rows.items()}
