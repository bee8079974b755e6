"""ARI and VOI: two label images as partitions of the pixels, whatever the labels are called.

Both come from one contingency table ``n_ij``: how many pixels have label i in the target and j in the
prediction, with row sums ``a_i``, column sums ``b_j`` and total n. The label images are the **class maps**
unless the caller passes instance maps; connected components are not formed here. Ignored pixels are left
out of the table. No valid pixel: NaN.

ARI is 1 for equal partitions and 0 in the mean of random ones with the same sums; it can be negative. VOI
is a distance in bits, 0 for equal partitions: neither is a function of the other, and ``1 - ARI`` is no
variation of information.
"""

import math
from typing import NamedTuple

import numpy as np

from hsl.batch import IGNORE_INDEX
from hsl.metrics.objects.segments import Integers, LabelImage, check_same_size

MAX_TABLE_CELLS = 2**22  # 32 MB of counts; above it the pairs are sorted instead


class Contingency(NamedTuple):
    """The cells of a contingency table that are not 0, as three arrays of one length.

    ``target[k]`` and ``prediction[k]`` are the two labels, ``pixels[k]`` says how many pixels have both.
    """

    target: Integers
    prediction: Integers
    pixels: Integers


def contingency(prediction: LabelImage, target: LabelImage, ignore_index: int | None = IGNORE_INDEX) -> Contingency:
    """Count the pairs of labels of two label images.

    Label images are flat in patches, so the pixels are first joined to horizontal runs in which neither
    label changes, and only the runs are counted.

    Args:
        prediction: ``(H, W)``, any integer labels.
        target: ``(H, W)``, any integer labels.
        ignore_index: pixels with this target label are left out; ``None`` keeps all (instance maps, in
            which 255 is an object).

    Raises:
        ValueError: sizes differ or the labels are no integers.

    Example:
        >>> table = contingency(np.array([[5, 5, 9]]), np.array([[0, 1, 1]]))
        >>> [values.tolist() for values in table]
        [[0, 1, 1], [5, 5, 9], [1, 1, 1]]
    """
    check_same_size(prediction, target)
    flat_prediction, flat_target = prediction.ravel(), target.ravel()
    changes = np.ones(flat_target.size, dtype=np.bool_)
    if flat_target.size:
        np.not_equal(flat_target[1:], flat_target[:-1], out=changes[1:])
        changes[1:] |= flat_prediction[1:] != flat_prediction[:-1]
    starts = np.flatnonzero(changes)
    lengths = np.diff(starts, append=flat_target.size)
    targets = flat_target[starts].astype(np.int64)
    predictions = flat_prediction[starts].astype(np.int64)
    if ignore_index is not None:
        valid = targets != ignore_index
        targets, predictions, lengths = targets[valid], predictions[valid], lengths[valid]
    return _count_pairs(targets, predictions, lengths)


def adjusted_rand_index(table: Contingency) -> float:
    """Adjusted Rand index of a contingency table.

    ``(S - A B / N) / ((A + B) / 2 - A B / N)`` with ``S = sum_ij C(n_ij, 2)``, ``A = sum_i C(a_i, 2)``, ``B
    = sum_j C(b_j, 2)``, ``N = C(n, 2)``. Source: Hubert & Arabie 1985, "Comparing partitions", equation 5.
    Two partitions without any freedom (both one single part, or each pixel its own part) are equal and give
    1, as in scikit-learn.

    Returns:
        A value of at most 1; NaN for an empty table.

    Example:
        >>> prediction, target = np.array([[0, 0, 1, 2]]), np.array([[0, 0, 1, 1]])
        >>> round(adjusted_rand_index(contingency(prediction, target)), 4)
        0.5714
    """
    if not table.pixels.size:
        return math.nan
    # Python's integers: the products below have 80 binary digits for a picture of two megapixels.
    together = _num_pairs(table.pixels)
    targets = _num_pairs(_sums(table.target, table.pixels))
    predictions = _num_pairs(_sums(table.prediction, table.pixels))
    total = _num_pairs(table.pixels.sum(keepdims=True))
    divisor = (targets + predictions) * total - 2 * targets * predictions
    if divisor == 0:
        return 1.0
    return 2 * (together * total - targets * predictions) / divisor


