import math
import pickle
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from hsl.metrics.pixels.counts import confusion_matrix
from hsl.metrics.pixels.formulas import confusion_scores
from hsl.metrics.pixels.pixelwise import Pixelwise, calibrate


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


def make_uncertain(
    seed: int = 0, num_classes: int = 5, shape: tuple[int, int, int] = (3, 6, 7)
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape[0], num_classes, *shape[1:], generator=generator)
    target = torch.randint(0, num_classes, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < 0.2] = 255
    return logits, target


def brute_force(logits: Tensor, target: Tensor, num_bins: int = 15) -> dict[str, float]:
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(num_bins)]
    nll = brier = 0.0
    number = 0
    for row, t in zip(
        logits.movedim(1, -1).reshape(-1, logits.shape[1]).double(), target.flatten().tolist(), strict=True
    ):
        if t == 255:
            continue
        number += 1
        p = row.softmax(0).tolist()
        nll -= math.log(p[t])
        brier += sum((value - (index == t)) ** 2 for index, value in enumerate(p))
        top = max(p)
        bins[math.ceil(top * num_bins) - 1].append((top, p.index(top) == t))
    ece = sum(abs(sum(right for _, right in b) - sum(top for top, _ in b)) for b in bins)
    return {"ece": ece / number, "nll": nll / number, "brier": brier / number}


@pytest.mark.parametrize("num_classes", [2, 5, 30])
def test_equal_to_a_loop_and_to_torchmetrics(num_classes: int) -> None:
    logits, target = make_uncertain(num_classes, num_classes)
    metric = Pixelwise(num_classes)
    metric.update(logits, target)
    values = metric.compute()
    for name, expected in brute_force(logits, target).items():
        assert values[name].item() == pytest.approx(expected, abs=1e-6)
    peer = multiclass_calibration_error(logits, target, num_classes, n_bins=15, norm="l1", ignore_index=255)
    assert values["ece"].item() == pytest.approx(peer.item(), abs=1e-6)
    assert values["nll"].item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits, target, ignore_index=255).item(), abs=1e-6
    )


def test_prediction_is_the_first_of_the_largest() -> None:
    logits, target = make_uncertain()
    prediction, _ = calibrate(logits, target.byte())
    assert torch.equal(prediction.long(), logits.argmax(1))
    assert calibrate(torch.zeros(1, 7, 2, 2), torch.zeros(1, 2, 2, dtype=torch.uint8))[0].sum() == 0


def test_pieces_are_the_whole() -> None:
    logits, target = make_uncertain(1, 200, (2, 61, 83))  # 200 classes: a picture is cut into several pieces
    _, counts = calibrate(logits, target.byte())
    assert counts.pixels.sum() == (target != 255).sum()
    nll = torch.nn.functional.cross_entropy(logits, target, ignore_index=255, reduction="sum").item()
    assert counts.nll.item() == pytest.approx(nll, rel=1e-5)


def test_certain_and_right_is_ideal() -> None:
    _, target = make_uncertain()
    logits = 200.0 * (target.unsqueeze(1) == torch.arange(5).view(1, 5, 1, 1)).float()
    metric = Pixelwise(5)
    metric.update(logits, target)
    values = metric.compute()
    assert all(values[name] == 0 for name in ("ece", "nll", "brier"))


def test_certain_and_wrong() -> None:
    logits = torch.tensor([200.0, 0.0]).view(1, 2, 1, 1)
    metric = Pixelwise(2)
    metric.update(logits, torch.ones(1, 1, 1, dtype=torch.int64))
    values = metric.compute()
    assert (values["ece"].item(), values["nll"].item(), values["brier"].item()) == (1, 200, 2)


def test_all_ignored_is_nan() -> None:
    metric = Pixelwise(5)
    metric.update(make_uncertain()[0], torch.full((3, 6, 7), 255))
    assert all(math.isnan(value) for value in metric.compute().values())


def test_half_precision() -> None:
    logits, target = make_uncertain()
    for one, other in zip(
        calibrate(logits.bfloat16(), target.byte())[1],
        calibrate(logits.bfloat16().float(), target.byte())[1],
        strict=True,
    ):
        assert torch.equal(one, other)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_batches_ignored_pixels_and_order_change_nothing(seed: int) -> None:
    logits, target = make_uncertain(seed)
    whole, parts = Pixelwise(5), Pixelwise(5)
    whole.update(logits, target)
    disturbed = torch.where((target == 255).unsqueeze(1), torch.randn_like(logits), logits)
    for index in (2, 0, 1):
        parts.update(disturbed[index : index + 1], target[index : index + 1])
    for name, value in whole.compute().items():
        assert parts.compute()[name].item() == pytest.approx(value.item(), abs=1e-7)


def test_pickle() -> None:
    metric = Pixelwise(5)
    metric.update(*make_uncertain())
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()


def test_upper_edge_belongs_to_the_bin() -> None:
    _, counts = calibrate(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.uint8), num_bins=2)
    assert counts.pixels.tolist() == [[0, 0], [1, 0]]


def test_error_table() -> None:
    logits, target = make_uncertain()
    with pytest.raises(ValueError, match="should be"):
        Pixelwise(5).update(logits, target[:, :3])
    target[0, 0, 0] = 9
    with pytest.raises(ValueError, match="`target = 9`"):
        Pixelwise(5).update(logits, target)


@pytest.mark.gpu
def test_accelerator_equals_cpu() -> None:
    logits, target = make_uncertain(3, 40, (2, 100, 120))
    expected_prediction, expected = calibrate(logits, target.byte())
    prediction, counts = calibrate(logits.cuda(), target.byte().cuda())
    assert torch.equal(prediction.cpu(), expected_prediction)
    assert (counts.pixels.cpu() - expected.pixels).abs().sum() <= 4  # pixels at the edge of a bin
    assert counts.nll.item() == pytest.approx(expected.nll.item(), rel=1e-6)
    assert counts.brier.item() == pytest.approx(expected.brier.item(), rel=1e-6)
