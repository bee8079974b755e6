"""Every two models side by side on the same pictures."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hsl.metrics.catalogue import better
from hsl.reports.models import Model
from hsl.reports.paired_pictures import NotPairedError, Scored, common_folds, scored_pictures
from hsl.reports.statistics.contrasts import Contrast, MeanOverPictures, PooledScore, Units
from hsl.reports.statistics.effects import Tally, cohens_dz, rank_biserial, tally
from hsl.reports.statistics.paired_tests import holm, wilcoxon
from hsl.reports.statistics.resampling import Estimate, estimates, judge
from hsl.reports.statistics.verdicts import NO_DIFFERENCE, Trainings, Verdict, share_scored, trainings_of, verdict
from hsl.run_folder.run import ScoredOn

MEAN = "mean over pictures"


@dataclass(frozen=True)
class Comparison:
    """A score of ``first`` minus that of ``second`` on the same pictures, of pixels or of an image head.

    ``refused`` says why they cannot be paired; then every number is absent. ``score``: the difference of the pooled
    scores, judged over groups with all pairs of the table; it alone decides, and is none where a model left no counts
    per picture. ``beside``: differences in other scores over the same groups, by themselves. ``trainings``: the
    difference over folds or seeds. What follows stands beside it: p of the Wilcoxon signed-rank test over pictures and,
    for image heads, of McNemar's exact test (each plain and with Holm's correction over all pairs), effect sizes of the
    per-picture differences, and how many pictures ``first`` wins, ties (exactly) and loses; ``classes`` counts the
    same by the IoU of each class, over the pictures whose truth holds it.
    """

    first: str
    second: str
    refused: str = ""
    metric: str = "miou"
    folds: Sequence[int] = ()
    num_images: int = 0
    score: Estimate | None = None
    beside: Mapping[str, Estimate] = field(default_factory=dict)
    trainings: Trainings = field(default_factory=Trainings)
    wilcoxon_p: float = math.nan
    wilcoxon_holm_p: float = math.nan
    mcnemar_p: float = math.nan
    mcnemar_holm_p: float = math.nan
    rank_biserial: float = math.nan
    cohens_dz: float = math.nan
    pictures: Tally | None = None
    classes: Sequence[Tally] = ()

    @property
    def verdict(self) -> Verdict:
        """Which is better, or why nothing is said."""
        if self.refused:
            return Verdict(f"not paired: {self.refused}")
        if self.score is None:
            return Verdict(f"{NO_DIFFERENCE}: without pixel counts there is no pooled score")
        higher_is_better = better(self.metric) == "max"
        return verdict((self.first, self.second), self.score, self.trainings, higher_is_better, self.beside)

    @property
    def as_json(self) -> dict[str, Any]:
        """The numbers and what follows from them."""
        found = self.verdict
        return asdict(self) | {"verdict": found.pictures, "training": found.training, "winner": found.winner or None}


@dataclass(frozen=True)
class Draft:
    """A comparison of which the bootstrap is still to be made; ``score`` is none where it cannot be."""

    comparison: Comparison
    score: Contrast | None = None
    beside: Mapping[str, Contrast] = field(default_factory=dict)


def settle(drafts: Sequence[Draft], resamples: int, seed: int) -> list[Comparison]:
    """Judge the pairs of one table together."""
    known = [draft.score for draft in drafts if draft.score is not None]
    judged = iter(judge(known, resamples, seed))
    found = []
    for draft in drafts:
        score = next(judged) if draft.score is not None else None
        beside = dict(zip(draft.beside, estimates(list(draft.beside.values()), resamples, seed), strict=True))
        found.append(replace(draft.comparison, score=score, beside=beside))
    ranks, exact = holm([one.wilcoxon_p for one in found]), holm([one.mcnemar_p for one in found])
    return [replace(one, wilcoxon_holm_p=p, mcnemar_holm_p=q) for one, p, q in zip(found, ranks, exact, strict=True)]


def every_pair(models: Sequence[Model], metric: str, draft: Callable[[Model, Model], Draft]) -> list[Draft]:
    """A draft of every two models that have finished runs; of a pair that cannot be made it says why."""
    drafts = []
    for first, second in itertools.combinations([model for model in models if model.finished], 2):
        try:
            drafts.append(draft(first, second))
        except NotPairedError as error:
            drafts.append(Draft(Comparison(first.label, second.label, str(error), metric)))
    return drafts


def compare(models: Sequence[Model], on: ScoredOn, resamples: int, seed: int, metric: str = "miou") -> list[Comparison]:
    """Compare every two models that have finished runs.

    Args:
        models: the better-ranked first.
        on: part and inference.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        metric: one of ``METRICS``.
    """
    seen = _Seen(on, metric)
    return settle(every_pair(models, metric, lambda first, second: _draft(first, second, seen)), resamples, seed)


def pooled_estimates(
    models: Sequence[Model], on: ScoredOn, resamples: int, seed: int, metric: str
) -> dict[str, Estimate]:
    """Label to the pooled score of a model over its folds with an interval over groups.

    Arguments as for `compare`. A model that may not be averaged, or that left no pixel counts, is not there.
    """
    found: dict[str, Contrast] = {}
    for model in models:
        if model.refused or model.pixel_counts(on) is None:
            continue
        seen = _Seen(on, metric)
        try:
            scored = seen.pictures(model, model.folds)
        except NotPairedError:  # no complete rows: the groups are not known, and the notes say so
            continue
        ids = scored.labelled()
        if (pooled := seen.pooled(model, model.folds, ids)) is not None:
            found[model.label] = Contrast(seen.units(scored, ids), pooled, bounds=(0, bound(metric)))
    return dict(zip(found, estimates(list(found.values()), resamples, seed), strict=True))


def bound(metric: str) -> float:
    """The largest value that a score can have."""
    return {"nll": math.inf, "brier": 2.0}.get(metric, 1.0)


class _Seen:
    """What models got on the pictures of some folds, each read once."""

    def __init__(self, on: ScoredOn, metric: str) -> None:
        self.on, self.metric = on, metric
        self._pictures: dict[Any, Scored] = {}
        self._pooled: dict[Any, PooledScore | None] = {}
        self._trained: dict[str, dict[int, list[float]]] = {}

    def pictures(self, model: Model, folds: Sequence[int]) -> Scored:
        key = (model.label, *folds)
        if key not in self._pictures:
            self._pictures[key] = scored_pictures(model, folds, self.on, self.metric)
        return self._pictures[key]

    def units(self, scored: Scored, ids: Sequence[str]) -> Units:
        return Units.of([scored.groups[name] for name in ids])

    def trained(self, model: Model, folds: Sequence[int]) -> dict[int, list[float]]:
        """Fold to the score of each seed."""
        if model.label not in self._trained:
            self._trained[model.label] = model.seed_scores(self.metric, self.on)
        return {fold: seeds for fold, seeds in self._trained[model.label].items() if fold in folds}

    def pooled(self, model: Model, folds: Sequence[int], ids: tuple[str, ...]) -> PooledScore | None:
        key = (model.label, *folds, ids)
        if key not in self._pooled:
            scored = self.pictures(model, folds)
            counts, units = scored.counts(ids), self.units(scored, ids)
            by_unit = None if counts is None else counts.by_unit(units.index, units.num)
            self._pooled[key] = None if by_unit is None else PooledScore(by_unit, self.metric)
        return self._pooled[key]


def _draft(first: Model, second: Model, seen: _Seen) -> Draft:
    folds = common_folds(first, second)
    ours, theirs = (seen.pictures(model, folds) for model in (first, second))
    if ours.scores.keys() != theirs.scores.keys():
        unlike = sorted(ours.scores.keys() ^ theirs.scores.keys())
        raise NotPairedError(f"{len(unlike)} pictures were scored by one of them only, for example {unlike[0]}")
    ids = tuple(name for name in ours.scores if not math.isnan(ours.scores[name] + theirs.scores[name]))
    metric = seen.metric
    if not ids:
        raise NotPairedError(f"no picture has a {metric}: none holds a labelled pixel, or the runs did not store it")
    labelled = ours.labelled() if ours.runs and theirs.runs else ids
    if moved := [name for name in labelled if ours.groups[name] != theirs.groups[name]]:
        raise NotPairedError(f"{len(moved)} pictures are in unlike groups, for example {moved[0]}")
    values = [ours.scores[name] - theirs.scores[name] for name in ids]
    units, most = seen.units(ours, labelled), bound(metric)
    pooled = [seen.pooled(model, folds, labelled) for model in (first, second)]
    known = pooled[0] is not None and pooled[1] is not None
    trained = seen.trained(first, folds), seen.trained(second, folds)
    comparison = Comparison(
        first.label,
        second.label,
        metric=metric,
        folds=folds,
        num_images=len(labelled),
        trainings=trainings_of(*trained, share_scored(first.split, folds, seen.on.part), seen.on.part),
        wilcoxon_p=wilcoxon(values),
        rank_biserial=rank_biserial(values),
        cohens_dz=cohens_dz(values),
        pictures=tally(values, better(metric) == "max"),
        classes=_by_class(ours, theirs, ids, first.classes),
    )
    score = Contrast(units, pooled[0], pooled[1], (-most, most)) if pooled[0] and known else None
    own = seen.units(ours, ids)
    return Draft(comparison, score, {MEAN: Contrast(own, MeanOverPictures.of(values, own), bounds=(-most, most))})


def _by_class(ours: Scored, theirs: Scored, ids: Sequence[str], classes: Sequence[str]) -> list[Tally]:
    """Pictures won by the IoU of each class; a picture counts where its truth holds the class."""
    first, second = ours.class_iou(ids), theirs.class_iou(ids)
    if first is None or second is None:
        return []
    return [tally((first - second)[:, i].tolist(), name=name) for i, name in enumerate(classes)]
