"""A logit that is no number is never scored as some class, whatever looks at it."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from hsl.errors import NonFiniteLogitsError, UserError
from hsl.metrics.finite import broken_images, check_count, check_outputs
from hsl.metrics.images.image_scores import image_scores
from hsl.metrics.images.imagewise import ImageScores, probabilities_of
from hsl.metrics.objects.watershed import split_objects
from hsl.metrics.pixels.pixelwise import Pixelwise, calibrate

VALUES = [math.nan, math.inf, -math.inf]
TARGET = torch.zeros(3, 4, 5, dtype=torch.int64)


def logits_with(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Three images of three classes; the second has one logit of this value, not of its true class."""
    logits = torch.randn(3, 3, 4, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    logits[1, 2, 3, 4] = value
    return logits


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_kind_of_tensor_is_looked_through(value: float, dtype: torch.dtype, layout: torch.memory_format) -> None:
    logits = logits_with(value, dtype).contiguous(memory_format=layout)
    assert broken_images(logits).tolist() == [False, True, False]
    assert broken_images(logits[:, :, 3, 4]).tolist() == [False, True, False]


def test_large_finite_logits_are_numbers() -> None:
    extreme = torch.tensor([[3e38, -3e38], [0.0, 0.0]])
    assert not broken_images(extreme).any()
    assert not broken_images(torch.full((2, 2, 3, 3), 65504.0).half()).any()
    assert broken_images(torch.zeros(2, 3, 0, 4)).tolist() == [False, False]
    check_outputs({"a": extreme}, ["x", "y"], "here")
    check_outputs({}, [], "here")


@pytest.mark.parametrize("value", VALUES)
def test_the_message_names_head_images_value_and_place(value: float) -> None:
    outputs = {"genus": torch.zeros(3, 2), "health": logits_with(value)}
    with pytest.raises(NonFiniteLogitsError, match=rf"`{value}` in `health` for p2 \(epoch 3\)") as caught:
        check_outputs(outputs, ["p1", "p2", "p3"], "epoch 3")
    assert isinstance(caught.value, UserError)
    assert isinstance(caught.value, ArithmeticError)
    assert "optimizer.lr" in str(caught.value)


def pixelwise(logits: Tensor) -> None:
    Pixelwise(3).update(logits, TARGET)


def calibration(logits: Tensor) -> None:
    calibrate(logits, TARGET.byte())


def labels(logits: Tensor) -> None:
    ImageScores(3, several=False).update(logits[:, :, 3, 4], torch.zeros(3, dtype=torch.int64))


def several_labels(logits: Tensor) -> None:
    ImageScores(3, several=True).update(logits[:, :, 3, 4], torch.zeros(3, 3))


@pytest.mark.parametrize("look", [pixelwise, calibration, labels, several_labels])
@pytest.mark.parametrize("value", VALUES)
def test_no_metric_takes_it(look: Callable[[Tensor], None], value: float) -> None:
    with pytest.raises(NonFiniteLogitsError, match="image 1 of the batch"):
        look(logits_with(value))
    look(logits_with(1.0))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("value", VALUES)
def test_probabilities_of_an_image_head_are_not_made_up(several: bool, value: float) -> None:
    logits = logits_with(value)[:, :, 3, 4]
    probabilities = probabilities_of(logits, several).numpy()
    assert np.isfinite(probabilities[[0, 2]]).all()
    assert not np.isfinite(probabilities[1]).all()
    targets = np.zeros((3, 3)) if several else np.zeros(3, np.int64)
    with pytest.raises(NonFiniteLogitsError, match="row 1"):
        image_scores(probabilities, targets)


def test_what_an_accelerator_counted_is_told_by_compute() -> None:
    metric = Pixelwise(3)
    for look in (metric.compute, metric.states):
        metric.update(logits_with(1.0), TARGET)
        metric.broken += 2
        with pytest.raises(NonFiniteLogitsError, match="2 images"):
            look()
        metric.reset()
        check_count(metric.broken)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("place", [0, 1])
def test_objects_are_not_cut_from_it(value: float, place: int) -> None:
    maps = [np.full((4, 4), 0.7), np.full((4, 4), 0.5)]
    maps[place][1, 2] = value
    with pytest.raises(ValueError, match="should be finite"):
        split_objects(*maps)
