"""Counts of pixels, of which `hsl.metrics.pixels.formulas` makes scores. Those with ``IGNORE_INDEX`` are in none."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hsl.batch import IGNORE_INDEX

NO_STRAY = torch.iinfo(torch.int64).min


class Labels(NamedTuple):
    """A target made small: ``classes`` is ``uint8``, and ``IGNORE_INDEX`` where ignored or not a class at all.

    ``strays`` is the number of pixels of the latter kind and ``largest`` the largest of their values, or ``NO_STRAY``.
    """

    classes: Tensor
    strays: Tensor
    largest: Tensor


def read_target(target: Tensor, num_classes: int) -> Labels:
    """Classes of a target, without a synchronisation on an accelerator: strays are counted, not raised.

    Args:
        target: integers of any shape, in [0, C) or ``IGNORE_INDEX``.
        num_classes: C, at most 255.

    Raises:
        ValueError: ``num_classes`` is out of range or the target holds no integers.
    """
    if not 1 <= num_classes <= IGNORE_INDEX:
        raise ValueError(f"`num_classes` should be in [1, {IGNORE_INDEX}]. Found `num_classes = {num_classes}`.")
    if target.is_floating_point():
        raise ValueError(f"`target` should hold integers. Found `target.dtype = {target.dtype}`.")
    outside = (target < 0) | (target >= num_classes)
    stray = outside & (target != IGNORE_INDEX)
    largest = torch.where(stray, target.long(), NO_STRAY)
    classes = target.to(torch.uint8).masked_fill_(outside, IGNORE_INDEX)
    return Labels(classes, stray.sum(), largest.max() if target.numel() else largest.new_tensor(NO_STRAY))


def check_strays(strays: Tensor, largest: Tensor, num_classes: int) -> None:
    """Raise where targets are neither a class nor ``IGNORE_INDEX``. Reads from the device.

    Raises:
        ValueError: names the largest such value and how many pixels have one.
    """
    number = int(strays)
    if number:
        raise ValueError(
            f"`target` should hold classes in [0, {num_classes}) or {IGNORE_INDEX}. Found "
            f"`target = {int(largest)}` and {number} pixels outside in all. Run `hsl audit`."
        )


def checked_classes(target: Tensor, num_classes: int) -> Tensor:
    """``read_target`` with the check; waits for an accelerator.

    Raises:
        ValueError: a target is neither a class nor ``IGNORE_INDEX``.
    """
    labels = read_target(target, num_classes)
    check_strays(labels.strays, labels.largest, num_classes)
    return labels.classes


def pair_counts(
    prediction: Tensor, classes: Tensor, num_classes: int, group: Tensor | None = None, num_groups: int = 1
) -> Tensor:
    """Pixels by group, target and prediction.

    Args:
        prediction: integers in [0, C); any value where the target is ignored, up to 255.
        classes: ``uint8`` of the same shape: see ``Labels``.
        num_classes: C.
        group: integers in [0, G) that broadcast to the shape: picture, or kind of pixel.
        num_groups: G.

    Returns:
        ``int64 (G, C, C)``: rows target, columns prediction.

    Raises:
        ValueError: the shapes differ or the prediction holds no integers.
    """
    if prediction.shape != classes.shape or prediction.is_floating_point():
        raise ValueError(
            "`prediction` and `target` should be integers of one shape. Found "
            f"{prediction.dtype} {tuple(prediction.shape)} and {classes.dtype} {tuple(classes.shape)}."
        )
    # One more row for ignored pixels is cheaper than selecting the valid ones, and one more column takes
    # whatever stands there in the prediction.
    side = num_classes + 1
    cell = classes.clamp(max=num_classes).int().mul_(side).add_(prediction.clamp(max=num_classes))
    if group is not None:
        cell += group.int() * side * side
    counts = count(cell, num_groups * side * side).view(num_groups, side, side)
    return counts[:, :num_classes, :num_classes]


def flag_counts(flags: Sequence[Tensor], classes: Tensor, num_classes: int) -> Tensor:
    """Pixels of each class where a flag is set.

    Args:
        flags: K boolean maps, a handful.
        classes: ``uint8`` of the same shape; ``IGNORE_INDEX`` is not counted.
        num_classes: C.

    Returns:
        ``int64 (K, C)``.
    """
    side = num_classes + 1
    code = torch.zeros_like(classes, dtype=torch.int32)
    for bit, flag in enumerate(flags):
        code |= flag.int() << bit
    counts = count(code.mul_(side).add_(classes.clamp(max=num_classes)), side << len(flags))
    table = counts.view(*[2] * len(flags), side)[..., :num_classes]
    # The first flag is the lowest bit, hence the last of the binary dimensions.
    return torch.stack(
        [table.select(len(flags) - 1 - bit, 1).reshape(-1, num_classes).sum(0) for bit in range(len(flags))]
    )


def count(cell: Tensor, num_cells: int) -> Tensor:
    """Occurrences ``int64 (num_cells,)`` of each integer in [0, num_cells), which all should be."""
    if cell.is_cuda:
        # bincount waits to learn the largest value, histc is told it. Counts of integers are exact.
        return torch.histc(cell.flatten(), bins=num_cells, min=0, max=num_cells).long()
    return torch.bincount(cell.flatten(), minlength=num_cells)


def confusion_matrix(prediction: Tensor, target: Tensor, num_classes: int, per_image: bool = False) -> Tensor:
    """Confusion matrix, rows target, columns prediction, without ignored pixels.

    Args:
        prediction: integers ``(B, ...)`` in [0, C).
        target: integers of the same shape, in [0, C) or ``IGNORE_INDEX``.
        num_classes: C, at most 255.
        per_image: one matrix per picture.

    Returns:
        ``int64 (C, C)``, or ``(B, C, C)`` with ``per_image``.

    Raises:
        ValueError: shapes or dtypes do not fit, or a target is neither a class nor ``IGNORE_INDEX``.

    Example:
        >>> confusion_matrix(torch.tensor([[0, 1, 1, 1]]), torch.tensor([[0, 0, 1, 255]]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    classes = checked_classes(target, num_classes)
    if not per_image:
        return pair_counts(prediction, classes, num_classes)[0]
    picture = torch.arange(len(target), device=target.device).view(-1, *[1] * (target.ndim - 1))
    return pair_counts(prediction, classes, num_classes, picture, len(target))
