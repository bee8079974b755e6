"""Aggregated Jaccard index and object F1 of instance maps: how many objects were found, and how much of them.

**F1** counts objects that match at ``IoU > 0.5``, ``2 TP / (2 TP + FP + FN)``: with one class this is the recognition
quality RQ of ``panoptic``, from the same matching and with the same rules for ignored pixels.

**AJI** compares areas. Each target object ``g`` takes the prediction ``s(g)`` of the largest IoU; several may take the
same one. With ``U`` the predictions that none took::

    AJI = sum_g |g & s(g)| / ( sum_g |g | s(g)| + sum_{s in U} |s| )

A target that nothing overlaps adds its area to the denominator. Of two equal IoU the lower id is taken. Ignored pixels
are in no area, and a prediction of which more than half lies on them is not in ``U``. Source: Kumar et al. 2017, "A
Dataset and a Technique for Generalized Nuclear Segmentation for Computational Pathology", algorithm 1.

Counts of pictures add up: both scores are pooled over the data set, never the mean of the pictures' values.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hsl.batch import IGNORE_INDEX
from hsl.metrics.objects.panoptic import Matching, match
from hsl.metrics.objects.segments import Bools, LabelImage, Segments, check_same_size, components, instances

COUNTS = ("tp", "fp", "fn", "aji_intersection", "aji_union")


def object_counts(prediction: LabelImage, target: LabelImage, ignored: Bools | None = None) -> dict[str, int]:
    """What F1 and AJI need to know of one picture; the counts of pictures add up.

    Args:
        prediction: instance ids ``(H, W)``, at least 0; 0 is no object.
        target: the same of the annotation; 255 is an object like any other.
        ignored: bool ``(H, W)``, where nothing is known.

    Returns:
        ``tp``, ``fp``, ``fn`` in objects and ``aji_intersection``, ``aji_union`` in pixels.

    Raises:
        ValueError: sizes or types do not fit, or an id is negative.

    Example:
        >>> object_counts(np.array([[1, 1, 0, 2]]), np.array([[7, 7, 7, 0]]))
        {'tp': 1, 'fp': 1, 'fn': 0, 'aji_intersection': 2, 'aji_union': 4}
    """
    check_same_size(prediction, target)
    void = np.zeros(target.shape, dtype=np.bool_) if ignored is None else ignored
    if void.shape != target.shape:
        raise ValueError(f"`ignored` should have the shape {target.shape}. Found `ignored.shape = {void.shape}`.")
    matching = match(_segments(prediction), _segments(np.where(void, 0, target)), void)
    intersection, union = _aggregated_jaccard(matching)
    return {
        "tp": int((matching.target_match > 0).sum()),
        "fp": int(matching.false_positive.sum()),
        "fn": int(matching.false_negative.sum()),
        "aji_intersection": intersection,
        "aji_union": union,
    }


def instance_counts(
    prediction: LabelImage,
    target: LabelImage,
    target_instances: LabelImage | None = None,
    prediction_instances: LabelImage | None = None,
) -> dict[str, int]:
    """`object_counts` of class maps with one class of objects: what a pool of metrics calls.

    Args:
        prediction: class map ``(H, W)``.
        target: the same of the annotation, 255 where nothing is known.
        target_instances: ids of the annotated objects; ``None``: 8-neighbour components of ``target``.
        prediction_instances: ids of the predicted objects; ``None``: components of ``prediction``.
    """
    if prediction_instances is None:
        prediction_instances = components((prediction == 1).astype(np.uint8), [1]).ids
    if target_instances is None:
        target_instances = components((target == 1).astype(np.uint8), [1]).ids
    return object_counts(prediction_instances, target_instances, ignored=target == IGNORE_INDEX)


def pool_objects(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """F1 and AJI of a data set from the rows of its pictures.

    Args:
        rows: results of ``object_counts``, or the same read from JSON.

    Returns:
        The sums, ``f1`` and ``aji``; both NaN where no picture shows or predicts an object.

    Raises:
        ValueError: there is no row.

    Example:
        >>> rows = [{"tp": 1, "fp": 1, "fn": 0, "aji_intersection": 2, "aji_union": 4}] * 2
        >>> pooled = pool_objects(rows)
        >>> round(pooled["f1"], 4), pooled["aji"], pooled["tp"]
        (0.6667, 0.5, 2)
    """
    gathered = list(rows)
    if not gathered:
        raise ValueError("`rows` should hold at least one picture. Found none. Count some with `object_counts` first.")
    sums = {name: sum(int(row[name]) for row in gathered) for name in COUNTS}
    objects = 2 * sums["tp"] + sums["fp"] + sums["fn"]
    return {
        **sums,
        "f1": 2 * sums["tp"] / objects if objects else math.nan,
        "aji": sums["aji_intersection"] / sums["aji_union"] if sums["aji_union"] else math.nan,
    }


def _segments(ids: LabelImage) -> Segments:
    return instances((ids > 0).astype(np.uint8), ids, things=[1])


def _aggregated_jaccard(matching: Matching) -> tuple[int, int]:
    prediction, target, pixels = matching.overlaps.T
    union = matching.prediction_area[prediction] + matching.target_area[target] - pixels
    order = np.lexsort((prediction, -pixels / union, target))
    best = order[np.unique(target[order], return_index=True)[1]]
    lost = np.ones(matching.target_area.size, dtype=np.bool_)
    lost[target] = False
    spare = ~matching.excused
    spare[prediction[best]] = False
    extra = matching.target_area[lost].sum() + matching.prediction_area[spare].sum()
    return int(pixels[best].sum()), int(union[best].sum() + extra)
