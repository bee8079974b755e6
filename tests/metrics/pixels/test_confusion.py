import math
import pickle

import pytest
import torch
from torch import Tensor

from hsl.metrics.pixels.confusion import Confusion, predicted_classes
from hsl.metrics.pixels.counts import confusion_matrix, scores


def make(num_pictures: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_pictures, 3, 4, 5, generator=generator)
    target = torch.randint(0, 3, (num_pictures, 4, 5), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.2] = 255
    return logits, target


def test_batches_are_the_whole() -> None:
    logits, target = make()
    metric = Confusion(3)
    for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
        metric.update(logits[part], target[part])
    whole = confusion_matrix(logits.argmax(1), target, 3)
    assert torch.equal(metric.matrix, whole)
    expected = scores(whole)
    values = metric.compute()
    assert set(values) == {"miou", "micro_iou", "mean_dice", "pixel_accuracy"}
    for name, value in values.items():
        assert value.ndim == 0
        assert torch.equal(value, expected[name])


def test_pooled_is_not_the_mean_over_pictures() -> None:
    metric = Confusion(2)
    metric.update(torch.tensor([[[0, 0, 0, 0]], [[1, 1, 1, 1]]]), torch.tensor([[[0, 0, 0, 0]], [[1, 255, 255, 255]]]))
    metric.update(torch.tensor([[[0, 0, 0, 1]]]), torch.tensor([[[1, 1, 0, 0]]]))
    # Class 0: TP 5, FN 1, FP 2. Class 1: TP 1, FP 1, FN 2.
    assert metric.compute()["miou"].item() == pytest.approx((5 / 8 + 1 / 4) / 2)


def test_classes_instead_of_logits() -> None:
    logits, target = make()
    metrics = Confusion(3), Confusion(3)
    metrics[0].update(logits, target)
    metrics[1].update(logits.argmax(1), target)
    assert torch.equal(metrics[0].matrix, metrics[1].matrix)


def test_pickle_and_state_dict_keep_the_counts() -> None:
    metric = Confusion(3)
    metric.update(*make())
    copy = pickle.loads(pickle.dumps(metric))
    assert torch.equal(copy.matrix, metric.matrix)
    copy.update(*make(seed=1))
    assert copy.matrix.sum() > metric.matrix.sum()


def test_reset() -> None:
    metric = Confusion(3)
    metric.update(*make())
    metric.reset()
    assert metric.matrix.sum() == 0


def test_all_ignored_is_nan() -> None:
    metric = Confusion(3)
    metric.update(make()[0], torch.full((6, 4, 5), 255))
    assert all(math.isnan(value) for value in metric.compute().values())


def test_a_target_outside_the_classes() -> None:
    logits, target = make()
    target[0, 0, 0] = 7
    with pytest.raises(ValueError, match="`target = 7`"):
        Confusion(3).update(logits, target)


def test_logits_with_another_number_of_classes() -> None:
    with pytest.raises(ValueError, match=r"\(B, 4, H, W\)"):
        Confusion(4).update(*make())


def test_predicted_classes_is_the_largest_logit() -> None:
    logits, _ = make()
    assert torch.equal(predicted_classes(logits, 3), logits.argmax(1))
    assert torch.equal(predicted_classes(logits.bfloat16(), 3), logits.bfloat16().float().max(1).indices)


def test_counts_survive_more_than_float32_holds() -> None:
    metric = Confusion(2)
    metric.update(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 1]]]))
    metric.matrix += 2**40
    metric.update(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 1]]]))
    assert metric.matrix.diagonal().tolist() == [2**40 + 2] * 2
