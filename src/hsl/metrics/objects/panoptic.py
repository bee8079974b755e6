"""Panoptic quality: which objects were found, and how well they fit.

**Segments.** The objects of a class are its 8-neighbour connected components, formed after the ignored
pixels were taken out of both class maps. Or they are given as instance maps: a segment is then all pixels
with one instance id and one class; id 0 and classes that are no things belong to no segment.

**Match.** A predicted and a target segment of one class match if ``IoU = |p & t| / |p | t| > 0.5``, where
ignored pixels (void) count in neither. No segment can have two matches. Matched: true positives. Unmatched
target segments: false negatives. Unmatched predicted segments: false positives, except that a **given**
predicted segment of which more than half lies on ignored pixels is dropped. These are the rules of
``panopticapi``; components have no ignored pixels left, so for them what was predicted on ignored pixels
changes nothing, and an ignored band cuts both images alike.

**Quality** of a class, from sums over all pictures, never the mean of the pictures' values::

    PQ = sum IoU / (TP + FP / 2 + FN / 2) = SQ * RQ,   SQ = sum IoU / TP,   RQ = TP / (TP + FP / 2 + FN / 2)

Source: Kirillov et al. 2019, "Panoptic Segmentation", section 4.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hsl.batch import IGNORE_INDEX
from hsl.metrics.objects.average_precision import hits_above
from hsl.metrics.objects.clustering import contingency
from hsl.metrics.objects.segments import (
    Bools,
    Floats,
    Integers,
    LabelImage,
    Segments,
    class_maps,
    components,
    count_classes,
    instances,
)

VOID = -1


@dataclass(frozen=True)
class Matching:
    """Segments of prediction and target, how they overlap and which of them match.

    ``overlaps (k, 3)`` has a row (prediction id, target id, pixels) for each pair that shares pixels. Areas
    leave ignored pixels out and are indexed by id, like ``prediction_match`` and ``target_match``, which
    hold the id of the partner or 0. ``excused[id]`` tells the predicted segments that lie mostly on ignored
    pixels.
    """

    prediction: Segments
    target: Segments
    overlaps: Integers
    prediction_area: Integers
    target_area: Integers
    prediction_match: Integers
    target_match: Integers
    target_iou: Floats
    excused: Bools

    @property
    def false_positive(self) -> Bools:
        """Predicted segments, by id, that are neither matched nor excused nor empty of valid pixels."""
        wrong: Bools = (self.prediction_match == 0) & ~self.excused & (self.prediction_area > 0)
        return wrong

    @property
    def false_negative(self) -> Bools:
        """Target segments, by id, that have no match."""
        lost: Bools = (self.target_match == 0) & (self.target_area > 0)
        return lost


def match(prediction: Segments, target: Segments, void: Bools) -> Matching:
    """Match the segments of two pictures by the rule at the top of this file.

    Args:
        prediction: predicted segments; they may lie on ignored pixels.
        target: target segments; they do not.
        void: ``(H, W)``, true where the target is ignored.
    """
    table = contingency(prediction.ids, np.where(void, np.int32(VOID), target.ids), ignore_index=None)
    seen = table.target != VOID
    num_predictions, num_targets = len(prediction.classes), len(target.classes)
    prediction_area = _sums(table.prediction[seen], table.pixels[seen], num_predictions)
    hidden_area = _sums(table.prediction[~seen], table.pixels[~seen], num_predictions)
    target_area = _sums(table.target[seen], table.pixels[seen], num_targets)
    for area in (prediction_area, hidden_area, target_area):
        area[:1] = 0
    pairs = (table.target > 0) & (table.prediction > 0)
    p, t, pixels = table.prediction[pairs], table.target[pairs], table.pixels[pairs]
    union = prediction_area[p] + target_area[t] - pixels
    # In integers: an IoU of exactly one half is no match.
    matched = (2 * pixels > union) & (prediction.classes[p] == target.classes[t])
    prediction_match, target_match = np.zeros(num_predictions, np.int64), np.zeros(num_targets, np.int64)
    prediction_match[p[matched]], target_match[t[matched]] = t[matched], p[matched]
    iou = np.zeros(num_targets)
    iou[t[matched]] = pixels[matched] / union[matched]
    return Matching(
        prediction=prediction,
        target=target,
        overlaps=np.stack([p, t, pixels], axis=1),
        prediction_area=prediction_area,
        target_area=target_area,
        prediction_match=prediction_match,
        target_match=target_match,
        target_iou=iou,
        excused=hidden_area > prediction_area,
    )


def match_pictures(
    prediction: LabelImage,
    target: LabelImage,
    num_classes: int,
    things: Sequence[int] | None = None,
    target_instances: LabelImage | None = None,
    prediction_instances: LabelImage | None = None,
) -> Matching:
    """Form the segments of a picture and match them.

    Args:
        prediction: class map ``(H, W)``.
        target: class map ``(H, W)`` with ``IGNORE_INDEX`` where nothing is known.
        num_classes: number of classes.
        things: the classes that have objects; all but class 0 unless given.
        target_instances: instance ids ``(H, W)`` in place of connected components.
        prediction_instances: the same for the prediction.

    Raises:
        ValueError: sizes differ, a label or a thing is no class.
    """
    masked_prediction, masked_target = class_maps(prediction, target, num_classes)
    chosen = range(1, num_classes) if things is None else things
    if not set(chosen) <= set(range(num_classes)):
        raise ValueError(f"`things` should be classes in [0, {num_classes}). Found `things = {list(chosen)}`.")
    if prediction_instances is None:
        found = components(masked_prediction, chosen)
    else:
        found = instances(prediction, prediction_instances, chosen)
    if target_instances is None:
        wanted = components(masked_target, chosen)
    else:
        wanted = instances(masked_target, target_instances, chosen)
    return match(found, wanted, masked_target == IGNORE_INDEX)


def panoptic_counts(
    prediction: LabelImage,
    target: LabelImage,
    num_classes: int,
    things: Sequence[int] | None = None,
    target_instances: LabelImage | None = None,
    prediction_instances: LabelImage | None = None,
) -> dict[str, list[int] | list[float] | list[list[int]]]:
    """What PQ and AP need to know of one picture; the counts of pictures add up.

    Arguments and errors are those of ``match_pictures``; the rules stand at the top of this file.

    Returns:
        Lists with one value per class: ``tp``, ``fp``, ``fn`` and ``iou_sum`` over the matches. A class
        that has no objects (``things``) has zeros. ``tp_above`` has per class the matches above each of
        ``object_precision.THRESHOLDS``.

    Example:
        >>> target, prediction = np.zeros((2, 6, 6), dtype=np.uint8)
        >>> target[0:2, 0:3], target[4:6, 4:6], prediction[0:2, 0:2] = 1, 1, 1
        >>> counts = panoptic_counts(prediction, target, num_classes=2)
        >>> counts["tp"], counts["fp"], counts["fn"], round(counts["iou_sum"][1], 4)
        ([0, 1], [0, 0], [0, 1], 0.6667)
    """
    matching = match_pictures(prediction, target, num_classes, things, target_instances, prediction_instances)
    hits = matching.target_match > 0
    return {
        "tp": count_classes(matching.target, hits, num_classes),
        "fp": count_classes(matching.prediction, matching.false_positive, num_classes),
        "fn": count_classes(matching.target, matching.false_negative, num_classes),
        "iou_sum": np.bincount(
            matching.target.classes[hits], weights=matching.target_iou[hits], minlength=num_classes
        ).tolist(),
        "tp_above": hits_above(matching.target.classes[1:], matching.target_iou[1:], num_classes),
    }


def pool_panoptic(rows: Iterable[Mapping[str, Sequence[Any]]]) -> dict[str, Any]:
    """PQ, SQ and RQ of a data set from the rows of its pictures.

    Args:
        rows: results of ``panoptic_counts``, or the same read from JSON.

    Returns:
        The sums ``tp``, ``fp``, ``fn``, ``iou_sum`` and the lists ``pq``, ``sq``, ``rq`` with one value per
        class; ``pq`` and ``rq`` are NaN for a class without any segment, ``sq`` without any match.
        ``mean_pq`` is the macro mean over the ``classes_scored``.

    Raises:
        ValueError: there is no row.

    Example:
        >>> pooled = pool_panoptic([{"tp": [0, 2], "fp": [0, 1], "fn": [0, 1], "iou_sum": [0.0, 1.5]}])
        >>> pooled["pq"], pooled["sq"], pooled["mean_pq"]
        ([nan, 0.5], [nan, 0.75], 0.5)
    """
    gathered = list(rows)
    if not gathered:
        raise ValueError(
            "`rows` should hold at least one picture. Found none. Count some with `panoptic_counts` first."
        )
    sums = {name: np.sum([row[name] for row in gathered], axis=0) for name in ("tp", "fp", "fn", "iou_sum")}
    weight = sums["tp"] + sums["fp"] / 2 + sums["fn"] / 2
    with np.errstate(invalid="ignore"):
        pq, sq, rq = sums["iou_sum"] / weight, sums["iou_sum"] / sums["tp"], sums["tp"] / weight
    scored = weight > 0
    return {
        **{name: values.tolist() for name, values in sums.items()},
        "pq": pq.tolist(),
        "sq": sq.tolist(),
        "rq": rq.tolist(),
        "mean_pq": float(pq[scored].mean()) if scored.any() else math.nan,
        "classes_scored": int(scored.sum()),
    }


def _sums(ids: Integers, pixels: Integers, number: int) -> Integers:
    return np.bincount(ids, weights=pixels, minlength=number).astype(np.int64)
