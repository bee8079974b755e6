"""The two label images that the metrics of tier 2 compare, checked and with the ignored pixels taken out.

Files of tier 2 (surface, panoptic, clustering, failures) import NumPy, SciPy and OpenCV only: they run in
worker processes that have to start in a fraction of the time that torch needs.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from hsl.batch import IGNORE_INDEX

LabelImage = npt.NDArray[np.integer[Any]]
ClassMap = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


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
