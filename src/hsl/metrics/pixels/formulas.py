"""The scores of counted pixels. No torch: a report makes them again from what a run has stored.

Every score is pooled: counts are summed over the data set first, then divided. Leading dimensions of the counts
(pictures, folds, resamples) are kept.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hsl.metrics.catalogue import score_names

Floats = NDArray[np.float64]
States: TypeAlias = "dict[str, NDArray[Any]]"
"""The sums of some pictures on the host; those of several pictures add up.

``matrices`` is ``int64 (2, C, C)`` (interior and boundary; rows truth), ``boundaries`` ``int64 (K, C)``, ``pixels``
``int64 (2, bins)``, ``confidence`` ``(bins)``, ``nll`` and ``brier`` are scalars.
"""
STATES = ("matrices", "boundaries", "pixels", "confidence", "nll", "brier")
BOUNDARY_COUNTS = (
    "band_true",
    "band_both",
    "contour_true",
    "hit_true",
    "band_predicted",
    "contour_predicted",
    "hit_predicted",
)
NUM_BINS = 15
KINDS = ("background", "missed", "classification")
PLACES = ("interior", "boundary")


def add_states(states: Sequence[States]) -> States:
    """The sums over all pictures."""
    return {name: np.sum([each[name] for each in states], axis=0) for name in STATES}


def pixel_scores(states: Mapping[str, ArrayLike]) -> dict[str, float]:
    """The scores of pixels that `hsl.metrics.catalogue` says a validation logs, from the sums of one data set."""
    matrices, boundaries, *calibration = (np.asarray(states[name]) for name in STATES)
    values = {
        **confusion_scores(matrices.sum(0)),
        **boundary_scores(boundaries),
        **calibration_scores(*calibration),
        **error_breakdown(matrices),
    }
    return {name: float(values[name]) for name in score_names("pixels") if name in values}


def confusion_scores(confusion: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Scores from confusion counts.

    ``TP_c`` is the diagonal, ``FN_c`` the rest of the row, ``FP_c`` the rest of the column:
    ``iou = TP / (TP + FP + FN)``, ``dice = f1 = 2 TP / (2 TP + FP + FN)``, ``precision = TP / (TP + FP)``,
    ``recall = TP / (TP + FN)``. A class absent from target and prediction is NaN in all of them and left out
    of the means; absent from one of the two it is 0. Macro means over the scored classes: ``miou``,
    ``mean_dice``, and ``foreground_iou`` over those but class 0. Micro: ``micro_iou = sum TP / sum (TP + FP + FN)``,
    ``pixel_accuracy = sum TP / valid pixels``. By frequency, with ``t_c`` the true pixels of a class:
    ``frequency_weighted_iou = sum_c t_c IoU_c / sum_c t_c`` (Long et al. 2015, "Fully convolutional networks for
    semantic segmentation", section 5). Without a valid pixel all of them are NaN.

    Args:
        confusion: integers, or weighted sums of them, ``(..., C, C)``, rows target, columns prediction.

    Returns:
        ``float64 (..., C)``: iou, dice, precision, recall, f1. ``float64 (...)``: miou, foreground_iou, micro_iou,
        frequency_weighted_iou, mean_dice, pixel_accuracy. ``int64``: pixels ``(..., C)`` of the target,
        classes_scored ``(...)``.

    Example:
        >>> round(float(confusion_scores(np.array([[3, 1], [0, 4]]))["miou"]), 4)  # 3/4 and 4/5
        0.775
    """
    hits = confusion.diagonal(axis1=-2, axis2=-1)
    true, predicted = confusion.sum(-1), confusion.sum(-2)
    union = true + predicted - hits
    scored = union > 0
    iou = _share(hits, union, scored)
    dice = _share(2 * hits, true + predicted, scored)
    return {
        "iou": iou,
        "dice": dice,
        "precision": _share(hits, predicted, scored),
        "recall": _share(hits, true, scored),
        "f1": dice,
        "pixels": true,
        "miou": _mean(iou),
        "foreground_iou": _mean(iou[..., 1:]),
        "micro_iou": _ratio(hits.sum(-1), union.sum(-1)),
        "frequency_weighted_iou": _ratio((true * np.nan_to_num(iou)).sum(-1), true.sum(-1)),
        "mean_dice": _mean(dice),
        "pixel_accuracy": _ratio(hits.sum(-1), true.sum(-1)),
        "classes_scored": scored.sum(-1),
    }