def variation_of_information(table: Contingency) -> tuple[float, float]:
    """The two conditional entropies whose sum is the variation of information, in bits.

    ``split = H(prediction | target) = sum_ij n_ij / n log2(a_i / n_ij)``: how far the prediction cuts the
    parts of the target; ``merge = H(target | prediction) = sum_ij n_ij / n log2(b_j / n_ij)``: how far it
    joins them.
    Source: Meila 2007, "Comparing clusterings - an information based distance".

    Returns:
        Split and merge, each at least 0; NaN for an empty table.

    Example:
        >>> prediction, target = np.array([[0, 0, 1, 2]]), np.array([[0, 0, 1, 1]])
        >>> variation_of_information(contingency(prediction, target))
        (0.5, 0.0)
    """
    if not table.pixels.size:
        return math.nan, math.nan
    split = _conditional_entropy(table.target, table.pixels)
    return split, _conditional_entropy(table.prediction, table.pixels)


def clustering_scores(
    prediction: LabelImage, target: LabelImage, ignore_index: int | None = IGNORE_INDEX
) -> dict[str, float | int]:
    """ARI and VOI of one picture.

    Args:
        prediction: label image ``(H, W)``; a class map, or any other labels.
        target: label image ``(H, W)``.
        ignore_index: as in ``contingency``.

    Returns:
        ``ari``, ``voi`` (bits), its parts ``voi_split`` and ``voi_merge``, and ``valid_pixels``. NaN
        without a valid pixel.

    Raises:
        ValueError: sizes differ or the labels are no integers.

    Example:
        >>> scores = clustering_scores(np.array([[7, 7, 3]]), np.array([[1, 1, 2]]))
        >>> scores["ari"], scores["voi"], scores["valid_pixels"]
        (1.0, 0.0, 3)
    """
    table = contingency(prediction, target, ignore_index)
    split, merge = variation_of_information(table)
    return {
        "ari": adjusted_rand_index(table),
        "voi": split + merge,
        "voi_split": split,
        "voi_merge": merge,
        "valid_pixels": int(table.pixels.sum()),
    }


def _count_pairs(targets: Integers, predictions: Integers, lengths: Integers) -> Contingency:
    if not lengths.size:
        return Contingency(targets, predictions, lengths)
    lowest_target, lowest_prediction = int(targets.min()), int(predictions.min())
    height = int(targets.max()) - lowest_target + 1
    width = int(predictions.max()) - lowest_prediction + 1
    if height * width <= MAX_TABLE_CELLS:
        # float64 counts are exact up to 2^53 pixels.
        cells = (targets - lowest_target) * width + (predictions - lowest_prediction)
        pixels = np.bincount(cells, weights=lengths).astype(np.int64)
        found = np.flatnonzero(pixels)
        return Contingency(found // width + lowest_target, found % width + lowest_prediction, pixels[found])
    target_labels, rows = np.unique(targets, return_inverse=True)
    prediction_labels, columns = np.unique(predictions, return_inverse=True)
    found, inverse = np.unique(rows * prediction_labels.size + columns, return_inverse=True)
    pixels = np.bincount(inverse, weights=lengths).astype(np.int64)
    first, second = np.divmod(found, prediction_labels.size)
    return Contingency(target_labels[first], prediction_labels[second], pixels)


def _sums(labels: Integers, pixels: Integers) -> Integers:
    """Pixels of each label, in the order of the labels."""
    inverse = np.unique(labels, return_inverse=True)[1]
    return np.bincount(inverse, weights=pixels).astype(np.int64)


def _num_pairs(counts: Integers) -> int:
    """Sum of ``C(n, 2)``, which fits 63 bits up to 3e9 pixels."""
    return int((counts * (counts - 1) // 2).sum())


def _conditional_entropy(labels: Integers, pixels: Integers) -> float:
    inverse = np.unique(labels, return_inverse=True)[1]
    sums = np.bincount(inverse, weights=pixels)
    # Every term is at least 0 and exactly 0 where a part is not cut, so equal partitions give exactly 0.
    return float((pixels * np.log2(sums[inverse] / pixels)).sum() / pixels.sum())
