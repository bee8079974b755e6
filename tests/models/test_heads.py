import pytest
import torch

from hsl.errors import ConfigError
from hsl.models.heads import DenseHead, EmbeddingHead, ImageHead, MapHead


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


def test_an_image_head_reads_the_mean_of_the_features() -> None:
    head = ImageHead(4, 3, dropout=0.0)
    features = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(head(features), head.classify(features.mean(dim=(2, 3))))
    with pytest.raises(ConfigError, match="dropout = 1"):
        ImageHead(4, 3, dropout=1)


def test_a_map_head_answers_at_full_size_between_0_and_1() -> None:
    values = MapHead(8, upsampling=4, channels=3)(torch.randn(2, 8, 5, 6) * 10)
    assert values.shape == (2, 3, 20, 24)
    assert 0 <= values.min() <= values.max() <= 1


@pytest.mark.parametrize(("upsampling", "size"), [(1, (2, 16, 4, 6)), (4, (2, 16, 16, 24))])
def test_an_embedding_has_length_one(upsampling: int, size: tuple[int, ...]) -> None:
    embedding = EmbeddingHead(8, upsampling=upsampling, dimension=16)(torch.randn(2, 8, 16, 24))
    assert embedding.shape == size
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(size[0], *size[2:]))
    with pytest.raises(ConfigError, match="stride = 4"):
        EmbeddingHead(8, upsampling=8)
