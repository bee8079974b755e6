"""The pooled confusion matrix as a metric state."""

import torch
from torch import Tensor
from torchmetrics import Metric

from hsl.metrics.finite import broken_images, check_count, check_on_host
from hsl.metrics.pixels.counts import NO_STRAY, check_strays, pair_counts, read_target, scores


class Confusion(Metric):
    """Confusion matrix pooled over the data set, summed over devices.

    On an accelerator ``update`` does not wait for the device; a target outside the classes, or a logit that is
    not finite, is then reported by ``compute``.

    Args:
        num_classes: C.

    Example:
        >>> metric = Confusion(num_classes=2)
        >>> metric.update(torch.tensor([[[[2.0, 0.0]], [[0.0, 1.0]]]]), torch.tensor([[[0, 1]]]))
        >>> metric.compute()["miou"].item()
        1.0
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    matrix: Tensor
    broken: Tensor
    strays: Tensor
    largest: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("matrix", zeros, dist_reduce_fx="sum")
        self.add_state("broken", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("strays", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("largest", torch.tensor(NO_STRAY), dist_reduce_fx="max")

    def update(
        self, logits: Tensor, target: Tensor, size: Tensor | None = None, prediction: Tensor | None = None
    ) -> None:
        """Count the pixels of a batch.

        Args:
            logits: ``(B, C, H, W)``, or predicted classes ``int64 (B, H, W)``.
            target: ``int64 (B, H, W)`` in [0, C) or ``IGNORE_INDEX``.
            size: of each picture in a padded batch; not read, since the padding is ignored.
            prediction: integers ``(B, H, W)``, where the predicted class is not that of the largest logit.

        Raises:
            ValueError: shapes do not fit, or (on a CPU) a target is neither a class nor ``IGNORE_INDEX``.
            NonFiniteLogitsError: (on a CPU) a logit is NaN or infinite.
        """
        del size  # padding is ignored already
        labels = read_target(target, self.num_classes)
        if not target.is_cuda:
            check_strays(labels.strays, labels.largest, self.num_classes)
        if logits.is_floating_point() and logits.is_cuda:
            self.broken += broken_images(logits).sum()
        largest = predicted_classes(logits, self.num_classes)
        prediction = largest if prediction is None else prediction
        self.matrix += pair_counts(prediction, labels.classes, self.num_classes)[0]
        self.strays += labels.strays
        self.largest = torch.maximum(self.largest, labels.largest)

    def compute(self) -> dict[str, Tensor]:
        """``miou``, ``micro_iou``, ``mean_dice``, ``pixel_accuracy`` of everything seen, see
        ``functional.scores``.

        Raises:
            ValueError: a target was neither a class nor ``IGNORE_INDEX``.
            NonFiniteLogitsError: a logit was NaN or infinite.
        """
        check_count(self.broken)
        check_strays(self.strays, self.largest, self.num_classes)
        values = scores(self.matrix)
        return {name: values[name] for name in ("miou", "micro_iou", "mean_dice", "pixel_accuracy")}


def predicted_classes(logits: Tensor, num_classes: int) -> Tensor:
    """Class of each pixel: the largest logit of ``(B, C, H, W)``; integers ``(B, H, W)`` pass through.

    Raises:
        ValueError: the logits do not have ``num_classes`` channels.
        NonFiniteLogitsError: a logit is NaN or infinite; not where they lie on a GPU.
    """
    if not logits.is_floating_point():
        return logits
    if logits.ndim != 4 or logits.shape[1] != num_classes:
        raise ValueError(f"`logits` should be (B, {num_classes}, H, W). Found `logits.shape = {tuple(logits.shape)}`.")
    check_on_host(logits)
    return logits.max(dim=1).indices  # several times faster than argmax on a CPU
