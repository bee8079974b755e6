"""What went wrong with each object: merge, split, swap, missed, spurious.

Every false negative and every false positive of panoptic quality gets exactly one kind, so per class the kinds of the
target side add up to FN and those of the prediction side to FP. "Mostly in" means with more than half of the area,
ignored pixels left out; all rules but swap look at one class.

- **swap**: a target and a predicted segment of another class, both unmatched, with IoU > 0.5: found, but misnamed.
- **merge**: a predicted segment in which two or more target segments mostly lie joins them, if it matches a segment or
  if those targets fill more than half of it. Kind of its unmatched targets, and of itself if unmatched.
- **split**: the mirror image: a target segment in which two or more predicted segments mostly lie, if it matches a
  segment or if those fill more than half of it. Kind of its unmatched pieces, and of itself if unmatched.
- **missed**: any other unmatched target segment: nothing of it was found, or nothing that fits.
- **spurious**: any other unmatched predicted segment that counts as a false positive.

The first rule that applies wins: swap, then merge before split for a target segment and split before merge for a
predicted one. So exchanging prediction and target exchanges merge with split and missed with spurious. The definitions
are ours; they name the cases of Kirillov et al. 2019, "Panoptic Segmentation", that PQ counts alike.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.ndimage import find_objects

from hsl.config.ranges import NonNegativeInt
from hsl.metrics.objects.panoptic import Matching, match_pictures
from hsl.metrics.objects.segments import Bools, Integers, LabelImage, Segments, count_classes

SWAP, MERGE, SPLIT, MISSED, SPURIOUS = "swap", "merge", "split", "missed", "spurious"
Kinds = dict[str, Bools]


def classify(matching: Matching) -> tuple[Kinds, Kinds]:
    """The kind of every unmatched segment.

    Args:
        matching: result of ``panoptic.match`` or ``panoptic.match_pictures``.

    Returns:
        For the false negatives, then for the false positives: a mask over the segment ids per kind. The
        masks of one side are disjoint.
    """
    p, t, pixels = matching.overlaps.T
    p_area, t_area = matching.prediction_area, matching.target_area
    p_free, t_free = matching.prediction_match == 0, matching.target_match == 0
    same = matching.prediction.classes[p] == matching.target.classes[t]

    swapped = ~same & p_free[p] & t_free[t] & (2 * pixels > p_area[p] + t_area[t] - pixels)
    t_inside = same & (2 * pixels > t_area[t])
    p_inside = same & (2 * pixels > p_area[p])
    joins = _holds_several(p, pixels, t_inside, p_area, ~p_free)
    cut = _holds_several(t, pixels, p_inside, t_area, ~t_free)

    lost = _first_of(
        matching.false_negative,
        {
            SWAP: _mark(t[swapped], t_area),
            MERGE: _mark(t[t_inside & joins[p]], t_area),
            SPLIT: cut,
        },
        MISSED,
    )
    surplus = _first_of(
        matching.false_positive,
        {
            SWAP: _mark(p[swapped], p_area),
            SPLIT: _mark(p[p_inside & cut[t]], p_area),
            MERGE: joins,
        },
        SPURIOUS,
    )
    return lost, surplus


def object_failures(
    prediction: LabelImage,
    target: LabelImage,
    num_classes: int,
    things: Sequence[int] | None = None,
    target_instances: LabelImage | None = None,
    prediction_instances: LabelImage | None = None,
    num_boxes: NonNegativeInt = 5,
) -> dict[str, Any]:
    """Count the kinds of failure in one picture and locate the largest of each.

    Arguments and errors are those of ``panoptic.match_pictures``; the kinds are explained at the top of
    this file.

    Args:
        prediction: class map ``(H, W)``.
        target: class map ``(H, W)`` with ``IGNORE_INDEX`` where nothing is known.
        num_classes: number of classes.
        things: the classes that have objects; all but class 0 unless given.
        target_instances: instance ids ``(H, W)`` in place of connected components.
        prediction_instances: the same for the prediction.
        num_boxes: how many objects of each kind and side to locate, the largest first.

    Returns:
        ``false_negatives`` and ``false_positives``: per kind a list with one count per class, counted at
        the class of the target segment and of the predicted segment. ``objects``: the largest ones as
        ``{"kind", "side", "class", "area", "box"}`` with the area in valid pixels and the box as (top,
        left, bottom, right), the last two exclusive.

    Example:
        Two squares that are predicted as one.

        >>> target, prediction = np.zeros((2, 6, 9), dtype=np.uint8)
        >>> target[1:5, 0:4], target[1:5, 5:9], prediction[1:5, 0:9] = 1, 1, 1
        >>> failures = object_failures(prediction, target, num_classes=2, num_boxes=1)
        >>> failures["false_negatives"]["merge"], failures["false_positives"]["merge"]
        ([0, 2], [0, 1])
        >>> failures["objects"][1]["side"], failures["objects"][1]["box"]
        ('prediction', [1, 0, 5, 9])
    """
    matching = match_pictures(prediction, target, num_classes, things, target_instances, prediction_instances)
    lost, surplus = classify(matching)
    return {
        "false_negatives": {kind: count_classes(matching.target, chosen, num_classes) for kind, chosen in lost.items()},
        "false_positives": {
            kind: count_classes(matching.prediction, chosen, num_classes) for kind, chosen in surplus.items()
        },
        "objects": [
            *_largest("target", matching.target, matching.target_area, lost, num_boxes),
            *_largest("prediction", matching.prediction, matching.prediction_area, surplus, num_boxes),
        ],
    }


def _holds_several(holders: Integers, pixels: Integers, inside: Bools, area: Integers, is_matched: Bools) -> Bools:
    """Segments that hold two or more others and match one or are mostly filled by those they hold."""
    number = np.bincount(holders[inside], minlength=len(area))
    filled = np.bincount(holders[inside], weights=pixels[inside], minlength=len(area))
    return (number >= 2) & (is_matched | (2 * filled > area))


def _mark(ids: Integers, area: Integers) -> Bools:
    marked = np.zeros(len(area), dtype=np.bool_)
    marked[ids] = True
    return marked


def _first_of(wrong: Bools, kinds: Kinds, otherwise: str) -> Kinds:
    left = wrong.copy()
    found = {}
    for kind, applies in kinds.items():
        found[kind] = left & applies
        left &= ~applies
    return found | {otherwise: left}


def _largest(side: str, segments: Segments, area: Integers, kinds: Kinds, num_boxes: int) -> list[dict[str, Any]]:
    boxes = find_objects(segments.ids) if segments.ids.size else []
    objects = []
    for kind, chosen in kinds.items():
        ids = np.flatnonzero(chosen)
        for index in ids[np.argsort(-area[ids], kind="stable")][:num_boxes]:
            rows, columns = boxes[index - 1]
            objects.append(
                {
                    "kind": kind,
                    "side": side,
                    "class": int(segments.classes[index]),
                    "area": int(area[index]),
                    "box": [rows.start, columns.start, rows.stop, columns.stop],
                }
            )
    return objects
