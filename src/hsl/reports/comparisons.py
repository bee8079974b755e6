"""Every two models side by side on the same pictures."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hsl.reports.effects import Tally, cohens_dz, rank_biserial, tally
from hsl.reports.paired_pictures import NotPairedError, Scored, common_folds, scored_pictures
from hsl.reports.pixel_counts import LOWER_IS_BETTER
from hsl.reports.resampling import pooled_bootstrap
from hsl.reports.results import Model
from hsl.reports.run_files import Split
from hsl.reports.statistics import Interval, corrected_resampled_t, holm, paired_bootstrap, wilcoxon


@dataclass(frozen=True)
class Comparison:
    """A score of ``first`` minus that of ``second`` on the same pictures.

    ``refused`` says why they cannot be paired; then every number is absent. ``by_image``: mean of the per-picture
    differences, pictures resampled; ``by_group``: the same with whole groups resampled, there when groups hold
    several pictures; ``pooled``: difference of the pooled scores, groups (else pictures) resampled, there when
    both models left pixel counts. p values: Wilcoxon over pictures (plain and with Holm's correction over all
    pairs compared), corrected resampled t-test over folds. Effect sizes of the per-picture differences:
    matched-pairs rank-biserial correlation and Cohen's d_z. ``pictures`` counts those that ``first`` wins, ties
    (exactly) and loses; ``classes`` the same by the IoU of each class, over the pictures whose truth holds it.
    """

    first: str
    second: str
    refused: str = ""
    metric: str = "miou"
    folds: Sequence[int] = ()
    num_images: int = 0
    by_image: Interval | None = None
    by_group: Interval | None = None
    pooled: Interval | None = None
    wilcoxon_p: float = math.nan
    wilcoxon_holm_p: float = math.nan
    corrected_t_p: float = math.nan
    rank_biserial: float = math.nan
    cohens_dz: float = math.nan
    pictures: Tally | None = None
    classes: Sequence[Tally] = ()

    @property
    def verdict(self) -> str:
        """Names a winner only where no interval holds 0 and all of them point the same way."""
        if self.by_image is None:
            return f"not paired: {self.refused}"
        found = [each for each in (self.by_image, self.by_group, self.pooled) if each is not None]
        if any(each.holds_zero for each in found):
            return "no difference shown"
        if self.pooled is None:
            return "no difference shown: without pixel counts there is no pooled score"
        if len({each.mean > 0 for each in found}) > 1:
            return "no difference shown: the mean over pictures and the pooled score disagree"
        first_is_better = (self.by_image.mean > 0) != (self.metric in LOWER_IS_BETTER)
        return f"{self.first if first_is_better else self.second} is better on these pictures"


def compare(
    models: Sequence[Model], part: str, inference: str, resamples: int, seed: int, metric: str = "miou"
) -> list[Comparison]:
    """Compare every two models that have finished runs.

    Args:
        models: the better-ranked first.
        part: val or test.
        inference: plain or tta.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        metric: one of ``METRICS``.
    """
    ready = [model for model in models if model.finished]
    found = []
    for first, second in itertools.combinations(ready, 2):
        try:
            found.append(_pair(first, second, part, inference, resamples, seed, metric))
        except NotPairedError as error:
            found.append(Comparison(first.label, second.label, str(error), metric))
    adjusted = holm([comparison.wilcoxon_p for comparison in found])
    return [replace(one, wilcoxon_holm_p=p) for one, p in zip(found, adjusted, strict=True)]


def pooled_intervals(
    models: Sequence[Model], part: str, inference: str, resamples: int, seed: int, metric: str
) -> dict[str, Interval]:
    """Label to the pooled score of a model over its folds with a bootstrap interval over groups (else pictures).

    Arguments as for `compare`. A model that may not be averaged, or that left no pixel counts, is not there.
    """
    found = {}
    for model in models:
        if model.refused or model.pixel_counts(part, inference) is None:
            continue
        try:
            scored = scored_pictures(model, model.folds, part, inference, metric)
        except NotPairedError:  # no complete rows: the groups are not known, and the notes say so
            continue
        ids = list(scored.scores)
        counts, groups = scored.counts(ids), [scored.groups[name] for name in ids]
        units = groups if 1 < len(set(groups)) < len(ids) else ids
        if counts is not None:
            found[model.label] = pooled_bootstrap(metric, units, resamples, seed, counts)
    return found


def _pair(first: Model, second: Model, part: str, inference: str, resamples: int, seed: int, metric: str) -> Comparison:
    folds = common_folds(first, second)
    ours, theirs = (scored_pictures(model, folds, part, inference, metric) for model in (first, second))
    if ours.scores.keys() != theirs.scores.keys():
        unlike = sorted(ours.scores.keys() ^ theirs.scores.keys())
        raise NotPairedError(f"{len(unlike)} pictures were scored by one of them only, for example {unlike[0]}")
    ids = [name for name in ours.scores if not math.isnan(ours.scores[name] + theirs.scores[name])]
    if not ids:
        raise NotPairedError(f"no picture has a {metric}: none holds a labelled pixel, or the runs did not store it")
    values = [ours.scores[name] - theirs.scores[name] for name in ids]
    groups = [ours.groups[name] for name in ids]
    grouped = 1 < len(set(groups)) < len(ids)
    return Comparison(
        first.label,
        second.label,
        metric=metric,
        folds=folds,
        num_images=len(ids),
        by_image=paired_bootstrap(values, resamples, seed),
        by_group=paired_bootstrap(values, resamples, seed, groups) if grouped else None,
        pooled=_pooled(ours, theirs, ids, groups if grouped else ids, metric, resamples, seed),
        wilcoxon_p=wilcoxon(values),
        corrected_t_p=fold_test(
            first.overall(metric, part, inference), second.overall(metric, part, inference), folds, first.split
        ),
        rank_biserial=rank_biserial(values),
        cohens_dz=cohens_dz(values),
        pictures=tally(values, metric not in LOWER_IS_BETTER),
        classes=_by_class(ours, theirs, ids, first.classes),
    )


def _pooled(
    ours: Scored, theirs: Scored, ids: Sequence[str], groups: Sequence[str], metric: str, resamples: int, seed: int
) -> Interval | None:
    first, second = ours.counts(ids), theirs.counts(ids)
    if first is None or second is None:
        return None
    return pooled_bootstrap(metric, groups, resamples, seed, first, second)


def _by_class(ours: Scored, theirs: Scored, ids: Sequence[str], classes: Sequence[str]) -> list[Tally]:
    """Pictures won by the IoU of each class; a picture counts where its truth holds the class."""
    first, second = ours.class_iou(ids), theirs.class_iou(ids)
    if first is None or second is None:
        return []
    return [tally((first - second)[:, i].tolist(), name=name) for i, name in enumerate(classes)]


def fold_test(
    ours: Mapping[int, float], theirs: Mapping[int, float], folds: Sequence[int], split: Split | None
) -> float:
    """p of the corrected resampled t-test over the folds' scores; NaN with one fold."""
    values = [ours[fold] - theirs[fold] for fold in folds if fold in ours and fold in theirs]
    if len(values) < 2 or split is None or not np.isfinite(values).all():
        return math.nan
    parts = [split.folds[fold] for fold in folds]
    share = float(np.mean([len(fold.val) / max(1, len(fold.train)) for fold in parts]))
    return corrected_resampled_t(values, share)[1]
