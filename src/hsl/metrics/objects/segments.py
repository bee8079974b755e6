"""The two label images that the metrics of tier 2 compare, checked, and the objects in them: components or instances.

Files of tier 2 (surface, panoptic, clustering, failures) import NumPy, SciPy and OpenCV only: they run in
worker processes that have to start in a fraction of the time that torch needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from hsl.batch import IGNORE_INDEX

LabelImage = npt.NDArray[np.integer[Any]]
ClassMap = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
MAX_CLASSES = 256


def check_same_size(prediction: LabelImage, target: LabelImage) -> None:
    """Compare shape and type of two label images.

    Raises:
        ValueError: they are not two integer images ``(H, W)`` of one size.
    """
    if prediction.ndim != 2 or prediction.shape != target.shape:
        raise ValueError(
            "`prediction` and `target` should be label images (H, W) of one size. Found "
            f"`prediction.shape = {prediction.shape}` and `target.shape = {target.shape}`. "
            "Resize the prediction to the mask and cut the padding of a batch off first."
        )
    for name, image in (("prediction", prediction), ("target", target)):
        if image.dtype.kind not in "iu":
            raise ValueError(
                f"`{name}` should hold integer labels. Found `{name}.dtype = {image.dtype}`. "
                "Take the argmax of the logits first."
            )


def class_maps(prediction: LabelImage, target: LabelImage, num_classes: int) -> tuple[ClassMap, ClassMap]:
    """Both class maps as uint8, with ``IGNORE_INDEX`` in both wherever the target is ignored.

    After this step nothing that was predicted on an ignored pixel can reach a metric.

    Args:
        prediction: ``(H, W)``, values in [0, num_classes) on valid pixels, anything on ignored ones.
        target: ``(H, W)``, values in [0, num_classes) or ``IGNORE_INDEX``.
        num_classes: in [1, 255].

    Raises:
        ValueError: sizes differ, or a label on a valid pixel is no class.

    Example:
        >>> pair = class_maps(np.array([[0, 7]]), np.array([[1, 255]]), num_classes=2)
        >>> [image.tolist() for image in pair]
        [[[0, 255]], [[1, 255]]]
    """
    check_same_size(prediction, target)
    if not 1 <= num_classes <= IGNORE_INDEX:
        raise ValueError(
            f"`num_classes` should be in [1, {IGNORE_INDEX}]. Found `num_classes = {num_classes}`. "
            f"Labels are stored in a byte and {IGNORE_INDEX} means ignored."
        )
    ignored = target == IGNORE_INDEX
    masked = prediction.copy() if prediction.dtype == np.uint8 else prediction.astype(np.int64)
    masked[ignored] = IGNORE_INDEX
    for name, image in (("prediction", masked), ("target", target)):
        fine = (image < num_classes) & (image >= 0) if image.dtype.kind == "i" else image < num_classes
        fine |= ignored
        if not fine.all():
            raise ValueError(
                f"`{name}` should hold classes in [0, {num_classes}) on valid pixels. "
                f"Found {np.unique(image[~fine])[:5].tolist()}. "
                "Check `num_classes` and the mapping of mask values to classes."
            )
    return masked.astype(np.uint8, copy=False), target.astype(np.uint8, copy=False)


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
