"""Every two models side by side on the same pictures."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hsl.reports.results import Model
from hsl.reports.run_folder import ImageRow
from hsl.reports.statistics import (
    Interval,
    corrected_resampled_t,
    holm,
    mean_std,
    paired_bootstrap,
    wilcoxon,
)


@dataclass(frozen=True)
class Comparison:
    """Per-image mIoU of ``first`` minus that of ``second``.

    ``refused`` says why they cannot be paired; then every number is absent. ``by_group`` resamples whole
    groups and is there when groups hold several pictures. p values: Wilcoxon over pictures (plain and with
    Holm's correction over all pairs compared), corrected resampled t-test over folds.
    """

    first: str
    second: str
    refused: str = ""
    folds: Sequence[int] = ()
    num_images: int = 0
    by_image: Interval | None = None
    by_group: Interval | None = None
    wilcoxon_p: float = math.nan
    wilcoxon_holm_p: float = math.nan
    corrected_t_p: float = math.nan

    @property
    def verdict(self) -> str:
        """Names a winner only where no interval holds 0."""
        if self.by_image is None:
            return f"not paired: {self.refused}"
        if self.by_image.holds_zero or (self.by_group is not None and self.by_group.holds_zero):
            return "no difference shown"
        return f"{self.first if self.by_image.mean > 0 else self.second} is better on these pictures"


class NotPairedError(ValueError):
    """Two models have no pictures in common, or not for certain."""


def compare(models: Sequence[Model], part: str, inference: str, resamples: int, seed: int) -> list[Comparison]:
    """Compare every two models that have finished runs.

    Args:
        models: the better-ranked first.
        part: val or test.
        inference: plain or tta.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    ready = [model for model in models if model.finished]
    found = []
    for first, second in itertools.combinations(ready, 2):
        try:
            found.append(_pair(first, second, part, inference, resamples, seed))
        except NotPairedError as error:
            found.append(Comparison(first.label, second.label, refused=str(error)))
    adjusted = holm([comparison.wilcoxon_p for comparison in found])
    return [replace(one, wilcoxon_holm_p=p) for one, p in zip(found, adjusted, strict=True)]


def _pair(first: Model, second: Model, part: str, inference: str, resamples: int, seed: int) -> Comparison:
    folds = _common_folds(first, second)
    rows_first, rows_second = (_image_scores(model, folds, part, inference) for model in (first, second))
    if rows_first.keys() != rows_second.keys():
        unlike = sorted(rows_first.keys() ^ rows_second.keys())
        raise NotPairedError(f"{len(unlike)} pictures were scored by one of them only, for example {unlike[0]}")
    ids = [i for i in rows_first if not math.isnan(rows_first[i].miou + rows_second[i].miou)]
    if not ids:
        raise NotPairedError("no picture has a labelled pixel")
    values = [rows_first[i].miou - rows_second[i].miou for i in ids]
    groups = [rows_first[i].group for i in ids]
    grouped = 1 < len(set(groups)) < len(ids)
    return Comparison(
        first.label,
        second.label,
        folds=folds,
        num_images=len(ids),
        by_image=paired_bootstrap(values, resamples, seed),
        by_group=paired_bootstrap(values, resamples, seed, groups) if grouped else None,
        wilcoxon_p=wilcoxon(values),
        corrected_t_p=_fold_test(first, second, folds, part, inference),
    )


def _common_folds(first: Model, second: Model) -> list[int]:
    for model in (first, second):
        if model.refused:
            raise NotPairedError(f"{model.label}: {model.refused}")
    hashes = [str(next(iter(model.finished.values())).provenance.get("split_sha256", "?")) for model in (first, second)]
    if hashes[0] != hashes[1]:
        raise NotPairedError(f"they saw unlike data (split hashes {hashes[0][:12]} and {hashes[1][:12]})")
    if first.split and second.split and first.split.assignment != second.split.assignment:
        raise NotPairedError("they have unlike fold assignments of the same data")
    folds = sorted(set(first.folds) & set(second.folds))
    if not folds:
        raise NotPairedError("no fold is finished in both")
    return folds


def _image_scores(model: Model, folds: Sequence[int], part: str, inference: str) -> dict[str, ImageRow]:
    """Id to group and mIoU; several seeds (for a test part also folds) are averaged."""
    values: dict[str, list[float]] = {}
    groups: dict[str, str] = {}
    for fold in folds:
        runs = [run.images.get((part, inference), {}) for run in model.seeds(fold)]
        if not all(runs) or len({frozenset(rows) for rows in runs}) > 1:
            raise NotPairedError(f"{model.label} has no complete per-image rows for {part}, {inference} in fold {fold}")
        for rows in runs:
            for name, row in rows.items():
                values.setdefault(name, []).append(row.miou)
                groups[name] = row.group
    return {name: ImageRow(groups[name], mean_std(found).mean) for name, found in sorted(values.items())}


def _fold_test(first: Model, second: Model, folds: Sequence[int], part: str, inference: str) -> float:
    """p of the corrected resampled t-test over the folds' pooled mIoU; NaN with one fold."""
    ours, theirs = (model.overall("miou", part, inference) for model in (first, second))
    values = [ours[fold] - theirs[fold] for fold in folds if fold in ours and fold in theirs]
    if len(values) < 2 or first.split is None or not np.isfinite(values).all():
        return math.nan
    parts = [first.split.folds[fold] for fold in folds]
    share = float(np.mean([len(fold.val) / max(1, len(fold.train)) for fold in parts]))
    return corrected_resampled_t(values, share)[1]
