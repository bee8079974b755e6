"""Attention and activations against arrays whose answer is known by hand."""

import numpy as np
import pytest
import torch

from hsl.reports.analysis.numbers import DEAD_BELOW, Attention, ClassAttention, StageActivations, attention_share

CAM = np.array([[0.6, 0.2], [0.2, 1.0]], np.float32)


def test_share_of_the_attention_and_of_the_area() -> None:
    found = attention_share(CAM, np.array([[2, 0], [0, 1]], np.uint8))
    assert found == pytest.approx((0.8, 0.5))
    even = attention_share(np.full((5, 7), 0.3), (np.arange(35).reshape(5, 7) % 3 == 0).astype(np.uint8))
    assert even is not None
    assert even.share == pytest.approx(even.area)  # a map without preference is at chance


def test_ignored_pixels_count_nowhere() -> None:
    assert attention_share(CAM, np.array([[2, 0], [0, 255]], np.uint8)) == pytest.approx((0.6, 1 / 3))


def test_nothing_to_share_out() -> None:
    assert attention_share(CAM, np.zeros((2, 2), np.uint8)) is None
    assert attention_share(np.zeros((2, 2)), np.ones((2, 2), np.uint8)) is None
    assert attention_share(CAM, np.full((2, 2), 255, np.uint8)) is None
    with pytest.raises(ValueError, match=r"size of the mask, \(2, 3\)\. Found \(2, 2\)"):
        attention_share(CAM, np.ones((2, 3), np.uint8))


def test_means_of_a_class() -> None:
    found = ClassAttention.of([Attention(0.9, 0.2), None, Attention(0.5, 0.4)])
    assert (found.num_pictures, found.left_out) == (2, 1)
    assert (found.share, found.area, found.ratio) == pytest.approx((0.7, 0.3, 0.7 / 0.3))
    assert ClassAttention.of([None]) == ClassAttention(0, 1, None, None)
    assert ClassAttention.of([]).ratio is None


def test_batches_together_are_the_whole() -> None:
    features = torch.randn(7, 5, 4, 3, generator=torch.Generator().manual_seed(0)) + 3
    features[:, 1] = 0
    features[:, 2] = DEAD_BELOW / 2
    features[:, 3] = 0
    features[6, 3, 2, 1] = -2.0  # one pixel of the last picture wakes it
    stage = StageActivations.of(features[:4]) + StageActivations.of(features[4:])
    assert stage.mean == pytest.approx(features.double().numpy().mean(), rel=1e-12)
    assert stage.std == pytest.approx(features.double().numpy().std(), rel=1e-12)
    assert (stage.num_channels, stage.num_dead, stage.dead_share) == (5, 2, 0.4)
    assert StageActivations.of(features[:4]).num_dead == 3


def test_a_constant_stage_has_no_spread() -> None:
    stage = StageActivations.of(torch.full((2, 3, 1, 1), 0.1))
    assert stage.std == pytest.approx(0, abs=1e-8)
    assert stage.num_dead == 0
