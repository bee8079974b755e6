"""Scores of labels of whole pictures: one class each, or any number of them. No torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.batch import UNKNOWN_LABEL
from hsl.errors import NonFiniteLogitsError
from hsl.metrics.images.image_counts import COUNTED, ImageCounts


def image_scores(
    probabilities: NDArray[np.floating[Any]], targets: NDArray[Any], thresholds: Sequence[float] | None = None
) -> dict[str, Any]:
    """Every score of an image head, pooled over the pictures.

    Counted scores are those of `hsl.metrics.images.image_counts.ImageCounts`. ``auroc`` and ``average_precision`` are
    the areas under the curves of a class against all others, over the pictures of which it is known whether they show
    it; their macro means leave out classes that have no such curve. What cannot be scored is NaN.

    Args:
        probabilities: ``(N, K)``.
        targets: ``int (N,)``, -1 where it is not known; or ``float (N, K)`` of 0 and 1, NaN where it is not known.
        thresholds: K of them, for several classes; ``None``: 0.5.

    Returns:
        Scalars by name, ``num_images`` (of which anything is known), ``per_class`` (arrays over the classes) and, for
        one class per picture, ``confusion`` ``(K, K)``, rows truth.

    Raises:
        NonFiniteLogitsError: a probability is NaN or infinite.

    Example:
        >>> found = image_scores(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1]))
        >>> found["accuracy"], round(found["macro_f1"], 4)
        (0.5, 0.3333)
    """
    if len(broken := np.flatnonzero(~np.isfinite(probabilities).all(axis=1))):
        raise NonFiniteLogitsError(
            f"Every probability should be finite. Found others in row {broken[0]}. {NonFiniteLogitsError.ADVICE}"
        )
    from sklearn.metrics import average_precision_score, roc_auc_score  # a second, which reports on masks do without

    several = targets.ndim == 2
    truth = targets.astype(np.float64) if several else one_hot_labels(targets, probabilities.shape[1])
    predicted = predicted_labels(probabilities, several, thresholds)
    total = ImageCounts.of(truth, predicted, several).total
    per_class = {**total.per_class(), "auroc": np.array([]), "average_precision": np.array([])}
    for name, score in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        per_class[name] = np.array([_area(score, *columns) for columns in zip(truth.T, probabilities.T, strict=True)])
    found: dict[str, Any] = {name: float(total.score(name)) for name in COUNTED}
    for name in ("auroc", "average_precision"):
        scored = per_class[name][~np.isnan(per_class[name])]
        found[f"macro_{name}"] = float(scored.mean()) if scored.size else float("nan")
    found |= {"num_images": int(total.known), "per_class": per_class}
    if not several:
        found["confusion"] = (np.nan_to_num(truth).T @ predicted).astype(np.int64)
    return found


def one_hot_labels(targets: NDArray[Any], num_classes: int) -> NDArray[np.float64]:
    """``(N, K)`` of 0 and 1; NaN in the row of a picture whose class is -1, not known."""
    known = targets != UNKNOWN_LABEL
    truth = np.eye(num_classes)[np.where(known, targets, 0)]
    truth[~known] = np.nan
    return truth


def predicted_labels(
    probabilities: NDArray[np.floating[Any]], several: bool, thresholds: Sequence[float] | None = None
) -> NDArray[np.bool_]:
    """``(N, K)``: which classes each picture is said to show: the most probable, or all at or above their threshold."""
    if several:
        limits = np.asarray(thresholds if thresholds is not None else [0.5] * probabilities.shape[1])
        return np.asarray(probabilities >= limits)
    return np.asarray(np.eye(probabilities.shape[1], dtype=bool)[probabilities.argmax(axis=1)])


def _area(score: Any, truth: NDArray[np.float64], probabilities: NDArray[Any]) -> float:
    """NaN where all pictures show the class, or none."""
    known = ~np.isnan(truth)
    shown = truth[known] == 1
    return float(score(shown, probabilities[known])) if shown.any() and not shown.all() else float("nan")
