import numpy as np
import pytest
import torch
from tests.inference._inputs import Answers

from hsl.errors import ConfigError
from hsl.inference.whole import Whole


class Echo(Answers):
    """Answers with its input and remembers what it saw."""

    def __init__(self):
        super().__init__(dense="dense", image="image")

    def forward(self, images):
        self.seen = images
        return {"dense": images, "image": images.mean((2, 3))}


@pytest.mark.parametrize(("height", "width"), [(64, 32), (33, 31), (70, 5), (3, 2), (1, 1), (1, 40)])
def test_pads_like_numpy_reflect_and_crops_back(height, width):
    images = torch.randn(2, 3, height, width)
    network = Echo()
    outputs = Whole(stride=32)(network, images)

    down, right = -height % 32, -width % 32
    expected = np.pad(images.numpy(), ((0, 0), (0, 0), (0, down), (0, right)), mode="reflect")
    assert network.seen.shape[-2] % 32 == network.seen.shape[-1] % 32 == 0
    np.testing.assert_array_equal(network.seen.numpy(), expected)
    torch.testing.assert_close(outputs["dense"], images, rtol=0, atol=0)
    assert outputs["image"].shape == (2, 3)


def test_reflection_by_hand():
    network = Echo()
    Whole(stride=8)(network, torch.tensor([1.0, 2.0, 3.0]).expand(1, 3, 1, 3))
    assert network.seen[0, 0, 0].tolist() == [1, 2, 3, 2, 1, 2, 3, 2]
    assert network.seen.shape == (1, 3, 8, 8)


def test_a_fitting_picture_is_not_copied():
    network, images = Echo(), torch.randn(1, 3, 64, 32)
    Whole(stride=32)(network, images)
    assert network.seen is images


def test_gradient_passes():
    images = torch.randn(1, 3, 5, 7, requires_grad=True)
    Whole(stride=4)(Echo(), images)["dense"].sum().backward()
    torch.testing.assert_close(images.grad, torch.ones_like(images))


def test_a_head_at_another_size_is_an_error_not_a_silent_crop():
    class Quarter(Answers):
        def forward(self, images):
            return {"edges": images[..., ::4, ::4]}

    with pytest.raises(ValueError, match=r"Head `edges` .*\(32, 64\).*Found \(8, 16\)"):
        Whole(stride=32)(Quarter(edges="dense"), torch.zeros(1, 3, 20, 50))


def test_stride_below_one():
    with pytest.raises(ConfigError, match=r"`stride` should be at least 1. Found `stride = 0`"):
        Whole(stride=0)


def test_a_network_with_larger_windows_gets_them_filled():
    network = Echo()
    network.stride = 24
    outputs = Whole(stride=16)(network, torch.randn(1, 3, 50, 20))
    assert network.seen.shape[-2:] == (96, 48)
    assert outputs["dense"].shape[-2:] == (50, 20)
