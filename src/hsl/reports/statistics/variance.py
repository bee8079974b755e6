"""Where the spread of a model's scores comes from: the split into folds, or the seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hsl.reports.models import Model
from hsl.reports.statistics.paired_tests import mean_std
from hsl.reports.tables.score_tables import Cell, Column, Table
from hsl.reports.tables.titles import kind_of, name_of, title_of
from hsl.run_folder.run import ScoredOn


@dataclass(frozen=True)
class Components:
    """Variance from the split and from the seed, NaN where not known; ``note`` says why, or what was cut at 0."""

    split: float
    seed: float
    note: str = ""


def variance_components(folds: Sequence[Sequence[float]]) -> Components:
    """Unbiased variance components of a one-way random-effects layout: fold (split) and seed within the fold.

    ``score_fs = mean + split_f + seed_fs``. With k folds of n_f seeds, N in all, and the mean squares between
    folds MSB (k - 1 degrees of freedom) and within folds MSW (N - k):
    ``seed = MSW``, ``split = (MSB - MSW) / n0``, ``n0 = (N - sum n_f^2 / N) / (k - 1)``. The estimate of the
    split can be negative, which is shown as 0. Source: Searle, Casella & McCulloch 1992, "Variance Components",
    chapter 3 (the ANOVA estimators).

    Args:
        folds: the scores of each fold, one per seed, finite.

    Example:
        Fold means 2 and 6, each fold with variance 2: MSW = 2, MSB = 16, n0 = 2.

        >>> variance_components([[1.0, 3.0], [5.0, 7.0]])
        Components(split=7.0, seed=2.0, note='')
    """
    sizes = np.array([len(fold) for fold in folds])
    num, k = int(sizes.sum()), len(folds)
    if num == k:
        return Components(math.nan, math.nan, "one seed per fold: the seed's variance is not known")
    means = np.array([np.mean(fold) for fold in folds])
    within = sum(float(np.sum((np.array(fold) - mean) ** 2)) for fold, mean in zip(folds, means, strict=True))
    seed = within / (num - k)
    if k < 2:
        return Components(math.nan, seed, "one fold: the split's variance is not known")
    between = float(sizes @ (means - sizes @ means / num) ** 2) / (k - 1)
    split = (between - seed) / ((num - float(sizes @ sizes) / num) / (k - 1))
    if split < 0:
        return Components(0.0, seed, "the estimate of the split is negative, shown as 0")
    return Components(split, seed)


def variance_table(models: Sequence[Model], metric: str, on: ScoredOn) -> Table:
    """One row per model that may be averaged."""
    kind = kind_of(metric)
    columns = [Column("model", "model"), Column("folds", "folds", "count"), Column("seeds", "seeds per fold")]
    columns += [
        Column("score", title_of(metric), kind),
        Column("split_std", "SD from the split", kind),
        Column("seed_std", "SD from the seed", kind),
        Column("seed_share", "seed's share of the variance (%)", "share"),
        Column("note", "note"),
    ]
    rows = [_row(model, _finite(model, metric, on)) for model in models if model.finished and not model.refused]
    what = "the training set" if on.part == "test" else "the training set and the pictures scored"
    caption = (
        f"Where the spread of {name_of(metric)} comes from, {on.part} part: square roots of the "
        "unbiased variance components of a one-way random-effects analysis of variance; between folds = split "
        f"({what}), within a fold = seed. Mean ± sample standard deviation over folds, seeds averaged first."
    )
    return Table("variance", caption, columns, rows)


def _finite(model: Model, metric: str, on: ScoredOn) -> Mapping[int, list[float]]:
    found = {
        fold: [one.overall[metric] for one in seeds if math.isfinite(one.overall[metric])]
        for fold, seeds in model.scores(on).items()
    }
    return {fold: values for fold, values in found.items() if values}


def _row(model: Model, folds: Mapping[int, list[float]]) -> list[Cell]:
    found = variance_components(list(folds.values()))
    total = found.split + found.seed
    seeds = sorted({len(values) for values in folds.values()})
    return [
        model.label,
        len(folds),
        "–".join(str(number) for number in (seeds[:1] + seeds[-1:] if len(seeds) > 1 else seeds)),
        mean_std([mean_std(values).mean for values in folds.values()]),
        math.sqrt(found.split),
        math.sqrt(found.seed),
        found.seed / total if total > 0 else None,
        found.note if folds else f"not scored: no {model.label} run has this score",
    ]
