"""Where boundaries agree: what boundary IoU and boundary F1 are counted from."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hsl.batch import IGNORE_INDEX
from hsl.metrics.pixels.contours import neighbours
from hsl.metrics.pixels.counts import flag_counts


class BoundaryMaps(NamedTuple):
    """Boolean maps ``(H, W)`` of one picture, all False on ignored pixels.

    ``near``: within d of a contour of the target. ``band_*``: in the inner band of width d of the own class.
    ``contour_*``: on the contour of the own class. ``hit_*``: on it, and within d of the contour of the same
    class in the other mask.
    """

    near: Tensor
    band_true: Tensor
    band_predicted: Tensor
    contour_true: Tensor
    contour_predicted: Tensor
    hit_true: Tensor
    hit_predicted: Tensor


def contour_map(classes: Tensor) -> Tensor:
    """Pixels with a neighbour (of eight) of another class; pixels with ``IGNORE_INDEX`` make no contour.

    Args:
        classes: ``uint8 (H, W)``.

    Returns:
        ``bool (H, W)``.
    """
    valid = classes != IGNORE_INDEX
    result = torch.zeros_like(valid)
    for first, second in neighbours(classes.shape):
        differ = (classes[first] != classes[second]) & valid[first] & valid[second]
        result[first] |= differ
        result[second] |= differ
    return result


def dilate(values: Tensor, radius: int) -> Tensor:
    """Bitwise or over the square window of ``2 radius + 1`` pixels: chessboard distance at most ``radius``.

    Args:
        values: booleans or integers ``(H, W)``; with integers every bit is a mask of its own.
        radius: at least 0.
    """
    for dim in (0, 1):
        # The window doubles until it is wide enough: log2(radius) passes.
        padding = (0, 0, radius, radius) if dim == 0 else (radius, radius)
        length = values.shape[dim]
        values = F.pad(values, padding)
        window = 1
        while window < 2 * radius + 1:
            step = min(window, 2 * radius + 1 - window)
            left = values.shape[dim] - step
            values = values.narrow(dim, 0, left) | values.narrow(dim, step, left)
            window += step
        values = values.narrow(dim, 0, length)
    return values


def boundary_maps(prediction: Tensor, classes: Tensor, num_classes: int, width: int) -> BoundaryMaps:
    """Bands, contours and hits of one picture; distances are chessboard distances.

    The band of a class holds its pixels within d of another class, of an ignored pixel or of the outside of
    the picture, alike in both masks. A contour lies between valid pixels only. What is predicted on ignored
    pixels has no effect.

    Args:
        prediction: ``uint8 (H, W)``.
        classes: ``uint8 (H, W)``: see ``counts.Labels``.
        num_classes: C.
        width: d in pixels, at least 1.

    Raises:
        ValueError: the shapes differ or ``width`` is below 1.
    """
    if prediction.shape != classes.shape or classes.ndim != 2:
        raise ValueError(
            f"`prediction` and `target` should be (H, W). Found {tuple(prediction.shape)} and {tuple(classes.shape)}."
        )
    if width < 1:
        raise ValueError(f"`width` should be at least 1. Found `width = {width}`.")
    valid = classes != IGNORE_INDEX
    prediction = torch.where(valid, prediction, IGNORE_INDEX)
    outside = dilate(F.pad(~valid, (1, 1, 1, 1), value=True), width)[1:-1, 1:-1]
    contour_true, contour_predicted = contour_map(classes), contour_map(prediction)
    near = dilate(contour_true, width - 1) & valid
    return BoundaryMaps(
        near=near,
        band_true=(near | outside) & valid,
        band_predicted=(dilate(contour_predicted, width - 1) | outside) & valid,
        contour_true=contour_true,
        contour_predicted=contour_predicted,
        hit_true=_hits(contour_true, classes, contour_predicted, prediction, num_classes, width),
        hit_predicted=_hits(contour_predicted, prediction, contour_true, classes, num_classes, width),
    )


def boundary_counts(maps: BoundaryMaps, prediction: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """Pixels of each map by class: ``int64 (7, C)``, rows as ``BOUNDARY_COUNTS``."""
    both = maps.band_true & maps.band_predicted & (prediction == classes)
    true = flag_counts([maps.band_true, both, maps.contour_true, maps.hit_true], classes, num_classes)
    flags = [maps.band_predicted, maps.contour_predicted, maps.hit_predicted]
    return torch.cat([true, flag_counts(flags, prediction, num_classes)])


def sizes_of(target: Tensor, size: Tensor | None) -> Sequence[tuple[int, int]]:
    """Height and width of each picture of a batch; those of the target where ``size`` is not given."""
    if size is None:
        return [(target.shape[1], target.shape[2])] * len(target)
    return [(int(height), int(width)) for height, width in size.tolist()]


def _hits(
    contour: Tensor, classes: Tensor, other_contour: Tensor, other: Tensor, num_classes: int, radius: int
) -> Tensor:
    """Contour pixels within ``radius`` of the other mask's contour of the same class.

    Each class is one bit of an integer, so that one dilation serves up to 64 classes.
    """
    result = torch.zeros_like(contour)
    for first in range(0, num_classes, 64):
        classes_left = min(num_classes - first, 64)
        dtype = next(kind for kind in _WORDS if torch.iinfo(kind).bits >= classes_left)
        (bit, inside), (other_bit, other_inside) = (_bits(labels, first, dtype) for labels in (classes, other))
        bits = torch.where(other_contour & other_inside, torch.ones_like(other_bit) << other_bit, 0)
        result |= contour & inside & ((dilate(bits, radius) >> bit) & 1).bool()
    return result


_WORDS = (torch.uint8, torch.int16, torch.int32, torch.int64)


def _bits(classes: Tensor, first: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Place of each class in the word that begins at ``first``, and whether it is in that word."""
    place = classes.int() - first
    return place.clamp(0, torch.iinfo(dtype).bits - 1).to(dtype), (place >= 0) & (place < 64)
