"""Every two image heads side by side on the same pictures."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hsl.metrics.image_counts import ImageCounts, averaged
from hsl.reports.comparisons import fold_test
from hsl.reports.effects import Tally, tally
from hsl.reports.image_scores import head_of, image_overall
from hsl.reports.paired_pictures import NotPairedError, common_folds
from hsl.reports.resampling import pooled_bootstrap
from hsl.reports.results import Model
from hsl.reports.statistics import Interval, holm, mcnemar, paired_bootstrap, wilcoxon

RIGHT = "exact_match"  # share of the pictures that are right; with one class per picture the accuracy


@dataclass(frozen=True)
class ImageComparison:
    """``first`` minus ``second`` on the pictures whose labels are known.

    ``refused`` says why they cannot be paired; then every number is absent. ``by_image``: difference of the shares of
    pictures that are right (with several classes: all of them), pictures resampled; ``by_group``: the same with whole
    groups resampled, there when groups hold several pictures; ``macro_f1``: difference of the pooled macro F1, groups
    (else pictures) resampled. p values: McNemar's exact test on the pictures that only one has right and the Wilcoxon
    signed-rank test (each plain and with Holm's correction over all pairs compared), corrected resampled t-test over
    folds. ``pictures`` counts those that ``first`` has right more often, as often and less often than ``second``.
    """

    first: str
    second: str
    refused: str = ""
    folds: Sequence[int] = ()
    num_images: int = 0
    by_image: Interval | None = None
    by_group: Interval | None = None
    macro_f1: Interval | None = None
    mcnemar_p: float = math.nan
    mcnemar_holm_p: float = math.nan
    wilcoxon_p: float = math.nan
    wilcoxon_holm_p: float = math.nan
    corrected_t_p: float = math.nan
    corrected_t_macro_f1_p: float = math.nan
    pictures: Tally | None = None

    @property
    def verdict(self) -> str:
        """Names a winner only where no interval holds 0 and all of them point the same way."""
        found = [each for each in (self.by_image, self.by_group, self.macro_f1) if each is not None]
        if not found:
            return f"not paired: {self.refused}"
        if any(each.holds_zero for each in found):
            return "no difference shown"
        if len({each.mean > 0 for each in found}) > 1:
            return "no difference shown: the pictures and the macro F1 disagree"
        return f"{self.first if found[0].mean > 0 else self.second} is better on these pictures"


@dataclass(frozen=True)
class _Seen:
    """Id to group of the pictures with a known label, and their counts ``(N, ...)`` in that order."""

    groups: dict[str, str]
    counts: ImageCounts


def compare_images(
    models: Sequence[Model], part: str, inference: str, resamples: int, seed: int
) -> list[ImageComparison]:
    """Compare the image heads of every two models that have finished runs.

    Args:
        models: with image heads, the better-ranked first.
        part: val or test.
        inference: plain or tta.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    found = []
    for first, second in itertools.combinations([model for model in models if model.finished], 2):
        try:
            found.append(_pair(first, second, part, inference, resamples, seed))
        except NotPairedError as error:
            found.append(ImageComparison(first.label, second.label, str(error)))
    exact, ranks = holm([one.mcnemar_p for one in found]), holm([one.wilcoxon_p for one in found])
    return [replace(one, mcnemar_holm_p=p, wilcoxon_holm_p=q) for one, p, q in zip(found, exact, ranks, strict=True)]


def image_intervals(
    models: Sequence[Model], part: str, inference: str, resamples: int, seed: int, metric: str
) -> dict[str, Interval]:
    """Label to the pooled score of an image head with a bootstrap interval over groups (else pictures).

    Arguments as for `compare_images`; ``metric`` is one of ``COUNTED``. A model that may not be averaged, or that left
    no predictions, is not there.
    """
    found = {}
    for model in models:
        if model.refused or not model.finished:
            continue
        try:
            seen = _seen(model, model.folds, part, inference)
        except NotPairedError:  # no complete rows: the notes say so
            continue
        if seen.groups:
            found[model.label] = pooled_bootstrap(metric, _units(seen.groups), resamples, seed, seen.counts)
    return found


def _pair(first: Model, second: Model, part: str, inference: str, resamples: int, seed: int) -> ImageComparison:
    folds = common_folds(first, second, head_of)
    ours, theirs = (_seen(model, folds, part, inference) for model in (first, second))
    if ours.groups.keys() != theirs.groups.keys():
        unlike = sorted(ours.groups.keys() ^ theirs.groups.keys())
        raise NotPairedError(f"{len(unlike)} pictures were scored by one of them only, for example {unlike[0]}")
    if not ours.groups:
        raise NotPairedError("no picture has a known label")
    values = (ours.counts.right - theirs.counts.right).tolist()
    units, won = _units(ours.groups), tally(values)
    tests = [
        fold_test(
            image_overall(first, name, part, inference),
            image_overall(second, name, part, inference),
            folds,
            first.split,
        )
        for name in (RIGHT, "macro_f1")
    ]
    return ImageComparison(
        first.label,
        second.label,
        folds=folds,
        num_images=len(values),
        by_image=paired_bootstrap(values, resamples, seed),
        by_group=paired_bootstrap(values, resamples, seed, units) if len(set(units)) < len(units) else None,
        macro_f1=pooled_bootstrap("macro_f1", units, resamples, seed, ours.counts, theirs.counts),
        mcnemar_p=mcnemar(won.wins, won.losses),
        wilcoxon_p=wilcoxon(values),
        corrected_t_p=tests[0],
        corrected_t_macro_f1_p=tests[1],
        pictures=won,
    )


def _units(groups: dict[str, str]) -> list[str]:
    """What is resampled: groups where there are several and one holds several pictures, else pictures."""
    several = 1 < len(set(groups.values())) < len(groups)
    return list(groups.values()) if several else list(groups)


def _seen(model: Model, folds: Sequence[int], part: str, inference: str) -> _Seen:
    """Several runs that saw a picture are averaged.

    Raises:
        NotPairedError: a run has no predictions, or the runs of a fold saw unlike pictures.
    """
    runs = []
    for fold in folds:
        found = [run.image_pictures.get((part, inference)) for run in model.seeds(fold)]
        known = [one for one in found if one is not None]
        if len(known) < len(found) or len({frozenset(one.ids) for one in known}) > 1:
            raise NotPairedError(
                f"{model.label} has no complete image predictions for {part}, {inference}, fold {fold}"
            )
        runs += known
    groups = {name: group for run in runs for name, group in zip(run.ids, run.groups, strict=True)}
    place = {name: i for i, name in enumerate(sorted(groups))}
    counts = averaged([([place[name] for name in run.ids], run.counts) for run in runs], len(place))
    labelled = np.flatnonzero(counts.known)
    names = list(place)
    return _Seen({names[i]: groups[names[i]] for i in labelled}, counts[labelled])
