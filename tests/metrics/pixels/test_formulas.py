import math
import pickle

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import SumMetric

from hsl.errors import ConfigError
from hsl.heads import Head, Problem
from hsl.inference.global_space import channel_codes
from hsl.metrics.pixels.contours import boundary_width
from hsl.metrics.pixels.counts import confusion_matrix
from hsl.metrics.pixels.formulas import (
    calibration_scores,
    confusion_scores,
    dice_empty_one,
    error_breakdown,
    pixel_scores,
    pool_channels,
)
from hsl.metrics.pixels.pixelwise import Pixelwise
from hsl.tasks.scoring import Scoring

CHANNELS = ("leaf", "symptom", "margin", "hole", "vein")
COUNTS = dict.fromkeys(CHANNELS, torch.ones(2))
HEADS = *(Head(name, "dense", ("absent", name)) for name in CHANNELS), Head("all", "dense", ("absent", *CHANNELS), True)


def masks(
    seed: int, num_classes: int, shape: tuple[int, int, int] = (3, 5, 7), ignored: float = 0.2
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randint(0, num_classes, shape, generator=generator)
    target = torch.randint(0, num_classes, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < ignored] = 255
    return prediction, target


def make(seed: int, num_classes: int = 4, shape: tuple[int, int, int] = (2, 16, 21)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, num_classes, (shape[0], 4, 3), generator=generator)
    target = target.repeat_interleave(4, 1).repeat_interleave(7, 2)
    target[torch.rand(shape, generator=generator) < 0.1] = 255
    prediction = torch.randint(0, num_classes, shape, generator=generator)
    return torch.where(
        torch.rand(shape, generator=generator) < 0.5, prediction, target.clamp(max=num_classes - 1)
    ), target


def brute_force(prediction: Tensor, target: Tensor, ratio: float) -> dict[str, float]:
    counts = {
        f"error_{kind}_{place}": 0
        for kind in ("background", "missed", "classification")
        for place in ("interior", "boundary")
    }
    valid = 0
    for p, t in zip(prediction.numpy(), target.numpy(), strict=True):
        width = boundary_width(*t.shape, ratio)
        edge = near_by_definition(t, width)
        for y, x in np.argwhere(t != 255):
            valid += 1
            if p[y, x] == t[y, x]:
                continue
            kind = "background" if t[y, x] == 0 else "missed" if p[y, x] == 0 else "classification"
            counts[f"error_{kind}_{'boundary' if edge[y, x] else 'interior'}"] += 1
    return {name: number / valid for name, number in counts.items()}


def near_by_definition(target: np.ndarray, width: int) -> np.ndarray:
    """Within ``width - 1`` of a pixel that has a valid neighbour of another class."""
    near = np.zeros(target.shape, bool)
    for y, x in np.argwhere(target != 255):
        window = target[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        if ((window != target[y, x]) & (window != 255)).any():
            near[max(y - width + 1, 0) : y + width, max(x - width + 1, 0) : x + width] = True
    return near & (target != 255)


def update(metric: Pixelwise, prediction: Tensor, target: Tensor, size: Tensor | None = None) -> None:
    """With logits whose largest is that of the predicted class."""
    one_hot = torch.nn.functional.one_hot(prediction.clamp(max=metric.num_classes - 1), metric.num_classes)
    metric.update(one_hot.movedim(-1, 1).float(), target, size=size)


def errors(metric: Pixelwise) -> dict[str, Tensor]:
    return {name: value for name, value in metric.compute().items() if name.startswith("error_")}


@pytest.mark.parametrize("ratio", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("num_classes", [1, 2, 4])
def test_equal_to_a_loop(ratio: float, num_classes: int) -> None:
    prediction, target = make(3, num_classes)
    metric = Pixelwise(num_classes, ratio)
    update(metric, prediction, target)
    values = {name: value.item() for name, value in errors(metric).items()}
    assert values == pytest.approx(brute_force(prediction, target, ratio))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_shares_add_up_to_one_minus_accuracy(seed: int) -> None:
    prediction, target = make(seed)
    metric, parts = Pixelwise(4), Pixelwise(4)
    update(metric, prediction, target)
    accuracy = confusion_scores(confusion_matrix(prediction, target, 4).numpy())["pixel_accuracy"].item()
    assert sum(errors(metric).values()).item() == pytest.approx(1 - accuracy)  # type: ignore[union-attr]
    assert torch.equal(metric.matrices.sum(0), confusion_matrix(prediction, target, 4))
    disturbed = torch.where(target == 255, 0, prediction)
    for index in (1, 0):
        update(parts, disturbed[index : index + 1], target[index : index + 1])
    assert torch.equal(parts.matrices, metric.matrices)


def test_by_hand() -> None:
    target = torch.zeros(1, 1, 8, dtype=torch.int64)
    target[..., 4:] = 1
    prediction = torch.tensor([[[1, 0, 0, 1, 0, 1, 1, 2]]])
    metric = Pixelwise(3, ratio=0.01)  # d = 1: columns 3 and 4
    update(metric, prediction, target)
    values = {name: value.item() for name, value in errors(metric).items() if value}
    eighth = 1 / 8
    assert values == {
        "error_background_interior": eighth,
        "error_background_boundary": eighth,
        "error_missed_boundary": eighth,
        "error_classification_interior": eighth,
    }


def test_ideal_and_empty() -> None:
    _, target = make(1)
    metric = Pixelwise(4)
    update(metric, torch.where(target == 255, 0, target), target)
    assert all(value == 0 for value in errors(metric).values())
    metric.reset()
    update(metric, torch.zeros_like(target), torch.full_like(target, 255))
    assert all(math.isnan(value) for value in errors(metric).values())
    assert set(error_breakdown(np.ones((2, 1, 1)))) == set(errors(metric))


def test_padding_is_cut_by_size() -> None:
    prediction, target = make(2, shape=(1, 16, 21))
    padded = [torch.nn.functional.pad(mask, (0, 60, 0, 9), value=v) for mask, v in ((prediction, 0), (target, 255))]
    metric, other = Pixelwise(4, 0.05), Pixelwise(4, 0.05)
    update(metric, prediction, target)
    update(other, padded[0], padded[1], size=torch.tensor([[16, 21]]))
    assert torch.equal(metric.matrices, other.matrices)


def test_pickle_and_errors() -> None:
    metric = Pixelwise(4)
    prediction, target = make(1)
    update(metric, prediction, target)
    assert errors(pickle.loads(pickle.dumps(metric))) == errors(metric)
    target[0, 0, 0] = 4
    with pytest.raises(ValueError, match="`target = 4`"):
        update(metric, prediction, target)


def test_scores_by_hand() -> None:
    values = confusion_scores(np.array([[5, 1, 0], [2, 2, 0], [0, 0, 0]]))
    assert values["iou"][:2].tolist() == pytest.approx([5 / 8, 2 / 5])
    assert values["dice"][:2].tolist() == pytest.approx([10 / 13, 4 / 7])
    assert values["precision"][:2].tolist() == pytest.approx([5 / 7, 2 / 3])
    assert values["recall"][:2].tolist() == pytest.approx([5 / 6, 2 / 4])
    for name in ("iou", "dice", "precision", "recall", "f1"):
        assert math.isnan(values[name][2])
    assert values["miou"].item() == pytest.approx((5 / 8 + 2 / 5) / 2)
    assert values["foreground_iou"].item() == pytest.approx(2 / 5)
    assert values["micro_iou"].item() == pytest.approx(7 / 13)
    assert values["mean_dice"].item() == pytest.approx((10 / 13 + 4 / 7) / 2)
    assert values["pixel_accuracy"].item() == pytest.approx(0.7)
    assert values["classes_scored"].item() == 2
    assert values["pixels"].tolist() == [6, 4, 0]


@pytest.mark.parametrize("num_classes", [2, 6, 40])
def test_the_frequency_weighted_iou_equals_a_loop_and_scikit_learn(num_classes: int) -> None:
    prediction, target = masks(num_classes, num_classes)
    target[target == 1] = 0  # a class that is predicted, yet never true
    expected = 0.0
    for label in target[target != 255].tolist():  # the mean over the valid pixels of the IoU of their class
        hits = int(((prediction == label) & (target == label)).sum())
        union = int((((prediction == label) | (target == label)) & (target != 255)).sum())
        expected += hits / union / int((target != 255).sum())
    found = confusion_scores(confusion_matrix(prediction, target, num_classes).numpy())["frequency_weighted_iou"].item()
    valid = target != 255
    peer = sklearn.metrics.jaccard_score(target[valid], prediction[valid], average="weighted")
    assert found == pytest.approx(expected) == pytest.approx(peer)


def test_the_frequency_weighted_iou_where_classes_or_all_pixels_are_absent() -> None:
    absent = np.array([[6, 2, 0], [0, 4, 0], [0, 0, 0]])
    assert confusion_scores(absent)["frequency_weighted_iou"].item() == pytest.approx((8 * 6 / 8 + 4 * 4 / 6) / 12)
    assert math.isnan(confusion_scores(np.zeros((3, 3), np.int64))["frequency_weighted_iou"])


def test_a_class_in_one_of_the_two_scores_zero() -> None:
    values = confusion_scores(np.array([[4, 0, 3], [1, 0, 0], [0, 0, 0]]))  # class 1 never predicted, 2 never true
    for name in ("iou", "dice", "precision", "recall", "f1"):
        assert values[name][1:].tolist() == [0, 0]
    assert values["classes_scored"].item() == 3
    assert values["miou"].item() == pytest.approx(4 / 8 / 3)


def test_nothing_valid_is_nan() -> None:
    values = confusion_scores(np.zeros((4, 4), np.int64))
    assert values["classes_scored"].item() == 0
    for name in ("miou", "foreground_iou", "micro_iou", "mean_dice", "pixel_accuracy"):
        assert math.isnan(values[name].item())


def test_one_class() -> None:
    assert confusion_scores(np.array([[9]]))["miou"].item() == 1


def test_leading_dimensions() -> None:
    matrices = np.array([[[3, 1], [0, 4]], [[0, 0], [0, 0]], [[1, 0], [0, 0]]])
    together = confusion_scores(matrices)
    for index, matrix in enumerate(matrices):
        for name, value in confusion_scores(matrix).items():
            np.testing.assert_array_equal(together[name][index], value)


def test_scores_equal_scikit_learn() -> None:
    prediction, target = masks(7, 5)
    values = confusion_scores(confusion_matrix(prediction, target, 5).numpy())
    valid = target != 255
    t, p = target[valid].numpy(), prediction[valid].numpy()
    for name, peer in (
        ("iou", sklearn.metrics.jaccard_score),
        ("f1", sklearn.metrics.f1_score),
        ("precision", sklearn.metrics.precision_score),
        ("recall", sklearn.metrics.recall_score),
    ):
        assert values[name].tolist() == pytest.approx(peer(t, p, average=None).tolist())
    assert values["miou"].item() == pytest.approx(sklearn.metrics.jaccard_score(t, p, average="macro"))
    foreground = sklearn.metrics.jaccard_score(t, p, labels=[1, 2, 3, 4], average="macro")
    assert values["foreground_iou"].item() == pytest.approx(foreground)
    assert values["micro_iou"].item() == pytest.approx(sklearn.metrics.jaccard_score(t, p, average="micro"))
    assert values["pixel_accuracy"].item() == pytest.approx(sklearn.metrics.accuracy_score(t, p))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 7))
def test_properties(seed: int, num_classes: int) -> None:
    prediction, target = masks(seed, num_classes)
    matrix = confusion_matrix(prediction, target, num_classes).numpy()
    values = confusion_scores(matrix)
    # Symmetric in truth and prediction.
    mirrored = confusion_scores(matrix.T)
    np.testing.assert_allclose(values["iou"], mirrored["iou"])
    np.testing.assert_allclose(values["precision"], mirrored["recall"])
    # Dice and IoU determine each other.
    np.testing.assert_allclose(values["dice"], 2 * values["iou"] / (1 + values["iou"]))
    # Renaming the classes and reordering the pictures changes nothing.
    order = torch.randperm(num_classes, generator=torch.Generator().manual_seed(seed))
    table = torch.full((256,), 255)
    table[:num_classes] = order
    renamed = confusion_matrix(table[prediction].flip(0), table[target].flip(0), num_classes).numpy()
    np.testing.assert_allclose(confusion_scores(renamed)["miou"], values["miou"])
    # Identical masks give 1.
    ideal = torch.where(target == 255, 0, target)
    assert confusion_scores(confusion_matrix(ideal, target, num_classes).numpy())["miou"].item() == 1


def test_dice_with_empty_as_one_against_a_loop() -> None:
    matrices = np.random.default_rng(0).integers(0, 3, (7, 4, 4))
    matrices[:, 2] = 0  # class 2 is in no truth
    matrices[3:, :, 2] = 0  # and predicted in the first three only
    values, nothing = [], []
    for matrix in matrices.tolist():
        for c in (1, 2, 3):
            truth, predicted = sum(matrix[c]), sum(row[c] for row in matrix)
            values.append(1.0 if truth + predicted == 0 else 2 * matrix[c][c] / (truth + predicted))
            nothing.append(float(truth == 0))
    found = dice_empty_one(matrices)
    assert found == pytest.approx((sum(values) / 21, sum(nothing) / 21))


def test_calibration_by_hand() -> None:
    values = calibration_scores(np.array([[1, 0], [1, 2]]), np.array([0.8, 1.8]), 3.0, 1.0)
    assert values["ece"] == pytest.approx(0.1)
    assert values["nll"] == 0.75
    assert values["brier"] == 0.25


def make_channels(seed: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
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
    outputs, truth, valid = make_channels(0)
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
    outputs, truth, valid = make_channels(1)
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
    outputs, _, _ = make_channels(2)
    codes, confidence = channel_codes(outputs, CHANNELS)
    for k, channel in enumerate(CHANNELS):
        assert torch.equal(codes >> k & 1, outputs[channel].argmax(1).to(torch.uint8))
    top = torch.stack([outputs[channel].softmax(1).amax(1) for channel in CHANNELS])
    torch.testing.assert_close(confidence, top.mean(0))
