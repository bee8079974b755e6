import numpy as np
import pytest
import torch
from tests.inference._inputs import Answers
from torch.nn import functional as F

from hsl.errors import ConfigError
from hsl.inference.predictor import Whole, to_source_size


def resized(logits: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)


def test_the_same_size_is_the_same_object() -> None:
    logits = torch.randn(2, 3, 4, 6)
    assert to_source_size(logits, torch.tensor([[4, 6], [4, 6]])) is logits


def test_by_hand() -> None:
    """Half-pixel centres: 0 and 4 become 0, a quarter, three quarters, 4."""
    out = to_source_size(torch.tensor([[[[0.0, 4.0]]]]), torch.tensor([[1, 4]]))
    assert out.tolist() == [[[[0.0, 1.0, 3.0, 4.0]]]]


def test_one_size_for_all() -> None:
    logits = torch.randn(2, 3, 4, 4)
    out = to_source_size(logits, torch.tensor([[7, 9], [7, 9]]))
    assert out.shape == (2, 3, 7, 9)
    torch.testing.assert_close(out, resized(logits, 7, 9), rtol=0, atol=0)


@pytest.mark.parametrize("sizes", [[(3, 8), (5, 2)], [(4, 4), (6, 6)], [(4, 4), (2, 1), (9, 3)]])
def test_mixed_sizes_are_each_picture_s_own_with_zeros_around(sizes: list[tuple[int, int]]) -> None:
    logits = torch.randn(len(sizes), 3, 4, 4) + 10  # nowhere 0
    out = to_source_size(logits, torch.tensor(sizes))
    assert out.shape == (len(sizes), 3, max(h for h, _ in sizes), max(w for _, w in sizes))
    for i, (height, width) in enumerate(sizes):
        torch.testing.assert_close(out[i, :, :height, :width], resized(logits[i : i + 1], height, width)[0])
        assert (out[i, :, height:] == 0).all()
        assert (out[i, :, :, width:] == 0).all()


def test_type_and_gradient_are_kept() -> None:
    logits = torch.ones(2, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    out = to_source_size(logits, torch.tensor([[4, 4], [2, 2]]))
    assert out.dtype == torch.float64
    out.sum().backward()
    assert logits.grad is not None
    assert logits.grad.sum(dim=(1, 2, 3)).tolist() == [16.0, 4.0]  # one per source pixel


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
