"""Average precision of objects: how many are found, the stricter the fit that is asked for.

For a threshold ``t`` of the IoU, with the counts of all pictures added up::

    AP(t) = TP(t) / (TP(t) + FP(t) + FN(t)),   AP = mean of AP(t) over t = 0.5, 0.55, ..., 0.95

A match is one of ``panoptic`` (IoU > 0.5, ignored pixels in neither) whose IoU is above ``t``; a pair that falls short
of ``t`` is one predicted object too many and one true object missed, so ``FP(t) + FN(t) = FP + FN + 2 (TP - TP(t))``.

Source: Caicedo et al. 2019, "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl", the score of
the contest; there the mean over pictures, here pooled. It is not the area under a precision-recall curve (COCO, Pascal
VOC): that one ranks objects by a score, and the objects of a class map have none.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hsl.metrics.objects.segments import Floats, Integers

THRESHOLDS = tuple(k / 20 for k in range(10, 20))
NAMED = {"object_ap": slice(None), "object_ap50": slice(0, 1), "object_ap75": slice(5, 6)}
"""Score to the thresholds over which it is the mean."""


def hits_above(classes: Integers, iou: Floats, num_classes: int) -> list[list[int]]:
    """How many true objects of each class have a match above each of ``THRESHOLDS``.

    Args:
        classes: ``(n,)`` of the true objects.
        iou: ``(n,)`` with their matches, 0 without one.
        num_classes: number of classes.

    Returns:
        A list for each class with one count per threshold.

    Example:
        >>> hits_above(np.array([1, 1]), np.array([0.8, 0.55]), num_classes=2)[1]
        [2, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    """
    counts = [np.bincount(classes[iou > t], minlength=num_classes) for t in THRESHOLDS]
    hits: list[list[int]] = np.stack(counts, axis=1).tolist()
    return hits


def pool_precision(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """AP of a data set from the rows of its pictures.

    Args:
        rows: results of ``panoptic.panoptic_counts``, or the same read from JSON.

    Returns:
        ``object_ap``, ``object_ap50`` and ``object_ap75``, lists with one value per class, NaN for a class without any
        object. All NaN where a row has no ``tp_above`` (runs from before this score).

    Raises:
        ValueError: there is no row.

    Example:
        >>> hits = [[2, 1, 1, 1, 1, 1, 0, 0, 0, 0]]
        >>> pooled = pool_precision([{"tp": [2], "fp": [1], "fn": [0], "tp_above": hits}])
        >>> round(pooled["object_ap50"][0], 4), pooled["object_ap75"][0], round(pooled["object_ap"][0], 4)
        (0.6667, 0.25, 0.1917)
    """
    gathered = list(rows)
    if not gathered:
        raise ValueError(
            "`rows` should hold at least one picture. Found none. Count some with `panoptic_counts` first."
        )
    tp, fp, fn = (np.sum([row[name] for row in gathered], axis=0)[:, None] for name in ("tp", "fp", "fn"))
    known = all(row.get("tp_above") is not None for row in gathered)
    hits = (
        np.sum([row["tp_above"] for row in gathered], axis=0) if known else np.full((len(tp), len(THRESHOLDS)), np.nan)
    )
    with np.errstate(invalid="ignore"):
        precision = hits / (2 * tp + fp + fn - hits)
    return {name: precision[:, chosen].mean(axis=1).tolist() for name, chosen in NAMED.items()}
