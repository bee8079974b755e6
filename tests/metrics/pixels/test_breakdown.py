import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hsl.metrics.pixels.boundary import boundary_width
from hsl.metrics.pixels.breakdown import error_breakdown
from hsl.metrics.pixels.counts import confusion_matrix, scores
from hsl.metrics.pixels.pixelwise import Pixelwise


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
    accuracy = scores(confusion_matrix(prediction, target, 4))["pixel_accuracy"].item()
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
    assert set(error_breakdown(torch.ones(2, 1, 1))) == set(errors(metric))


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
