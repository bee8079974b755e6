"""Every two image heads side by side on the same pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hsl.metrics.images.image_counts import COUNTED, ImageCounts, averaged
from hsl.reports.counts import image_counts
from hsl.reports.images.model_scores import head_of, image_seed_scores
from hsl.reports.models import Model
from hsl.reports.paired_pictures import NotPairedError, common_folds
from hsl.reports.statistics.comparisons import Comparison, Draft, every_pair, settle
from hsl.reports.statistics.contrasts import Contrast, PooledScore, Units
from hsl.reports.statistics.effects import cohens_dz, rank_biserial, tally
from hsl.reports.statistics.paired_tests import mcnemar, wilcoxon
from hsl.reports.statistics.resampling import Estimate, estimates
from hsl.reports.statistics.verdicts import share_scored, trainings_of
from hsl.run_folder.run import ScoredOn

BESIDE = {"exact_match": "exact match", "macro_f1": "macro F1"}


@dataclass(frozen=True)
class _Counted:
    """Ids and groups of the pictures with a known label, and their counts ``(N, ...)`` in that order."""

    ids: Sequence[str]
    groups: Sequence[str]
    counts: ImageCounts

    def pooled(self, metric: str, units: Units) -> PooledScore:
        return PooledScore(self.counts.by_unit(units.index, units.num), metric)


def decisive(metric: str) -> str:
    """The score that verdicts are taken on: the one that ranks, or the accuracy where that one is no sum of counts.

    >>> decisive("macro_f1"), decisive("macro_auroc")
    ('macro_f1', 'accuracy')
    """
    return metric if metric in COUNTED else "accuracy"


def compare_images(
    models: Sequence[Model], on: ScoredOn, resamples: int, seed: int, metric: str = "accuracy"
) -> list[Comparison]:
    """Compare the image heads of every two models that have finished runs.

    Args:
        models: with image heads, the better-ranked first.
        on: part and inference.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        metric: that ranks; see `decisive`.
    """
    seen = _Seen(on, decisive(metric))
    return settle(every_pair(models, seen.metric, lambda first, second: _draft(first, second, seen)), resamples, seed)


def image_estimates(
    models: Sequence[Model], on: ScoredOn, resamples: int, seed: int, metric: str
) -> dict[str, Estimate]:
    """Label to the pooled score of an image head with an interval over groups.

    Arguments as for `compare_images`. A model that may not be averaged, or that left no predictions, is not there.
    """
    seen = _Seen(on, decisive(metric))
    found: dict[str, Contrast] = {}
    for model in models:
        if model.refused or not model.finished:
            continue
        try:
            counted = seen.counted(model, model.folds)
        except NotPairedError:  # no complete rows: the notes say so
            continue
        if counted.ids:
            units = Units.of(counted.groups)
            found[model.label] = Contrast(units, counted.pooled(seen.metric, units), bounds=(0, 1))
    return dict(zip(found, estimates(list(found.values()), resamples, seed), strict=True))


class _Seen:
    """What models got on the pictures of some folds, each read once."""

    def __init__(self, on: ScoredOn, metric: str) -> None:
        self.on, self.metric = on, metric
        self._counted: dict[tuple[object, ...], _Counted] = {}
        self._pooled: dict[tuple[object, ...], PooledScore] = {}

    def counted(self, model: Model, folds: Sequence[int]) -> _Counted:
        key = (model.label, *folds)
        if key not in self._counted:
            self._counted[key] = _counted(model, folds, self.on)
        return self._counted[key]

    def trained(self, model: Model, folds: Sequence[int]) -> dict[int, list[float]]:
        """Fold to the score of each seed."""
        found = image_seed_scores(model, self.metric, self.on)
        return {fold: seeds for fold, seeds in found.items() if fold in folds}

    def pooled(self, model: Model, folds: Sequence[int], metric: str, units: Units) -> PooledScore:
        key = (model.label, metric, *folds)
        if key not in self._pooled:
            self._pooled[key] = self.counted(model, folds).pooled(metric, units)
        return self._pooled[key]


def _draft(first: Model, second: Model, seen: _Seen) -> Draft:
    folds = common_folds(first, second, head_of)
    ours, theirs = (seen.counted(model, folds) for model in (first, second))
    if unlike := sorted(set(ours.ids) ^ set(theirs.ids)):
        raise NotPairedError(f"{len(unlike)} pictures were scored by one of them only, for example {unlike[0]}")
    if not ours.ids:
        raise NotPairedError("no picture has a known label")
    if ours.groups != theirs.groups:
        raise NotPairedError("the pictures are in unlike groups")
    values = (ours.counts.right - theirs.counts.right).tolist()
    units, won = Units.of(ours.groups), tally(values)

    def contrast(metric: str) -> Contrast:
        pooled = [seen.pooled(model, folds, metric, units) for model in (first, second)]
        return Contrast(units, pooled[0], pooled[1], (-1, 1))

    trained = seen.trained(first, folds), seen.trained(second, folds)
    same = {seen.metric, *(["exact_match"] if not ours.counts.several and seen.metric == "accuracy" else [])}
    comparison = Comparison(
        first.label,
        second.label,
        metric=seen.metric,
        folds=folds,
        num_images=len(values),
        trainings=trainings_of(*trained, share_scored(first.split, folds, seen.on.part), seen.on.part),
        wilcoxon_p=wilcoxon(values),
        mcnemar_p=mcnemar(won.wins, won.losses),
        rank_biserial=rank_biserial(values),
        cohens_dz=cohens_dz(values),
        pictures=won,
    )
    return Draft(
        comparison, contrast(seen.metric), {BESIDE[name]: contrast(name) for name in BESIDE if name not in same}
    )


def _counted(model: Model, folds: Sequence[int], on: ScoredOn) -> _Counted:
    """Several runs that saw a picture are averaged.

    Raises:
        NotPairedError: a run has no predictions, or the runs of a fold saw unlike pictures.
    """
    runs = []
    for fold in folds:
        found = [run.image_pictures.get(on) for run in model.seeds(fold)]
        known = [one for one in found if one is not None]
        if len(known) < len(found) or len({frozenset(one.ids) for one in known}) > 1:
            raise NotPairedError(f"{model.label} has no complete image predictions for {on}, fold {fold}")
        runs += known
    groups = {name: group for run in runs for name, group in zip(run.ids, run.groups, strict=True)}
    names = sorted(groups)
    place = {name: i for i, name in enumerate(names)}
    counts = averaged([([place[name] for name in run.ids], image_counts(run)) for run in runs], len(place))
    labelled = np.flatnonzero(counts.known)
    return _Counted([names[i] for i in labelled], [groups[names[i]] for i in labelled], counts[labelled])
