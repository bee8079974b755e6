"""Every two models side by side on the same pictures."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hsl.metrics.catalogue import SCORES, better
from hsl.reports.models import Model
from hsl.reports.paired_pictures import NotPairedError, PairedScores, common_folds, paired_scores
from hsl.reports.scores import CURVES
from hsl.reports.statistics.contrasts import Contrast, MeanOverPictures, PooledScore, Units
from hsl.reports.statistics.paired_tests import Tally, cohens_dz, holm, mcnemar, rank_biserial, tally, wilcoxon
from hsl.reports.statistics.resampling import Estimate, estimates, judge
from hsl.reports.statistics.verdicts import NO_DIFFERENCE, Trainings, Verdict, share_scored, trainings_of, verdict
from hsl.run_folder.run import ScoredOn

MEAN = "mean over pictures"
BESIDE = ("exact_match", "macro_f1")  # of image heads


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


def compare(models: Sequence[Model], on: ScoredOn, resamples: int, seed: int, metric: str = "miou") -> list[Comparison]:
    """Compare every two models that have finished runs, as `compare_pairs` does; the better-ranked first."""
    pairs = list(itertools.combinations([model for model in models if model.finished], 2))
    return compare_pairs(pairs, on, resamples, seed, metric)


def compare_pairs(
    pairs: Sequence[tuple[Model, Model]], on: ScoredOn, resamples: int, seed: int, metric: str
) -> list[Comparison]:
    """Compare the models of each pair; what is said of all pairs holds together.

    Args:
        pairs: of models with finished runs, of pixels or of image heads; of a pair that cannot be made it is said why.
        on: part and inference.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        metric: that ranks; see `decisive`.
    """
    seen, drafts = _Seen(on, decisive(metric)), []
    for first, second in pairs:
        try:
            drafts.append(_draft(first, second, seen))
        except NotPairedError as error:
            drafts.append(Draft(Comparison(first.label, second.label, str(error), seen.metric)))
    return settle(drafts, resamples, seed)


def pooled_estimates(
    models: Sequence[Model], on: ScoredOn, resamples: int, seed: int, metric: str
) -> dict[str, Estimate]:
    """Label to the pooled score of a model over its folds with an interval over groups.

    Arguments as for `compare`. A model that may not be averaged, or that left no counts, is not there.
    """
    seen = _Seen(on, decisive(metric))
    found: dict[str, Contrast] = {}
    for model in models:
        if model.refused or model.counts(on) is None:
            continue
        try:
            paired = seen.pictures(model, model.folds)
        except NotPairedError:  # no complete rows: the groups are not known, and the notes say so
            continue
        ids = paired.labelled
        pooled = seen.pooled(model, model.folds, ids, seen.metric) if ids else None
        if pooled is not None:
            found[model.label] = Contrast(seen.units(paired, ids), pooled, bounds=(0, bound(seen.metric)))
    return dict(zip(found, estimates(list(found.values()), resamples, seed), strict=True))


def decisive(metric: str) -> str:
    """The score that verdicts are taken on: the one that ranks, or the accuracy where that one is no sum of counts.

    >>> decisive("miou"), decisive("macro_f1"), decisive("macro_auroc")
    ('miou', 'macro_f1', 'accuracy')
    """
    return "accuracy" if metric in CURVES else metric


def bound(metric: str) -> float:
    """The largest value that a score can have."""
    return {"nll": math.inf, "brier": 2.0}.get(metric, 1.0)


class _Seen:
    """What models got on the pictures of some folds, each read once."""

    def __init__(self, on: ScoredOn, metric: str) -> None:
        self.on, self.metric = on, metric
        self._pictures: dict[Any, PairedScores] = {}
        self._pooled: dict[Any, PooledScore | None] = {}
        self._trained: dict[str, dict[int, list[float]]] = {}

    def pictures(self, model: Model, folds: Sequence[int]) -> PairedScores:
        key = (model.label, *folds)
        if key not in self._pictures:
            self._pictures[key] = paired_scores(model, folds, self.on, self.metric)
        return self._pictures[key]

    def units(self, paired: PairedScores, ids: Sequence[str]) -> Units:
        return Units.of([paired.groups[name] for name in ids])

    def trained(self, model: Model, folds: Sequence[int]) -> dict[int, list[float]]:
        """Fold to the score of each seed."""
        if model.label not in self._trained:
            self._trained[model.label] = model.seed_scores(self.metric, self.on)
        return {fold: seeds for fold, seeds in self._trained[model.label].items() if fold in folds}

    def pooled(self, model: Model, folds: Sequence[int], ids: tuple[str, ...], metric: str) -> PooledScore | None:
        key = (model.label, *folds, ids, metric)
        if key not in self._pooled:
            paired = self.pictures(model, folds)
            counts, units = paired.counts(ids), self.units(paired, ids)
            self._pooled[key] = None if counts is None else PooledScore(counts.by_unit(units.index, units.num), metric)
        return self._pooled[key]


def _draft(first: Model, second: Model, seen: _Seen) -> Draft:
    folds = common_folds(first, second)
    ours, theirs = (seen.pictures(model, folds) for model in (first, second))
    labelled, ids = _paired_ids(ours, theirs, seen.metric)
    values = [ours.scores[name] - theirs.scores[name] for name in ids]
    units, most = seen.units(ours, labelled), bound(seen.metric)

    def contrast(metric: str) -> Contrast | None:
        pooled = [seen.pooled(model, folds, labelled, metric) for model in (first, second)]
        return Contrast(units, pooled[0], pooled[1], (-most, most)) if pooled[0] and pooled[1] else None

    trained = seen.trained(first, folds), seen.trained(second, folds)
    won = tally(values, first.of_images or better(seen.metric) == "max")
    comparison = Comparison(
        first.label,
        second.label,
        metric=seen.metric,
        folds=folds,
        num_images=len(labelled),
        trainings=trainings_of(*trained, share_scored(first.split, folds, seen.on.part), seen.on.part),
        wilcoxon_p=wilcoxon(values),
        mcnemar_p=mcnemar(won.wins, won.losses) if first.of_images else math.nan,
        rank_biserial=rank_biserial(values),
        cohens_dz=cohens_dz(values),
        pictures=won,
        classes=[] if first.of_images else _by_class(ours, theirs, ids, first.classes),
    )
    if not first.of_images:
        own = seen.units(ours, ids)
        mean = Contrast(own, MeanOverPictures.of(values, own), bounds=(-most, most))
        return Draft(comparison, contrast(seen.metric), {MEAN: mean})
    same = {seen.metric, *(["exact_match"] if not first.several and seen.metric == "accuracy" else [])}
    beside = {SCORES[name].title: contrast(name) for name in BESIDE if name not in same}
    return Draft(comparison, contrast(seen.metric), {title: one for title, one in beside.items() if one})


def _paired_ids(ours: PairedScores, theirs: PairedScores, metric: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The pictures that both have labels of, and those on which both have a score of its own.

    Raises:
        NotPairedError: they scored unlike pictures, in unlike groups, or none that has a score.
    """
    counted = bool(ours.runs and theirs.runs)
    unlike = sorted(ours.scores.keys() ^ theirs.scores.keys())
    if unlike := unlike or (sorted(set(ours.labelled) ^ set(theirs.labelled)) if counted else []):
        raise NotPairedError(f"{len(unlike)} pictures were scored by one of them only, for example {unlike[0]}")
    ids = tuple(name for name in ours.scores if not math.isnan(ours.scores[name] + theirs.scores[name]))
    if not ids:
        raise NotPairedError(f"no picture has a {metric}: none has a label, or the runs did not store it")
    labelled = ours.labelled if counted else ids
    if moved := [name for name in labelled if ours.groups[name] != theirs.groups[name]]:
        raise NotPairedError(f"{len(moved)} pictures are in unlike groups, for example {moved[0]}")
    return labelled, ids


def _by_class(ours: PairedScores, theirs: PairedScores, ids: Sequence[str], classes: Sequence[str]) -> list[Tally]:
    """Pictures won by the IoU of each class; a picture counts where its truth holds the class."""
    first, second = ours.class_iou(ids), theirs.class_iou(ids)
    if first is None or second is None:
        return []
    return [tally((first - second)[:, i].tolist(), name=name) for i, name in enumerate(classes)]
