import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from hsl.metrics.pixels.calibration import calibrate
from hsl.metrics.pixels.pixelwise import Pixelwise


def make(seed: int = 0, num_classes: int = 5, shape: tuple[int, int, int] = (3, 6, 7)) -> tuple[Tensor, Tensor]:
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
    logits, target = make(num_classes, num_classes)
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
    logits, target = make()
    prediction, _ = calibrate(logits, target.byte())
    assert torch.equal(prediction.long(), logits.argmax(1))
    assert calibrate(torch.zeros(1, 7, 2, 2), torch.zeros(1, 2, 2, dtype=torch.uint8))[0].sum() == 0


def test_pieces_are_the_whole() -> None:
    logits, target = make(1, 200, (2, 61, 83))  # 200 classes: a picture is cut into several pieces
    _, counts = calibrate(logits, target.byte())
    assert counts.pixels.sum() == (target != 255).sum()
    nll = torch.nn.functional.cross_entropy(logits, target, ignore_index=255, reduction="sum").item()
    assert counts.nll.item() == pytest.approx(nll, rel=1e-5)


def test_certain_and_right_is_ideal() -> None:
    _, target = make()
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
    metric.update(make()[0], torch.full((3, 6, 7), 255))
    assert all(math.isnan(value) for value in metric.compute().values())


def test_half_precision() -> None:
    logits, target = make()
    for one, other in zip(
        calibrate(logits.bfloat16(), target.byte())[1],
        calibrate(logits.bfloat16().float(), target.byte())[1],
        strict=True,
    ):
        assert torch.equal(one, other)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_batches_ignored_pixels_and_order_change_nothing(seed: int) -> None:
    logits, target = make(seed)
    whole, parts = Pixelwise(5), Pixelwise(5)
    whole.update(logits, target)
    disturbed = torch.where((target == 255).unsqueeze(1), torch.randn_like(logits), logits)
    for index in (2, 0, 1):
        parts.update(disturbed[index : index + 1], target[index : index + 1])
    for name, value in whole.compute().items():
        assert parts.compute()[name].item() == pytest.approx(value.item(), abs=1e-7)


def test_pickle() -> None:
    metric = Pixelwise(5)
    metric.update(*make())
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()


def test_upper_edge_belongs_to_the_bin() -> None:
    _, counts = calibrate(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.uint8), num_bins=2)
    assert counts.pixels.tolist() == [[0, 0], [1, 0]]


def test_error_table() -> None:
    logits, target = make()
    with pytest.raises(ValueError, match="should be"):
        Pixelwise(5).update(logits, target[:, :3])
    target[0, 0, 0] = 9
    with pytest.raises(ValueError, match="`target = 9`"):
        Pixelwise(5).update(logits, target)


@pytest.mark.gpu
def test_accelerator_equals_cpu() -> None:
    logits, target = make(3, 40, (2, 100, 120))
    expected_prediction, expected = calibrate(logits, target.byte())
    prediction, counts = calibrate(logits.cuda(), target.byte().cuda())
    assert torch.equal(prediction.cpu(), expected_prediction)
    assert (counts.pixels.cpu() - expected.pixels).abs().sum() <= 4  # pixels at the edge of a bin
    assert counts.nll.item() == pytest.approx(expected.nll.item(), rel=1e-6)
    assert counts.brier.item() == pytest.approx(expected.brier.item(), rel=1e-6)
