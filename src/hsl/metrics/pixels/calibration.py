"""Calibration of the softmax: what expected calibration error, log-likelihood and Brier score are made from."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from hsl.batch import IGNORE_INDEX
from hsl.metrics.finite import check_on_host
from hsl.metrics.pixels.counts import count
from hsl.metrics.pixels.formulas import NUM_BINS


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
    for picture, truth, predicted in zip(
        logits.flatten(2), classes.flatten(1), prediction.view(len(classes), -1), strict=True
    ):
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
