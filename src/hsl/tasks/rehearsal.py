"""What a training would come to, found out in a moment: the values a validation logs, and a step of one picture."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hsl.batch import IGNORE_INDEX, UNKNOWN_LABEL, Batch, Outputs
from hsl.metrics.images.imagewise import ImageScores
from hsl.tasks.segmentation import SegmentationTask

SURE = 10.0
"""The logit of what is right; that of all else is its negative."""
SIDE = 8
"""Pixels of the square of a class."""


def logged_values(
    task: SegmentationTask, counts: Mapping[str, Tensor], labels: Mapping[str, Tensor]
) -> dict[str, float]:
    """The names that a validation logs, each with its value for a model that is right everywhere.

    A value that is NaN then is NaN whatever the model says, or at best 0: the part has nothing to score it on. Losses
    are left out where they need targets that only training has.

    Args:
        task: on the host.
        counts: by dense head ``(C,)``: how often the masks of the part show each class.
        labels: by image head, the labels of the pictures of the part, ``(N,)`` or ``(N, K)`` as in ``Batch``.
    """
    batch, outputs = _right_everywhere(task, counts, labels)
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        task.scoring.update(outputs, batch)
        values = task.scoring.collect(task.primary)
        if not task.loss.training_only:
            losses = task.loss(outputs, batch)
            values |= {f"val/loss/{name}": value for name, value in losses.items()}
            values["val/loss"] = torch.stack(list(losses.values())).sum()
    return {name: float(value) for name, value in values.items()}


def single_values_normalised(network: nn.Module, size: tuple[int, int]) -> bool:
    """Whether a training step of one picture leaves a batch normalisation a single value per channel, which it refuses.

    The network is called without its numbers, on torch's ``meta`` device: in about a second, whatever its size. What
    cannot be called so is called as it is.

    Args:
        network: in the mode in which it is trained; left as it is.
        size: height and width of the pictures.
    """
    channels = getattr(getattr(network, "encoder", None), "in_channels", 3)
    tensors: dict[str, Tensor] = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        try:
            try:
                shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
                functional_call(network, shapes, (torch.empty(1, channels, *size, device="meta"),))
            except (RuntimeError, NotImplementedError):
                copies = {name: tensor.clone() for name, tensor in tensors.items()}
                functional_call(network, copies, (torch.randn(1, channels, *size),))
        except ValueError as error:
            if "Expected more than 1" not in str(error):
                raise
            return True
    return False


def _right_everywhere(
    task: SegmentationTask, counts: Mapping[str, Tensor], labels: Mapping[str, Tensor]
) -> tuple[Batch, Outputs]:
    """A batch with every class and label of the part, and the outputs that are right for all of it."""
    images = {head: cast(ImageScores, metric) for head, metric in task.scoring.images.items()}
    known = {head: _distinct(labels[head], metric.several) for head, metric in images.items()}
    number = max([1, *(len(values) for values in known.values())])
    width = SIDE * max([1, *(int((each > 0).sum()) for each in counts.values())])
    masks = {head: _stripes(each, width).expand(number, -1, -1) for head, each in counts.items()}
    for head, table in task.scoring.readings.items():  # what a task reads follows from the masks of the one head
        whole = masks[task.scoring.scored_head]
        masks[head] = table[whole.where(whole != IGNORE_INDEX, 0)].where(whole != IGNORE_INDEX, IGNORE_INDEX)
    targets = {head: values[torch.arange(number) % len(values)] for head, values in known.items()}
    right: dict[str, Tensor] = {}
    for head in task.scoring.dense:
        classes = masks[head].where(masks[head] != IGNORE_INDEX, 0)
        right[head] = nn.functional.one_hot(classes, len(counts[head])).movedim(-1, 1)
    for head, metric in images.items():
        values = targets[head]
        alone = None if metric.several else nn.functional.one_hot(values.clamp(min=0), metric.num_classes)
        right[head] = values.nan_to_num() if alone is None else alone
    batch: Batch = {
        "id": [""] * number,
        "image": torch.zeros(number, 3, SIDE, width),
        "size": torch.tensor([[SIDE, width]] * number),
        "masks": masks,
        "labels": targets,
    }
    return batch, {head: (values * 2.0 - 1) * SURE for head, values in right.items()}


def _distinct(labels: Tensor, several: bool) -> Tensor:
    """Each label once; NaN, not known, is like NaN."""
    if not several:
        return cast(Tensor, torch.unique(labels))
    found: Tensor = torch.unique(labels.nan_to_num(nan=UNKNOWN_LABEL), dim=0)
    return found.masked_fill(found == UNKNOWN_LABEL, torch.nan)


def _stripes(counts: Tensor, width: int) -> Tensor:
    """``int64 (SIDE, width)``: a square of each class that occurs, the rest is ignored."""
    mask = torch.full((SIDE, width), IGNORE_INDEX)
    for i, index in enumerate(counts.nonzero().flatten().tolist()):
        mask[:, i * SIDE : (i + 1) * SIDE] = index
    return mask
