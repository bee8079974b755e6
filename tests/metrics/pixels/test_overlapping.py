"""Scores of overlapping channels against scikit-learn on random masks."""

import numpy as np
import pytest
import sklearn.metrics
import torch
from torch import Tensor
from torchmetrics import SumMetric

from hsl.errors import ConfigError
from hsl.heads import Head, Problem
from hsl.inference.channels import channel_codes
from hsl.metrics.pixels.formulas import pixel_scores
from hsl.metrics.pixels.overlapping import pool_channels
from hsl.metrics.pixels.pixelwise import Pixelwise
from hsl.tasks.scoring import Scoring

CHANNELS = ("leaf", "symptom", "margin", "hole", "vein")
COUNTS = dict.fromkeys(CHANNELS, torch.ones(2))
HEADS = *(Head(name, "dense", ("absent", name)) for name in CHANNELS), Head("all", "dense", ("absent", *CHANNELS), True)


def make(seed: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Logits of five channels, what they show ``bool (5, 3, H, W)``, often several at once, and where it is known."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(5, 3, 20, 30, generator=generator) < torch.tensor([0.9, 0.4, 0.3, 0.02, 0.0]).view(5, 1, 1, 1)
    valid = torch.rand(3, 20, 30, generator=generator) < 0.8
    logits = torch.randn(5, 3, 2, 20, 30, generator=generator)
    logits[:, :, 1] += 1.5 * truth - 0.75
    return dict(zip(CHANNELS, logits, strict=True)), truth, valid


def masks_of(truth: Tensor, valid: Tensor) -> dict[str, Tensor]:
    return {channel: plane.long().masked_fill(~valid, 255) for channel, plane in zip(CHANNELS, truth, strict=True)}


def test_scores_of_each_channel_and_of_all_equal_scikit_learn() -> None:
    outputs, truth, valid = make(0)
    assert (truth.sum(0) > 1).float().mean() > 0.3
    metrics = [Pixelwise(2) for _ in CHANNELS]
    for metric, (channel, mask) in zip(metrics, masks_of(truth, valid).items(), strict=True):
        metric.update(outputs[channel], mask)
    pooled = pool_channels([metric.states() for metric in metrics])
    codes, _ = channel_codes(outputs, CHANNELS)
    true = truth[:, valid].numpy().T
    predicted = np.stack([(codes[valid].numpy() >> k & 1) > 0 for k in range(5)], axis=1)
    confusion = pooled["matrices"].sum(0)
    hits = confusion.diagonal()
    shown = {"average": None, "zero_division": 0}
    peers = {
        "iou": sklearn.metrics.jaccard_score(true, predicted, **shown),
        "precision": sklearn.metrics.precision_score(true, predicted, **shown),
        "recall": sklearn.metrics.recall_score(true, predicted, **shown),
        "dice": sklearn.metrics.f1_score(true, predicted, **shown),
    }
    rows, columns = confusion.sum(1), confusion.sum(0)
    found = {"iou": hits / (rows + columns - hits), "precision": hits / columns, "recall": hits / np.maximum(rows, 1),
             "dice": 2 * hits / (rows + columns)}  # fmt: skip
    for name, values in peers.items():
        np.testing.assert_allclose(found[name][1:], values)
    scores = pixel_scores(pooled)
    assert scores["foreground_iou"] == pytest.approx(peers["iou"].mean())
    assert scores["pixel_accuracy"] == pytest.approx(1 - sklearn.metrics.hamming_loss(true, predicted))
    assert scores["error_classification_interior"] == scores["error_classification_boundary"] == 0
    probabilities = np.stack([outputs[c].softmax(1)[:, 1][valid].numpy() for c in CHANNELS], axis=1).ravel()
    assert scores["nll"] == pytest.approx(sklearn.metrics.log_loss(true.ravel(), probabilities), rel=1e-5)
    assert scores["brier"] == pytest.approx(2 * sklearn.metrics.brier_score_loss(true.ravel(), probabilities), rel=1e-5)


def test_a_validation_logs_each_channel_and_the_mean_of_all() -> None:
    outputs, truth, valid = make(1)
    scoring = Scoring({"pixelwise": Pixelwise}, Problem(HEADS, COUNTS, COUNTS))
    batch = {"id": ["a", "b", "c"], "image": torch.zeros(3, 3, 20, 30), "size": torch.tensor([[20, 30]] * 3)}
    batch["masks"] = masks_of(truth, valid)
    for rows in (slice(0, 1), slice(1, 3)):
        part = {"id": batch["id"][rows], "image": batch["image"][rows], "size": batch["size"][rows]}
        part["masks"] = {name: mask[rows] for name, mask in batch["masks"].items()}
        scoring.update({name: logits[rows] for name, logits in outputs.items()}, part)
    logged = scoring.collect(CHANNELS[:2])
    true = truth[:, valid].numpy().T
    predicted = np.stack([outputs[c].argmax(1)[valid].numpy() for c in CHANNELS], axis=1) > 0
    ious = sklearn.metrics.jaccard_score(true, predicted, average=None, zero_division=0)
    assert logged["val/foreground_iou"].item() == pytest.approx(ious.mean())
    for k, channel in enumerate(CHANNELS):
        assert logged[f"val/foreground_iou/{channel}"].item() == pytest.approx(ious[k])
    two = [logged[f"val/miou/{channel}"].item() for channel in CHANNELS[:2]]
    assert logged["val/h_mean"].item() == pytest.approx(2 / sum(1 / value for value in two))
    scoring.update(outputs, batch)
    assert scoring.collect(CHANNELS)["val/foreground_iou"].item() == pytest.approx(ious.mean())  # it began anew


def test_other_metrics_than_those_of_pixels_are_refused() -> None:
    metrics = {"pixelwise": Pixelwise, "other": lambda num_classes: SumMetric()}
    with pytest.raises(ConfigError, match=r"Found \['other'\]. Leave it away"):
        Scoring(metrics, Problem(HEADS, COUNTS, COUNTS))


def test_a_pixel_keeps_what_two_channels_show_in_codes() -> None:
    outputs, _, _ = make(2)
    codes, confidence = channel_codes(outputs, CHANNELS)
    for k, channel in enumerate(CHANNELS):
        assert torch.equal(codes >> k & 1, outputs[channel].argmax(1).to(torch.uint8))
    top = torch.stack([outputs[channel].softmax(1).amax(1) for channel in CHANNELS])
    torch.testing.assert_close(confidence, top.mean(0))
