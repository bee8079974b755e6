"""The objects of a class map: connected components, or given instances."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hsl.metrics.objects.label_images import Bools, ClassMap, Integers, LabelImage

MAX_CLASSES = 256


@dataclass(frozen=True)
class Segments:
    """The objects of one picture.

    ``ids`` is ``int32 (H, W)``: 0 where there is no object, else 1 to n. ``classes[id]`` is the class of
    each; ``classes[0]`` is -1.
    """

    ids: npt.NDArray[np.int32]
    classes: Integers


def components(labels: ClassMap, things: Sequence[int]) -> Segments:
    """The 8-neighbour connected components of each thing class, numbered class by class in reading order.

    Example:
        >>> components(np.array([[1, 0, 2], [0, 1, 2]], dtype=np.uint8), things=[1, 2]).ids.tolist()
        [[1, 0, 2], [0, 1, 2]]
    """
    ids = np.zeros(labels.shape, dtype=np.int32)
    classes = [-1]
    for index in things:
        mask = labels == index
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not rows.size:
            continue
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        inside = mask[box]
        number, found = cv2.connectedComponents(inside.view(np.uint8), connectivity=8, ltype=cv2.CV_32S)
        # In place: on large pictures fresh arrays cost more than the labelling.
        np.add(found, len(classes) - 1, out=found)
        np.copyto(ids[box], found, where=inside)
        classes += [index] * (number - 1)
    return Segments(ids, np.array(classes, dtype=np.int64))


def instances(labels: LabelImage, instance_ids: LabelImage, things: Sequence[int]) -> Segments:
    """The segments of a given instance map: one for each pair of instance id and thing class.

    Args:
        labels: class map ``(H, W)``.
        instance_ids: ``(H, W)``, at least 0; 0 is no object. Ids need not be consecutive.
        things: the classes that have objects.

    Raises:
        ValueError: sizes differ or an id is negative.

    Example:
        >>> instances(np.array([[1, 1, 0, 2]]), np.array([[9, 9, 9, 9]]), things=[1, 2]).ids.tolist()
        [[1, 1, 0, 2]]
    """
    if instance_ids.shape != labels.shape or (instance_ids.size and instance_ids.min() < 0):
        raise ValueError(
            "`instance_ids` should have the shape of the class map and no negative id. Found "
            f"`instance_ids.shape = {instance_ids.shape}` beside {labels.shape}."
        )
    inside = np.isin(labels, list(things)) & (instance_ids > 0)
    keys = instance_ids[inside].astype(np.int64) * MAX_CLASSES + labels[inside]
    found, inverse = np.unique(keys, return_inverse=True)
    ids = np.zeros(labels.shape, dtype=np.int32)
    ids[inside] = inverse + 1
    return Segments(ids, np.concatenate([[-1], found % MAX_CLASSES]).astype(np.int64))


def count_classes(segments: Segments, chosen: Bools, num_classes: int) -> list[int]:
    """How many of the chosen segments each class has."""
    return [int(n) for n in np.bincount(segments.classes[chosen], minlength=num_classes)]