def dice_empty_one(matrices: NDArray[Any]) -> tuple[float, float]:
    """Mean Dice over pictures and foreground classes in which "both empty" counts 1, and that of predicting nothing.

    A picture without the class scores 1 where none of it is predicted, else 0. Where most pictures lack most classes
    the mean is high for a model that never predicts anything, so the two belong side by side: on the original Severstal
    data predicting nothing scores 0.8556.

    Args:
        matrices: ``int64 (N, C, C)``, one confusion matrix per picture, rows truth; class 0 is background.

    Returns:
        Both means, over ``N (C - 1)`` values; NaN without any.

    Example:
        >>> empty, missed = [[9, 0], [0, 0]], [[5, 0], [4, 0]]
        >>> dice_empty_one(np.array([empty, missed]))
        (0.5, 0.5)
    """
    truth, predicted = matrices.sum(2)[:, 1:], matrices.sum(1)[:, 1:]
    hits = matrices.diagonal(axis1=1, axis2=2)[:, 1:]
    both = truth + predicted
    dice = np.where(both == 0, 1.0, 2 * hits / np.maximum(both, 1))
    return (float(dice.mean()), float((truth == 0).mean())) if dice.size else (float("nan"), float("nan"))


def boundary_scores(counts: NDArray[Any]) -> dict[str, Floats]:
    """Boundary IoU and boundary F1 from pooled counts.

    - Boundary IoU of a class: IoU of the inner bands of width d of truth and prediction. Source: Cheng et al.
      2021, "Boundary IoU", equation 1; d is 2 % of the diagonal there too.
    - Boundary F1 of a class: harmonic mean of precision (predicted contour within d of the true one) and
      recall (the reverse). Source: Csurka et al. 2013, "What is a good evaluation measure for semantic
      segmentation?". There the distance is Euclidean, 0.75 % of the diagonal, and the mean is over pictures;
      here it is chessboard, d as in `hsl.metrics.pixels.boundary`, and counts are pooled.

    A class without band (without contour) in both masks is NaN and left out of the mean; in one of them it is
    0.

    Args:
        counts: ``(..., 7, C)``, rows as `BOUNDARY_COUNTS`, summed over pictures.

    Returns:
        ``float64 (...)`` boundary_iou, boundary_f1 (macro means) and ``float64 (..., C)``
        boundary_iou_per_class, boundary_f1_per_class.
    """
    named = dict(zip(BOUNDARY_COUNTS, np.moveaxis(counts, -2, 0), strict=True))
    union = named["band_true"] + named["band_predicted"] - named["band_both"]
    iou = _share(named["band_both"], union, union > 0)
    scored = named["contour_true"] + named["contour_predicted"] > 0
    precision = _share(named["hit_predicted"], named["contour_predicted"], scored)
    recall = _share(named["hit_true"], named["contour_true"], scored)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    return {
        "boundary_iou": _mean(iou),
        "boundary_f1": _mean(f1),
        "boundary_iou_per_class": iou,
        "boundary_f1_per_class": f1,
    }


def calibration_scores(
    pixels: NDArray[Any], confidence: ArrayLike, nll: ArrayLike, brier: ArrayLike
) -> dict[str, Floats]:
    """Calibration over the valid pixels; NaN where there are none.

    - ``ece = sum_m n_m / N |right_m / n_m - confidence_m / n_m|`` over equal-width bins of the top
      probability.
      Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
    - ``nll``: mean of ``-log p_t``.
    - ``brier``: mean of ``sum_c (p_c - y_c)^2``, from 0 to 2. Source: Brier 1950.

    Args:
        pixels: ``(..., 2, M)``: wrong and right pixels per bin of the top probability.
        confidence: ``(..., M)``: the sums of their top probabilities.
        nll: ``(...)``: its sum.
        brier: ``(...)``: its sum.

    Returns:
        ``float64 (...)``.

    Example:
        >>> pixels = np.array([[1, 0], [1, 2]])  # half of the first bin is right, all of the second
        >>> round(float(calibration_scores(pixels, np.array([0.8, 1.8]), 1.0, 2.0)["ece"]), 4)  # (0.2 + 0.2) / 4
        0.1
    """
    total = pixels.sum((-2, -1))
    wrong_by = np.abs(pixels[..., 1, :] - confidence).sum(-1)
    return {"ece": _ratio(wrong_by, total), "nll": _ratio(nll, total), "brier": _ratio(brier, total)}


