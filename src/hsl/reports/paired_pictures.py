"""Which pictures two models can be compared on, and what each of them got there."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.metrics.pixels.formulas import Floats
from hsl.metrics.pixels.pixel_counts import PixelCounts
from hsl.reports.models import Model
from hsl.reports.scores import Counted, Counts, counted, picture_groups
from hsl.reports.statistics.paired_tests import mean_std
from hsl.run_folder.layout import PROVENANCE, SPLITS
from hsl.run_folder.run import Run, ScoredOn


class NotPairedError(ValueError):
    """Two models have no pictures in common, or not for certain."""


@dataclass(frozen=True)
class PairedScores:
    """What a model got on the pictures of some folds: id to score and to group, and the counts of each run.

    Several seeds (for a test part also folds) are averaged in ``scores``. ``runs`` is empty where one of them
    left no counts.
    """

    scores: Mapping[str, float]
    groups: Mapping[str, str]
    runs: Sequence[Counted] = ()

    def counts(self, ids: Sequence[str]) -> Counts | None:
        """Counts of each picture ``(N, ...)``; none where one has none.

        Summed over the runs that scored the picture and brought to one weight, so that each weighs the same.
        """
        times = self._times(ids)
        if not self.runs or not times.all():
            return None
        factor = np.lcm.reduce(times) // times
        total: Any = None
        for run in self.runs:
            here = np.array([i for i, name in enumerate(ids) if name in run.places], dtype=np.int64)
            chosen = np.array([run.places[ids[i]] for i in here], dtype=np.int64)
            repeats = factor[here]
            spread = run.counts[np.repeat(chosen, repeats)].by_unit(np.repeat(here, repeats), len(ids))
            total = spread if total is None else total + spread
        found: Counts = total
        return found

    @cached_property
    def labelled(self) -> tuple[str, ...]:
        """The pictures with a label; where a run left no counts, those with a score.

        A picture without foreground has no `foreground_iou` of its own where nothing is predicted there, and yet what
        is predicted there counts in the pooled score.
        """
        ids = tuple(self.scores)
        counts = self.counts(ids)
        if counts is None:
            return tuple(name for name in ids if not math.isnan(self.scores[name]))
        return tuple(name for name, num in zip(ids, counts.known.tolist(), strict=True) if num)

    def class_iou(self, ids: Sequence[str]) -> Floats | None:
        """IoU of each class ``(N, C)``, the mean over the runs; NaN where the truth does not hold the class."""
        times = self._times(ids)
        if not self.runs or not times.all():
            return None
        present, iou = np.array(0), np.array(0.0)
        for run in self.runs:
            chosen = np.array([run.places.get(name, -1) for name in ids])
            counts, scored = run.counts[chosen], chosen >= 0
            if not isinstance(counts, PixelCounts):
                return None
            present = present + counts.confusion.sum(-1) * scored[:, None]
            iou = iou + np.nan_to_num(counts.per_class()["iou"]) * scored[:, None]
        return np.where(present > 0, iou / times[:, None], np.nan)

    def _times(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """How many runs scored each picture."""
        return np.array([sum(name in run.places for run in self.runs) for name in ids], dtype=np.int64)


def common_folds(first: Model, second: Model) -> list[int]:
    """The folds that both have finished.

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
    if (first.classes, first.several) != (second.classes, second.several):
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


def paired_scores(model: Model, folds: Sequence[int], on: ScoredOn, metric: str) -> PairedScores:
    """The pictures of some folds with their score and group; of an image head the score is whether all is right.

    Raises:
        NotPairedError: a run has no row of a picture, or the runs of a fold scored unlike pictures.
    """
    values: dict[str, list[float]] = {}
    groups: dict[str, str] = {}
    for fold in folds:
        found = [picture_groups(run, on) for run in model.seeds(fold)]
        if not all(found) or len({frozenset(rows) for rows in found}) > 1:
            what = "image predictions" if model.of_images else "per-image rows"
            raise NotPairedError(f"{model.label} has no complete {what} for {on} in fold {fold}")
        groups |= {name: group for rows in found for name, group in rows.items()}
    runs = [run for fold in folds for run in model.seeds(fold)]
    counts = [counted(run, on) for run in runs]
    for run, stored in zip(runs, counts, strict=True):
        for name, score in _picture_scores(run, on, metric, stored).items():
            values.setdefault(name, []).append(score)
    known = [each for each in counts if each is not None]
    scores = {name: mean_std(each).mean for name, each in sorted(values.items())}
    return PairedScores(scores, groups, known if len(known) == len(counts) else ())


def _picture_scores(run: Run, on: ScoredOn, metric: str, stored: Counted | None) -> dict[str, float]:
    """Id to score: the column of ``per_image.csv``, else from the counts; NaN where neither is there."""
    rows = {} if run.of_images else run.images[on]
    if stored and (run.of_images or not all(metric in row.scores for row in rows.values())):
        values = stored.counts.score("exact_match" if run.of_images else metric).tolist()
        scores = dict(zip(stored.ids, values, strict=True))
        return {name: scores.get(name, math.nan) for name in rows or scores}
    return {name: row.scores.get(metric, math.nan) for name, row in rows.items()}
