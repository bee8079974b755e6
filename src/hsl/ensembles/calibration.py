"""Calibration of an ensemble's image head: a temperature, and conformal sets. Of pixels: `hsl.metrics.pixels`.

The conformal sets are our own. MAPIE was the alternative: it calibrates rows as if they were exchangeable, has no split
by group and wants the model as an estimator of scikit-learn around which it runs its own folds, where we have finished
out-of-fold probabilities; what is left to take from it is a quantile, for a heavy dependency.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hsl.ensembles.learners import cross_entropy
from hsl.ensembles.nested import Combined, Fit, meta_folds, run_nested
from hsl.ensembles.rows import Floats, Rows
from hsl.inference.combining import FLOOR, log_odds, tempered
from hsl.metrics.pixels.formulas import NUM_BINS, calibration_scores

SHARPEST, FLATTEST = 0.05, 20.0
"""Bounds of the temperature."""


def calibrated(fit: Fit, num_folds: int = 4, seed: int = 0) -> Fit:
    """A variant of a stage followed by one temperature, which is fitted on nested outputs of the variant.

    The folds inside keep the temperature from rows that the variant was fitted on; a nested run of the result is honest
    as one of the variant is. The notes gain ``temperature``.
    """

    def fitted(rows: Rows) -> Combined:
        rows = rows.labelled()
        result = run_nested("inside", fit, rows, meta_folds(rows, num_folds, seed))
        temperature = fit_temperature(result.nested, rows)
        inner = result.combined
        notes = {**inner.notes, "temperature": temperature}
        return Combined(
            inner.members, inner.classes, lambda new: tempered(inner.apply(new), temperature, new.several), notes
        )

    return fitted


def fit_temperature(probabilities: Floats, rows: Rows) -> float:
    """The temperature in [0.05, 20] of least log loss.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2. The log loss is convex in 1 / T.
    """
    from scipy.optimize import minimize_scalar

    logits = log_odds(probabilities, rows.several)

    def loss(inverse: float) -> float:
        return cross_entropy(logits * inverse, rows.truth, rows.several)[0]

    bounds = (1 / FLATTEST, 1 / SHARPEST)
    return float(1 / minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)


def calibration_of(probabilities: Floats, rows: Rows) -> dict[str, float]:
    """``ece``, ``nll`` and ``brier`` over known labels, as `hsl.metrics.pixels.formulas.calibration_scores` has them.

    Where several classes may be shown, each known label is a decision of its own between p and 1 - p.
    """
    if rows.several:
        known = ~np.isnan(rows.truth)
        shown = probabilities[known]
        values, truth = np.column_stack([1 - shown, shown]), rows.truth[known].astype(np.int64)
    else:
        known = rows.labels >= 0
        values, truth = probabilities[known], rows.labels[known]
    top, right = values.max(axis=1), values.argmax(axis=1) == truth
    cell = np.clip(np.ceil(top * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    pixels = np.stack([np.bincount(cell[right == which], minlength=NUM_BINS) for which in (False, True)])
    confidence = np.bincount(cell, weights=top, minlength=NUM_BINS)
    nll = -np.log(np.maximum(values[np.arange(len(truth)), truth], FLOOR)).sum()
    brier = ((values - np.eye(values.shape[1])[truth]) ** 2).sum()
    return {name: float(value) for name, value in calibration_scores(pixels, confidence, nll, brier).items()}


@dataclass(frozen=True, eq=False)
class ConformalSets:
    """Sets of classes that hold the truth at a chosen level, and whether they did.

    Attributes:
        sets: ``bool (N, K)``: each part by the limits of the other parts.
        limits: ``(K,)``: of all rows, for new images.
        coverage: share of the known labels (of the classes shown, where several may be) that lie in their set, a mean
            over the groups.
        mean_size: classes in a set.
        certain: share of the sets that hold one class.
    """

    sets: NDArray[np.bool_]
    limits: Floats
    coverage: float
    mean_size: float
    certain: float


def conformal_sets(probabilities: Floats, rows: Rows, parts: NDArray[np.int64], level: float = 0.9) -> ConformalSets:
    """Split-conformal sets by group, for each part by the other parts.

    Args:
        probabilities: ``(N, K)``: nested ones.
        rows: the labels and groups.
        parts: ``(N,)``: number of the part of each row, groups whole.
        level: of the coverage, in (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"`level` should be in (0, 1). Found `level = {level}`. Set it to 0.9.")
    sets = np.zeros(probabilities.shape, dtype=bool)
    for number in np.unique(parts):
        others, part = parts != number, parts == number
        limits = conformal_limits(probabilities[others], rows.take(others), level)
        sets[part] = 1 - probabilities[part] <= limits
    shown = rows.truth == 1
    groups = np.unique(np.array(rows.groups), return_inverse=True)[1]
    num_shown = np.bincount(groups, weights=shown.sum(axis=1))
    covered = np.bincount(groups, weights=(shown & sets).sum(axis=1))[num_shown > 0]
    coverage = float((covered / num_shown[num_shown > 0]).mean()) if len(covered) else float("nan")
    sizes = sets.sum(axis=1)
    limits = conformal_limits(probabilities, rows, level)
    return ConformalSets(sets, limits, coverage, float(sizes.mean()), float((sizes == 1).mean()))


def conformal_limits(probabilities: Floats, rows: Rows, level: float) -> Floats:
    """``(K,)``: a class is in the set where ``1 - p`` is at most its limit; inf where too few groups can say.

    With G groups the limit is the least q for which ``1 / (G + 1) sum_g mean_i [1 - p_i <= q]`` over the true classes
    reaches the level: each group weighs alike, and one more, the new one, lies at infinity. A random image of a new
    group is then covered with at least this probability. Source: Lee, Barber & Willett 2023, "Distribution-free
    inference with hierarchical data" (HCP); with groups of one image it is split-conformal prediction by 1 - p (Sadinle
    et al. 2019). Where several may be shown, each class has a limit over the images that show it.
    """
    shown = rows.truth == 1
    groups = np.array(rows.groups)
    if rows.several:
        of_classes = [_limit(1 - probabilities[show, k], groups[show], level) for k, show in enumerate(shown.T)]
        return np.array(of_classes)
    known = shown.any(axis=1)
    limit = _limit(1 - probabilities[shown], groups[known], level)
    return np.full(len(rows.classes), limit)


def _limit(scores: Floats, groups: NDArray[np.str_], level: float) -> float:
    names, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    mass = np.cumsum(1 / sizes[index[order]]) / (len(names) + 1)
    enough = np.flatnonzero(mass >= level - 1e-12)
    return float(scores[order[enough[0]]]) if len(enough) else float("inf")
