import pytest
import torch
from torch.nn import functional as F

from hsl.inference.geometry import to_source_size


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
