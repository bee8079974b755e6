import math

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hsl.metrics.pixels.counts import (
    checked_classes,
    confusion_matrix,
    dice_empty_one,
    flag_counts,
    pair_counts,
    read_target,
    scores,
)


def make(
    seed: int, num_classes: int, shape: tuple[int, int, int] = (3, 5, 7), ignored: float = 0.2
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randint(0, num_classes, shape, generator=generator)
    target = torch.randint(0, num_classes, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < ignored] = 255
    return prediction, target


def brute_force(prediction: Tensor, target: Tensor, num_classes: int) -> list[list[int]]:
    matrix = [[0] * num_classes for _ in range(num_classes)]
    for p, t in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
        if t != 255:
            matrix[t][p] += 1
    return matrix


@pytest.mark.parametrize("num_classes", [1, 2, 6, 40, 255])
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_confusion_equals_a_loop_and_scikit_learn(num_classes: int, ignored: float) -> None:
    prediction, target = make(num_classes, num_classes, ignored=ignored)
    matrix = confusion_matrix(prediction, target, num_classes)
    assert matrix.dtype == torch.int64
    assert matrix.tolist() == brute_force(prediction, target, num_classes)
    valid = target != 255
    if num_classes > 1:  # scikit-learn warns of a single class
        peer = sklearn.metrics.confusion_matrix(target[valid], prediction[valid], labels=range(num_classes))
        assert np.array_equal(matrix.numpy(), peer)


@pytest.mark.parametrize("num_classes", [2, 6, 40])
def test_the_frequency_weighted_iou_equals_a_loop_and_scikit_learn(num_classes: int) -> None:
    prediction, target = make(num_classes, num_classes)
    target[target == 1] = 0  # a class that is predicted, yet never true
    expected = 0.0
    for label in target[target != 255].tolist():  # the mean over the valid pixels of the IoU of their class
        hits = int(((prediction == label) & (target == label)).sum())
        union = int((((prediction == label) | (target == label)) & (target != 255)).sum())
        expected += hits / union / int((target != 255).sum())
    found = scores(confusion_matrix(prediction, target, num_classes))["frequency_weighted_iou"].item()
    valid = target != 255
    peer = sklearn.metrics.jaccard_score(target[valid], prediction[valid], average="weighted")
    assert found == pytest.approx(expected) == pytest.approx(peer)


def test_the_frequency_weighted_iou_where_classes_or_all_pixels_are_absent() -> None:
    absent = torch.tensor([[6, 2, 0], [0, 4, 0], [0, 0, 0]])
    assert scores(absent)["frequency_weighted_iou"].item() == pytest.approx((8 * 6 / 8 + 4 * 4 / 6) / 12)
    assert math.isnan(scores(torch.zeros(3, 3, dtype=torch.int64))["frequency_weighted_iou"])


def test_per_image_confusion() -> None:
    prediction, target = make(0, 4)
    target[1] = 255
    matrices = confusion_matrix(prediction, target, 4, per_image=True)
    assert matrices.tolist() == [brute_force(p, t, 4) for p, t in zip(prediction, target, strict=True)]
    assert torch.equal(matrices.sum(0), confusion_matrix(prediction, target, 4))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_other_integer_types(dtype: torch.dtype) -> None:
    prediction, target = make(1, 6)
    expected = confusion_matrix(prediction, target, 6)
    assert torch.equal(confusion_matrix(prediction.to(dtype), target.to(dtype), 6), expected)


def test_arguments_are_left_as_they_are() -> None:
    prediction, target = make(2, 3)
    copies = prediction.clone(), target.clone()
    confusion_matrix(prediction, target, 3, per_image=True)
    assert torch.equal(prediction, copies[0])
    assert torch.equal(target, copies[1])


def test_empty() -> None:
    nothing = torch.zeros(0, 4, 4, dtype=torch.int64)
    assert confusion_matrix(nothing, nothing, 3).sum() == 0
    assert confusion_matrix(nothing, nothing, 3, per_image=True).shape == (0, 3, 3)


@pytest.mark.parametrize("value", [3, 16, 254, 256, 300, -1, -7])
def test_a_target_outside_the_classes_is_named(value: int) -> None:
    prediction, target = make(3, 3, ignored=0.1)
    target[1, 2, 3] = value
    with pytest.raises(ValueError, match=rf"in \[0, 3\) or 255.*Found `target = {value}` and 1 pixels"):
        confusion_matrix(prediction, target, 3)
    labels = read_target(target, 3)
    assert (int(labels.strays), int(labels.largest)) == (1, value)
    target[1, 2, 3] = 255
    assert torch.equal(pair_counts(prediction, labels.classes, 3)[0], confusion_matrix(prediction, target, 3))


def test_flag_counts_equal_a_selection() -> None:
    generator = torch.Generator().manual_seed(4)
    _, target = make(4, 5)
    flags = [torch.rand(target.shape, generator=generator) < 0.3 for _ in range(3)]
    counts = flag_counts(flags, checked_classes(target, 5), 5)
    for flag, row in zip(flags, counts, strict=True):
        assert row.tolist() == [int((target[flag] == index).sum()) for index in range(5)]


@pytest.mark.parametrize(
    ("prediction", "target"),
    [
        (torch.zeros(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64)),
        (torch.zeros(1, 2, 2, dtype=torch.int64), torch.zeros(1, 2, 2)),
        (torch.zeros(1, 2, 3, dtype=torch.int64), torch.zeros(1, 2, 2, dtype=torch.int64)),
    ],
)
def test_unfit_arguments(prediction: Tensor, target: Tensor) -> None:
    with pytest.raises(ValueError, match="integers"):
        confusion_matrix(prediction, target, 2)


@pytest.mark.parametrize("num_classes", [0, 256])
def test_number_of_classes(num_classes: int) -> None:
    zeros = torch.zeros(1, 1, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match="num_classes"):
        confusion_matrix(zeros, zeros, num_classes)


def test_scores_by_hand() -> None:
    values = scores(torch.tensor([[5, 1, 0], [2, 2, 0], [0, 0, 0]]))
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


def test_a_class_in_one_of_the_two_scores_zero() -> None:
    values = scores(torch.tensor([[4, 0, 3], [1, 0, 0], [0, 0, 0]]))  # class 1 never predicted, 2 never true
    for name in ("iou", "dice", "precision", "recall", "f1"):
        assert values[name][1:].tolist() == [0, 0]
    assert values["classes_scored"].item() == 3
    assert values["miou"].item() == pytest.approx(4 / 8 / 3)


def test_nothing_valid_is_nan() -> None:
    values = scores(torch.zeros(4, 4, dtype=torch.int64))
    assert values["classes_scored"].item() == 0
    for name in ("miou", "foreground_iou", "micro_iou", "mean_dice", "pixel_accuracy"):
        assert math.isnan(values[name].item())


def test_one_class() -> None:
    assert scores(torch.tensor([[9]]))["miou"].item() == 1


def test_leading_dimensions() -> None:
    matrices = torch.stack(
        [torch.tensor([[3, 1], [0, 4]]), torch.tensor([[0, 0], [0, 0]]), torch.tensor([[1, 0], [0, 0]])]
    )
    together = scores(matrices)
    for index, matrix in enumerate(matrices):
        for name, value in scores(matrix).items():
            assert torch.equal(torch.nan_to_num(together[name][index], -1), torch.nan_to_num(value, -1))


def test_scores_equal_scikit_learn() -> None:
    prediction, target = make(7, 5)
    values = scores(confusion_matrix(prediction, target, 5))
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
    prediction, target = make(seed, num_classes)
    matrix = confusion_matrix(prediction, target, num_classes)
    values = scores(matrix)
    # Symmetric in truth and prediction.
    mirrored = scores(matrix.T)
    torch.testing.assert_close(values["iou"], mirrored["iou"], equal_nan=True)
    torch.testing.assert_close(values["precision"], mirrored["recall"], equal_nan=True)
    # Dice and IoU determine each other.
    torch.testing.assert_close(values["dice"], 2 * values["iou"] / (1 + values["iou"]), equal_nan=True)
    # Renaming the classes and reordering the pictures changes nothing.
    order = torch.randperm(num_classes, generator=torch.Generator().manual_seed(seed))
    table = torch.full((256,), 255)
    table[:num_classes] = order
    renamed = confusion_matrix(table[prediction].flip(0), table[target].flip(0), num_classes)
    torch.testing.assert_close(scores(renamed)["miou"], values["miou"])
    # What is predicted on ignored pixels changes nothing; identical masks give 1.
    other = torch.where(target == 255, (prediction + 1) % num_classes, prediction)
    assert torch.equal(confusion_matrix(other, target, num_classes), matrix)
    ideal = torch.where(target == 255, 0, target)
    assert scores(confusion_matrix(ideal, target, num_classes))["miou"].item() == 1


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("num_classes", [2, 40, 255])
def test_accelerator_equals_cpu_without_a_synchronisation(num_classes: int, per_image: bool) -> None:
    prediction, target = make(9, num_classes, (3, 200, 300))
    expected = confusion_matrix(prediction, target, num_classes, per_image)
    on_device = prediction.cuda(), target.cuda()
    group = torch.arange(3).cuda().view(-1, 1, 1) if per_image else None
    torch.cuda.set_sync_debug_mode("error")
    torch.use_deterministic_algorithms(True)
    try:
        labels = read_target(on_device[1], num_classes)
        counts = pair_counts(on_device[0], labels.classes, num_classes, group, 3 if per_image else 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.use_deterministic_algorithms(False)
    assert torch.equal((counts if per_image else counts[0]).cpu(), expected)
    assert int(labels.strays) == 0


def test_dice_with_empty_as_one_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randint(0, 3, (7, 4, 4), generator=generator)
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
