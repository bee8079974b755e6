import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hsl.metrics.pixels.counts import confusion_matrix
from hsl.metrics.pixels.formulas import confusion_scores
from hsl.metrics.pixels.pixelwise import Pixelwise


def make(num_pictures: int = 4, num_classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, num_classes, (num_pictures, 3, 4), generator=generator)
    target = target.repeat_interleave(5, 1).repeat_interleave(6, 2)
    logits = torch.randn(num_pictures, num_classes, 15, 24, generator=generator)
    logits += 1.5 * (target.unsqueeze(1) == torch.arange(num_classes).view(1, -1, 1, 1))
    target[torch.rand(target.shape, generator=generator) < 0.1] = 255
    return logits, target


def test_its_matrix_is_the_confusion_matrix() -> None:
    logits, target = make()
    metric = Pixelwise(3)
    metric.update(logits, target)
    matrix = confusion_matrix(logits.argmax(1), target, 3)
    assert torch.equal(metric.matrices.sum(0), matrix)
    values = metric.compute()
    for name in ("miou", "micro_iou", "mean_dice", "pixel_accuracy"):
        assert values[name].item() == confusion_scores(matrix.numpy())[name], name


def test_counts_survive_more_than_float32_holds() -> None:
    metric = Pixelwise(2)
    logits, target = torch.eye(2)[None, :, None], torch.tensor([[[0, 1]]])
    metric.update(logits, target)
    metric.matrices += 2**40
    metric.update(logits, target)
    assert metric.matrices.sum(0).diagonal().tolist() == [2**41 + 2] * 2


def test_batches_are_the_whole() -> None:
    logits, target = make()
    one, many = Pixelwise(3), Pixelwise(3)
    one.update(logits, target)
    for index in (3, 0, 2, 1):
        many.update(logits[index : index + 1], target[index : index + 1])
    for name, value in one.compute().items():
        assert many.compute()[name].item() == pytest.approx(value.item(), abs=1e-9), name


def test_padded_batch_with_sizes_is_the_pictures_alone() -> None:
    logits, target = make(1)
    padded = (
        torch.nn.functional.pad(logits, (0, 40, 0, 7)),
        torch.nn.functional.pad(target, (0, 40, 0, 7), value=255),
    )
    one, other = Pixelwise(3, ratio=0.05), Pixelwise(3, ratio=0.05)
    one.update(logits, target)
    other.update(*padded, size=torch.tensor([[15, 24]]))
    for name, value in one.compute().items():
        assert other.compute()[name].item() == pytest.approx(value.item(), abs=1e-9), name


def test_all_ignored_is_nan_everywhere() -> None:
    logits, target = make()
    metric = Pixelwise(3)
    metric.update(logits, torch.full_like(target, 255))
    assert all(math.isnan(value) for value in metric.compute().values())


def test_pickle_and_reset() -> None:
    metric = Pixelwise(3)
    metric.update(*make())
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()
    metric.reset()
    assert metric.matrices.sum() == 0
    assert metric.confidence.sum() == 0


def test_strays_are_named_by_update_on_a_cpu_and_by_compute_elsewhere() -> None:
    logits, target = make()
    target[0, 0, 0] = 17
    metric = Pixelwise(3)
    with pytest.raises(ValueError, match="`target = 17`"):
        metric.update(logits, target)
    target[0, 0, 0] = 0
    metric.update(logits, target)
    metric.strays += 1
    metric.largest = torch.tensor(17)
    with pytest.raises(ValueError, match="`target = 17`"):
        metric.compute()


def test_unfit_logits() -> None:
    logits, target = make()
    with pytest.raises(ValueError, match=r"\(B, 4, H, W\)"):
        Pixelwise(4).update(logits, target)
    with pytest.raises(ValueError, match="should be"):
        Pixelwise(3).update(logits[..., 1:], target)


@pytest.mark.slow
def test_two_processes_are_one(two_processes: Callable[[str], list[dict[str, Tensor]]]) -> None:
    logits, target = make()
    metric = Pixelwise(3)
    metric.update(logits, target)
    expected = metric.compute()
    results = two_processes(f"""
from hsl.metrics.pixels.pixelwise import Pixelwise
logits, target = torch.tensor({logits.tolist()}), torch.tensor({target.tolist()})
part = slice(0, 3) if rank == 0 else slice(3, 4)  # unlike shares, as the last batches of a sampler are
metric = Pixelwise(3)
metric.update(logits[part], target[part])
result = metric.compute()
""")
    for result in results:
        assert set(result) == set(expected)
        for name, value in expected.items():
            assert result[name].item() == pytest.approx(value.item(), abs=1e-9), name


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_accelerator_equals_cpu_and_does_not_wait() -> None:
    logits, target = make(4, 40)
    expected, metric = Pixelwise(40), Pixelwise(40).cuda()
    expected.update(logits, target)
    on_device = logits.cuda(), target.cuda()
    metric.update(*on_device)
    metric.reset()
    torch.cuda.set_sync_debug_mode("error")
    try:
        metric.update(*on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for name, value in expected.compute().items():
        assert metric.compute()[name].item() == pytest.approx(value.item(), abs=1e-5), name


def test_a_prediction_that_is_not_the_most_probable_class() -> None:
    """Its map counts, and its own probability is the confidence; one that is changes nothing."""
    logits, target = make()
    plain, same, other = Pixelwise(3), Pixelwise(3), Pixelwise(3)
    plain.update(logits, target)
    same.update(logits, target, prediction=logits.argmax(1))
    given = (logits.argmax(1) + 1) % 3
    other.update(logits, target, prediction=given)
    for name, value in plain.compute().items():
        assert same.compute()[name].item() == value.item(), name
    onehot = Pixelwise(3)
    onehot.update(torch.nn.functional.one_hot(given, 3).movedim(-1, 1).float(), target)
    found, valid = other.compute(), target != 255
    for name in ("miou", "pixel_accuracy", "boundary_iou", "boundary_f1", "error_missed_interior"):
        assert found[name].item() == onehot.compute()[name].item(), name
    for name in ("nll", "brier"):
        assert found[name].item() == plain.compute()[name].item(), name
    confidence = logits.softmax(1).gather(1, given[:, None])[:, 0][valid].double()
    right = (given == target)[valid].double()
    bins = (confidence * 15).ceil().long().clamp(1, 15)
    gaps = [(right[bins == m].sum() - confidence[bins == m].sum()).abs() for m in range(1, 16)]
    assert found["ece"].item() == pytest.approx(float(torch.stack(gaps).sum() / len(right)), abs=1e-6)