def error_breakdown(matrices: NDArray[Any]) -> dict[str, Floats]:
    """Shares of the valid pixels that are wrong, by kind and place; their sum is 1 - pixel accuracy.

    ``background``: foreground predicted on background (class 0). ``missed``: the reverse. ``classification``:
    both foreground, unlike classes. Each is split into ``boundary`` (within d of a contour of the target) and
    ``interior``. NaN without a valid pixel.

    Args:
        matrices: ``(..., 2, C, C)``: confusion matrices of interior and boundary pixels, rows target.

    Returns:
        ``float64 (...)``: ``error_<kind>_<place>``, six of them.

    Example:
        >>> interior, boundary = [[5, 1], [0, 2]], [[0, 0], [2, 0]]
        >>> shares = error_breakdown(np.array([interior, boundary]))
        >>> float(shares["error_background_interior"]), float(shares["error_missed_boundary"])
        (0.1, 0.2)
    """
    total = matrices.sum((-3, -2, -1))
    foreground = matrices[..., 1:, 1:]
    counts = (
        matrices[..., 0, 1:].sum(-1),
        matrices[..., 1:, 0].sum(-1),
        foreground.sum((-2, -1)) - foreground.diagonal(axis1=-2, axis2=-1).sum(-1),
    )
    return {
        f"error_{kind}_{place}": _ratio(pixels[..., index], total)
        for kind, pixels in zip(KINDS, counts, strict=True)
        for index, place in enumerate(PLACES)
    }


def _share(part: NDArray[Any], whole: NDArray[Any], scored: NDArray[np.bool_]) -> Floats:
    """``part / whole``: 0 where the whole is empty, NaN where nothing is to be scored."""
    return np.where(scored, part / np.maximum(whole, 1), np.nan)


def _ratio(part: ArrayLike, whole: NDArray[Any]) -> Floats:
    """``part / whole``, NaN where the whole is 0."""
    empty = np.equal(whole, 0)
    return np.where(empty, np.nan, part / np.where(empty, 1, whole))


def _mean(values: Floats) -> Floats:
    """Over the last dimension, those that are NaN left out; NaN where all are."""
    scored = ~np.isnan(values)
    return _ratio(np.where(scored, values, 0).sum(-1), scored.sum(-1))


def pool_channels(channels: Sequence[States]) -> States:
    """What K metrics of two classes counted, as counts of the classes ``absent`` and the K channels.

    Every pixel counts once in each channel: as that channel's class where it shows it, as class 0 where it does not.
    So the IoU, Dice, precision and recall of class k + 1 are those of channel k alone, class 0 is the absence in all
    channels, a pixel of one channel is never taken for another, and shares are of valid pixels times channels. The
    macro mean of the IoU over the channels is ``foreground_iou``.

    Args:
        channels: of each channel the sums of a ``Pixelwise(2)``.

    Returns:
        As of a ``Pixelwise(K + 1)``.

    Example:
        >>> two = {"matrices": np.array([[[5, 1], [2, 4]], [[0, 0], [0, 0]]]), "boundaries": np.zeros((7, 2), int)}
        >>> rest = dict.fromkeys(("pixels", "confidence", "nll", "brier"), np.zeros(1))
        >>> pool_channels([{**two, **rest}, {**two, **rest}])["matrices"][0].tolist()
        [[10, 1, 1], [2, 4, 0], [2, 0, 4]]
    """
    number = len(channels)
    placed = []
    for index, counted in enumerate(channels, start=1):
        matrices = np.zeros((2, number + 1, number + 1), np.int64)
        matrices[np.ix_((0, 1), (0, index), (0, index))] = counted["matrices"]
        boundaries = np.zeros((len(counted["boundaries"]), number + 1), np.int64)
        boundaries[:, (0, index)] = counted["boundaries"]
        placed.append({**counted, "matrices": matrices, "boundaries": boundaries})
    return add_states(placed)
