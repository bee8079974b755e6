"""Every pixel score of a validation in one update, the calibration of the softmax with them: sums made in one pass."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from hsl.batch import IGNORE_INDEX
from hsl.config.ranges import PositiveFloat, PositiveInt
from hsl.metrics.finite import broken_images, check_count, check_on_host
from hsl.metrics.pixels.boundary import (
    boundary_counts,
    boundary_maps,
    sizes_of,
)
from hsl.metrics.pixels.contours import WIDTH_RATIO, boundary_width
from hsl.metrics.pixels.counts import NO_STRAY, check_strays, count, pair_counts, read_target
from hsl.metrics.pixels.formulas import BOUNDARY_COUNTS, NUM_BINS, STATES, States, pixel_scores


class CalibrationCounts(NamedTuple):
    """Sums over valid pixels, which add up over batches and devices.

    ``pixels`` is ``int64 (2, M)``: wrong and right pixels per bin of the top probability; ``confidence`` is
    ``float64 (M,)``: the sum of their top probabilities; ``nll`` and ``brier`` are ``float64`` scalars.
    """

    pixels: Tensor
    confidence: Tensor
    nll: Tensor
    brier: Tensor


def calibrate(
    logits: Tensor, classes: Tensor, num_bins: int = NUM_BINS, prediction: Tensor | None = None
) -> tuple[Tensor, CalibrationCounts]:
    """Prediction and calibration sums in one pass, in pieces: little memory is needed beside the logits.

    A pixel with top probability p falls into bin m of M when ``(m - 1) / M < p <= m / M``.

    Args:
        logits: ``(B, C, H, W)``, C at most 255.
        classes: ``uint8 (B, H, W)``: see ``counts.Labels``.
        num_bins: M; 15 in Guo et al. 2017.
        prediction: integers ``(B, H, W)``, where the predicted class is not the most probable one; its probability then
            takes the place of the top one.

    Returns:
        Predicted class ``uint8 (B, H, W)`` (the first of equals), and the sums.

    Raises:
        ValueError: the shapes do not fit.
        NonFiniteLogitsError: a logit is NaN or infinite; not where they lie on a GPU.
    """
    if logits.ndim != 4 or logits.shape[:1] + logits.shape[2:] != classes.shape:
        raise ValueError(
            "`logits` should be (B, C, H, W) and `target` (B, H, W). Found "
            f"{tuple(logits.shape)} and {tuple(classes.shape)}."
        )
    check_on_host(logits)
    given = prediction is not None
    prediction = torch.empty_like(classes) if prediction is None else prediction.to(torch.uint8).contiguous()
    pixels = torch.zeros(2 * (num_bins + 1), dtype=torch.int64, device=logits.device)
    confidence = torch.zeros(num_bins, dtype=torch.float64, device=logits.device)
    sums = torch.zeros(2, dtype=torch.float64, device=logits.device)
    for piece, truth, predicted in _pieces(logits.detach(), classes, prediction):
        top, nll, brier = _softmax_statistics(piece, truth, predicted, given)
        valid = truth != IGNORE_INDEX
        cell = (top * num_bins).ceil_().int().sub_(1).clamp_(0, num_bins - 1).masked_fill_(~valid, num_bins)
        pixels += count(2 * cell + (predicted == truth), 2 * (num_bins + 1))
        confidence += _sum_per_bin(cell, top, num_bins)
        sums += (torch.stack([nll, brier]) * valid).sum(dim=1, dtype=torch.float64)
    table = pixels.view(num_bins + 1, 2)[:num_bins].T.contiguous()
    return prediction, CalibrationCounts(table, confidence, sums[0], sums[1])


def _pieces(logits: Tensor, classes: Tensor, prediction: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Views ``(C, n)``, ``(n,)``, ``(n,)`` of as many pixels as the cache holds, or of an eighth on a GPU."""
    num_classes = logits.shape[1]
    elements = max(logits.numel() // 8, 1) if logits.is_cuda else 2**19
    size = max(elements // num_classes, 4096)
    for picture, truth, predicted in zip(logits.flatten(2), classes.flatten(1), prediction.flatten(1), strict=True):
        for start in range(0, len(truth), size):
            part = slice(start, start + size)
            yield picture[:, part], truth[part], predicted[part]


def _softmax_statistics(logits: Tensor, truth: Tensor, predicted: Tensor, given: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Probability of the prediction, ``-log p_t`` and Brier score of each pixel.

    ``predicted`` is written into, unless it is `given`.
    """
    logits = logits.float()
    index = truth.long().masked_fill_(truth == IGNORE_INDEX, 0).unsqueeze(0)
    best = logits.amax(0) if given else _argmax_into(predicted, logits)
    exponentials = (logits - best).exp_()
    total = exponentials.sum(0)
    of_target = exponentials.gather(0, index).squeeze(0)
    top = exponentials.gather(0, predicted.long().unsqueeze(0)).squeeze(0) / total if given else total.reciprocal()
    nll = total.log() + best - logits.gather(0, index).squeeze(0)
    squares = exponentials.square_().sum(0)
    brier = squares / total**2 - 2 * of_target / total + 1
    return top, nll, brier


def _argmax_into(predicted: Tensor, logits: Tensor) -> Tensor:
    """Largest logit of each pixel; the first class that has it goes into ``predicted``."""
    if logits.is_cuda:
        best, index = logits.max(dim=0)
        predicted.copy_(index)
        return best
    # On a CPU, three passes of vectors are several times faster than one that tracks the index.
    best = logits.amax(0)
    last = len(logits) - 1
    backwards = torch.arange(last, -1, -1, dtype=torch.uint8).unsqueeze(1)
    predicted.copy_(((logits == best) * backwards).amax(0).neg_().add_(last))
    return best


def _sum_per_bin(cell: Tensor, values: Tensor, num_bins: int) -> Tensor:
    if cell.is_cuda:
        # bincount with weights would depend on the order of the threads.
        return torch.stack([(values * (cell == index)).sum(dtype=torch.float64) for index in range(num_bins)])
    return torch.bincount(cell, weights=values.double(), minlength=num_bins + 1)[:num_bins]


class Pixelwise(Metric):
    """Confusion, error breakdown, boundary and calibration scores, pooled over the data set and all devices.

    On an accelerator ``update`` does not wait for the device; a target outside the classes, or a logit that is
    not finite, is then reported by ``compute`` and ``states``. Memory beyond the logits is a fraction of theirs.

    Args:
        num_classes: C.
        ratio: the distance d of the boundary scores as a share of the picture's diagonal.
        num_bins: bins of the expected calibration error.
    """

    full_state_update = False
    is_differentiable = False

    matrices: Tensor
    boundaries: Tensor
    pixels: Tensor
    confidence: Tensor
    nll: Tensor
    brier: Tensor
    broken: Tensor
    strays: Tensor
    largest: Tensor

    def __init__(self, num_classes: int, ratio: PositiveFloat = WIDTH_RATIO, num_bins: PositiveInt = NUM_BINS) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ratio = ratio
        self.num_bins = num_bins
        states = {
            "matrices": torch.zeros(2, num_classes, num_classes, dtype=torch.int64),
            "boundaries": torch.zeros(len(BOUNDARY_COUNTS), num_classes, dtype=torch.int64),
            "pixels": torch.zeros(2, num_bins, dtype=torch.int64),
            "confidence": torch.zeros(num_bins, dtype=torch.float64),
            "nll": torch.zeros((), dtype=torch.float64),
            "brier": torch.zeros((), dtype=torch.float64),
            "broken": torch.tensor(0),
            "strays": torch.tensor(0),
        }
        for name, zeros in states.items():
            self.add_state(name, zeros, dist_reduce_fx="sum")
        self.add_state("largest", torch.tensor(NO_STRAY), dist_reduce_fx="max")

    def update(
        self, logits: Tensor, target: Tensor, size: Tensor | None = None, prediction: Tensor | None = None
    ) -> None:
        """Add the pictures of a batch.

        Args:
            logits: ``(B, C, H, W)``.
            target: ``int64 (B, H, W)`` in [0, C) or ``IGNORE_INDEX``.
            size: height and width of each picture where the batch is padded. Should lie on the host.
            prediction: integers ``(B, H, W)``, where the predicted class is not that of the largest logit.

        Raises:
            ValueError: shapes do not fit, or (on a CPU) a target is neither a class nor ``IGNORE_INDEX``.
            NonFiniteLogitsError: (on a CPU) a logit is NaN or infinite.
        """
        if logits.shape[1:2] != (self.num_classes,):
            raise ValueError(f"`logits` should be (B, {self.num_classes}, H, W). Found {tuple(logits.shape)}.")
        labels = read_target(target, self.num_classes)
        if not target.is_cuda:
            check_strays(labels.strays, labels.largest, self.num_classes)
        self.strays += labels.strays
        self.largest = torch.maximum(self.largest, labels.largest)
        if logits.is_cuda:
            self.broken += broken_images(logits).sum()
        prediction, calibration = calibrate(logits, labels.classes, self.num_bins, prediction)
        self.pixels += calibration.pixels
        self.confidence += calibration.confidence
        self.nll += calibration.nll
        self.brier += calibration.brier
        for picture, truth, (height, width) in zip(prediction, labels.classes, sizes_of(target, size), strict=True):
            self._add_picture(picture[:height, :width], truth[:height, :width])

    def compute(self) -> dict[str, Tensor]:
        """Scalars of everything seen: the scores of pixels that `hsl.metrics.catalogue` says a validation logs.

        Raises:
            ValueError: a target was neither a class nor ``IGNORE_INDEX``.
            NonFiniteLogitsError: a logit was NaN or infinite.
        """
        check_strays(self.strays, self.largest, self.num_classes)
        scores = pixel_scores(self.states())
        return {name: torch.tensor(score, dtype=torch.float64, device=self.device) for name, score in scores.items()}

    def states(self) -> States:
        """The sums so far, from which `pixel_scores` makes the scores, copied to the host."""
        check_count(self.broken)
        return {name: getattr(self, name).cpu().numpy().copy() for name in STATES}

    def _add_picture(self, prediction: Tensor, classes: Tensor) -> None:
        width = boundary_width(classes.shape[0], classes.shape[1], self.ratio)
        maps = boundary_maps(prediction, classes, self.num_classes, width)
        self.boundaries += boundary_counts(maps, prediction, classes, self.num_classes)
        self.matrices += pair_counts(prediction, classes, self.num_classes, maps.near, 2)
