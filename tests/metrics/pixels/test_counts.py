import numpy as np
import pytest
import sklearn.metrics
import torch
from sklearn.metrics import jaccard_score
from torch import Tensor

from hsl.metrics.pixels.counts import (
    checked_classes,
    confusion_matrix,
    flag_counts,
    pair_counts,
    read_target,
)
from hsl.metrics.pixels.pixel_counts import METRICS, PixelCounts
from hsl.metrics.pixels.pixelwise import Pixelwise

NAMES = ("matrices", "boundaries", "pixels", "confidence", "nll", "brier")


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


def test_what_is_predicted_on_ignored_pixels_changes_nothing() -> None:
    prediction, target = make(5, 4)
    other = torch.where(target == 255, (prediction + 1) % 4, prediction)
    assert torch.equal(confusion_matrix(other, target, 4), confusion_matrix(prediction, target, 4))


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


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, 24, 20, generator=generator)
    target = torch.randint(0, 3, (5, 6, 5), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    target[0, :3] = 255
    return logits, target


@pytest.fixture(scope="module")
def counts(batch):
    rows = []
    for logits, target in zip(*batch, strict=True):
        metric = Pixelwise(num_classes=3)
        metric.update(logits[None], target[None])
        rows.append([getattr(metric, name).numpy() for name in NAMES])
    return PixelCounts(*[np.stack(arrays) for arrays in zip(*rows, strict=True)])


def test_the_sum_over_pictures_gives_the_scores_of_one_pass_over_all(batch, counts):
    metric = Pixelwise(num_classes=3)
    metric.update(*batch)
    expected = {name: value.item() for name, value in metric.compute().items()}
    assert counts.total.scores() == pytest.approx(expected)
    assert set(METRICS) <= expected.keys()
    assert len(expected) == len(METRICS) + 6


def test_scores_per_picture_equal_scikit_learn_and_the_picture_alone(batch, counts):
    for i, (logits, target) in enumerate(zip(*batch, strict=True)):
        valid = target != 255
        expected = jaccard_score(target[valid], logits.argmax(0)[valid], average="macro")
        assert counts.score("miou")[i] == pytest.approx(expected)
        for name in METRICS:
            assert counts.score(name)[i] == pytest.approx(counts[i].scores()[name])
        for name, values in counts.per_class().items():
            np.testing.assert_allclose(values[i], counts[i].per_class()[name])


@pytest.mark.parametrize("name", METRICS)
def test_weights_count_pictures_several_times(counts, name):
    weights = np.array([[1.0, 0.0, 2.0, 0.0, 1.0], [0.0, 0.0, 0.0, 3.0, 0.0]])
    first = counts[0] + counts[2] * 2 + counts[4]
    np.testing.assert_allclose(counts.score(name, weights), [first.scores()[name], counts[3].scores()[name]])


def test_nothing_valid_is_no_score():
    empty = PixelCounts(*(np.zeros(s) for s in [(2, 3, 3), (7, 3), (2, 15), (15,), (), ()]))
    assert all(np.isnan(value) for value in empty.scores().values())
