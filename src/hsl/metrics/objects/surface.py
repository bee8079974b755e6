"""HD95 and ASSD: how far the contours of each class lie from each other, in pixels.

**Contour.** A pixel of class c is a contour pixel of c if one of its four neighbours is not of class c.
What lies outside the picture is of no class, and neither is an ignored pixel: it is taken out of prediction
and target alike, so that a contour runs along the ignored region in both, nothing that was predicted there
counts, and a prediction that ends anywhere inside an ignored rim around an object fits it exactly. This is
the mask without its erosion by the 4-neighbour cross, as in MONAI.

**Distances.** With P and T the contour pixels of one class in prediction and target and d the Euclidean
distance to the nearest pixel of the other contour::

    HD95 = max( percentile_95 {d(p, T) : p in P}, percentile_95 {d(t, P) : t in T} )
    ASSD = ( sum_P d(p, T) + sum_T d(t, P) ) / ( |P| + |T| )

The percentile interpolates linearly. Taking the larger of the two directed percentiles follows MONAI; medpy
takes one percentile of all distances together and is lower where one contour is much longer.

**Empty.** Both contours empty: NaN, not scored. One empty: the diagonal ``hypot(H, W)`` of the picture,
which no other prediction can exceed, so predicting nothing never scores better than predicting something.
HD95 still hides what happens on less than 5 % of a contour: a small object that is missed beside a large
one shows in PQ, not here.

Sources: Huttenlocher et al. 1993, "Comparing images using the Hausdorff distance"; Heimann et al. 2009,
"Comparison and evaluation of methods for liver segmentation from CT datasets" (ASSD).
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from hsl.metrics.objects.segments import Bools, ClassMap, Floats, LabelImage, class_maps

PERCENTILE = 95


def contours(labels: ClassMap, num_classes: int) -> list[Floats]:
    """The contour pixels of every class, found in one pass over the picture.

    Args:
        labels: ``(H, W)``; a value of ``num_classes`` or more is no class.
        num_classes: how many classes to return.

    Returns:
        One array ``(n, 2)`` of rows and columns per class.

    Example:
        >>> [len(points) for points in contours(np.eye(3, dtype=np.uint8), num_classes=2)]
        [6, 3]
    """
    pixels = np.flatnonzero(_contour_mask(labels))
    classes = labels.ravel()[pixels]
    # A stable sort of bytes is a radix sort: linear, and the pixels of a class stay in reading order.
    order = np.argsort(classes, kind="stable")
    bounds = np.searchsorted(classes[order], np.arange(num_classes + 1))
    points = np.stack(np.divmod(pixels[order], labels.shape[1]), axis=1).astype(np.float64)
    return [points[start:stop] for start, stop in itertools.pairwise(bounds)]


def surface_distances(
    prediction: LabelImage, target: LabelImage, num_classes: int
) -> dict[str, list[float] | list[int]]:
    """HD95 and ASSD of each class of one picture, with the lengths of both contours.

    The formulas and the rules for ignored pixels and empty contours stand at the top of this file.

    Args:
        prediction: class map ``(H, W)``.
        target: class map ``(H, W)`` with ``IGNORE_INDEX`` where nothing is known.
        num_classes: number of classes; each is scored, class 0 too.

    Returns:
        Lists with one value per class: ``hd95`` and ``assd`` in pixels (NaN: both empty),
        ``prediction_contour`` and ``target_contour`` in pixels, from which the empty cases are counted.

    Raises:
        ValueError: sizes differ or a label is no class.

    Example:
        A square of 4 x 4 that was moved by 2 pixels.

        >>> target, prediction = np.zeros((2, 20, 20), dtype=np.uint8)
        >>> target[5:9, 5:9], prediction[5:9, 7:11] = 1, 1
        >>> scores = surface_distances(prediction, target, num_classes=2)
        >>> scores["hd95"][1], scores["target_contour"][1]
        (2.0, 12)
        >>> round(scores["assd"][1], 4)  # in each contour 4 points coincide, 4 are 1 off, 4 are 2 off
        1.0
    """
    masked_prediction, masked_target = class_maps(prediction, target, num_classes)
    found = [contours(image, num_classes) for image in (masked_prediction, masked_target)]
    pairs = list(zip(*found, strict=True))
    diagonal = math.hypot(*target.shape)
    scores = [_distances(first, second, diagonal) for first, second in pairs]
    return {
        "hd95": [hd95 for hd95, _ in scores],
        "assd": [assd for _, assd in scores],
        "prediction_contour": [len(first) for first, _ in pairs],
        "target_contour": [len(second) for _, second in pairs],
    }


def directed_distances(points: Floats, others: Floats) -> Floats:
    """Distance from each of ``points (n, 2)`` to the nearest of ``others (m, 2)``, both not empty.

    Example:
        >>> directed_distances(np.array([[0.0, 0.0], [3.0, 3.0]]), np.array([[3.0, 4.0]])).tolist()
        [5.0, 1.0]
    """
    # The tree answers one batch of questions and is thrown away: cheap to build beats balanced.
    tree = cKDTree(others, balanced_tree=False, compact_nodes=False)
    distances: Floats = tree.query(points, k=1)[0]
    return distances


def summarise_surface(rows: Iterable[Mapping[str, Sequence[Any]]]) -> dict[str, list[float] | list[int]]:
    """Data-set values per class from the rows of many pictures.

    Mean over the pictures in which the class is scored, each picture counting once.

    Args:
        rows: results of ``surface_distances``, or the same read from JSON with null for NaN.

    Returns:
        Lists with one value per class: ``hd95_mean``, ``hd95_median``, ``hd95_p95``, ``assd_mean``,
        ``assd_median``, ``assd_p95`` (NaN when the class is scored nowhere) and the numbers of pictures
        ``num_scored``, ``num_both_empty``, ``num_missed`` (only the target holds the class),
        ``num_spurious`` (only the prediction does).

    Raises:
        ValueError: there is no row.

    Example:
        >>> row = {"hd95": [2.0, None], "assd": [1.0, None]}
        >>> row |= {"prediction_contour": [4, 0], "target_contour": [9, 0]}
        >>> summary = summarise_surface([row, row])
        >>> summary["hd95_mean"], summary["num_both_empty"]
        ([2.0, nan], [0, 2])
    """
    gathered = list(rows)
    if not gathered:
        raise ValueError(
            "`rows` should hold at least one picture. Found none. Score some with `surface_distances` first."
        )
    predicted = np.array([row["prediction_contour"] for row in gathered]) > 0
    present = np.array([row["target_contour"] for row in gathered]) > 0
    summary: dict[str, list[float] | list[int]] = {}
    for name in ("hd95", "assd"):
        values = np.array([row[name] for row in gathered], dtype=np.float64)
        summary |= _spread(name, values, predicted | present)
    summary["num_scored"] = np.sum(predicted | present, axis=0).tolist()
    summary["num_both_empty"] = np.sum(~predicted & ~present, axis=0).tolist()
    summary["num_missed"] = np.sum(~predicted & present, axis=0).tolist()
    summary["num_spurious"] = np.sum(predicted & ~present, axis=0).tolist()
    return summary


def _contour_mask(labels: ClassMap) -> Bools:
    contour = np.zeros(labels.shape, dtype=np.bool_)
    if not labels.size:
        return contour
    contour[[0, -1], :] = True
    contour[:, [0, -1]] = True
    below = labels[1:] != labels[:-1]
    contour[1:] |= below
    contour[:-1] |= below
    right = labels[:, 1:] != labels[:, :-1]
    contour[:, 1:] |= right
    contour[:, :-1] |= right
    return contour


def _distances(prediction: Floats, target: Floats, diagonal: float) -> tuple[float, float]:
    if not len(prediction) and not len(target):
        return math.nan, math.nan
    if not len(prediction) or not len(target):
        return diagonal, diagonal
    there = directed_distances(prediction, target)
    back = directed_distances(target, prediction)
    hd95 = max(np.percentile(there, PERCENTILE), np.percentile(back, PERCENTILE))
    return float(hd95), float((there.sum() + back.sum()) / (len(there) + len(back)))


def _spread(name: str, values: Floats, scored: Bools) -> dict[str, list[float] | list[int]]:
    columns = [values[scored[:, index], index] for index in range(values.shape[1])]
    return {
        f"{name}_mean": [float(np.mean(column)) if column.size else math.nan for column in columns],
        f"{name}_median": [float(np.median(column)) if column.size else math.nan for column in columns],
        f"{name}_p95": [float(np.percentile(column, 95)) if column.size else math.nan for column in columns],
    }
