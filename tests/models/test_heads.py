import pytest
import torch

from hsl.models.heads import DenseHead


@pytest.mark.parametrize(("upsampling", "kernel_size", "expected"), [(1, None, 3), (4, None, 1), (4, 3, 3), (1, 1, 1)])
def test_convolution_follows_the_resolution(upsampling: int, kernel_size: int | None, expected: int) -> None:
    head = DenseHead(8, 5, upsampling, kernel_size)
    assert head.classify.kernel_size == (expected, expected)
    assert head(torch.rand(2, 8, 6, 10)).shape == (2, 5, 6 * upsampling, 10 * upsampling)


def test_upsampling_is_bilinear_between_pixel_centres() -> None:
    head = DenseHead(1, 1, 2)
    with torch.no_grad():
        head.classify.weight.fill_(1.0)
        logits = head(torch.tensor([[[[0.0, 4.0]]]]))
    # Centres of the four new columns lie at -0.25, 0.25, 0.75 and 1.25 of the old ones.
    assert torch.allclose(logits[0, 0, 0], torch.tensor([0.0, 1.0, 3.0, 4.0]))


def test_constant_map_stays_constant_to_the_border() -> None:
    head = DenseHead(2, 3, 4)
    logits = head(torch.ones(1, 2, 3, 3))
    assert torch.allclose(logits, logits[:, :, :1, :1].expand_as(logits))
