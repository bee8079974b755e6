import pytest
import timm
import torch

from hsl.errors import ConfigError
from hsl.models.encoders import build_encoder
from hsl.models.network import checkpoint_gradients
from hsl.models.plain_pyramid import PlainPyramid, build_plain_pyramid

STATISTICS = {"mean": [0.5] * 3, "std": [0.5] * 3}
ANY_SIZE = {"dynamic_img_size": True}


def built(name: str = "test_vit") -> PlainPyramid:
    torch.manual_seed(0)
    pyramid = build_plain_pyramid(name, ANY_SIZE)
    assert pyramid is not None
    return pyramid


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (160, 64), (224, 224)])
def test_every_stride_has_its_exact_size(height: int, width: int) -> None:
    pyramid = built()
    features = pyramid(torch.rand(2, 3, height, width))
    expected = [(2, channels, height >> i, width >> i) for i, channels in enumerate(pyramid.out_channels)]
    assert [tuple(feature.shape) for feature in features] == expected
    assert pyramid.out_channels == [3, 0, 16, 32, 64, 64]


def test_patches_of_32_are_brought_to_finer_strides() -> None:
    pyramid = built("vit_tiny_r_s16_p8_224")  # a convolutional stem of stride 16, patches of 2 x 2 on it
    assert pyramid.model.feature_info.reduction() == [32] * 4
    shapes = [tuple(feature.shape[1:]) for feature in pyramid(torch.rand(1, 3, 64, 64))]
    assert shapes[2:] == [(48, 16, 16), (96, 8, 8), (192, 4, 4), (192, 2, 2)]


def test_the_deepest_features_alone_train_everything() -> None:
    pyramid = built()
    pyramid(torch.rand(2, 3, 64, 64))[-1].square().mean().backward()
    assert [name for name, p in pyramid.named_parameters() if p.grad is None] == []


def test_it_starts_as_the_tokens_of_four_depths() -> None:
    pyramid = built().eval()
    image = torch.rand(1, 3, 64, 64)
    blocks = pyramid.model.model.blocks
    seen: list[torch.Tensor] = []
    for block in blocks:
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    features = pyramid(image)
    assert len(seen) == len(blocks) == 6
    for feature, tokens, level in zip(features[2:], [seen[0], seen[2], seen[3], seen[5]], pyramid.levels, strict=True):
        grid = tokens[:, 1:].transpose(1, 2).reshape(1, 64, 4, 4)  # without the class token
        torch.testing.assert_close(feature, level(grid))


def test_an_architecture_with_its_own_pyramid_is_left_to_it() -> None:
    assert build_plain_pyramid("swin_tiny_patch4_window7_224", {"strict_img_size": False}) is None


def test_patches_of_14_pixels_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"patches of 4, 8, 16 or 32 pixels. Found 14"):
        build_encoder("vit_small_patch14_dinov2", weights=None, normalization=STATISTICS, dynamic_img_size=True)


def test_published_weights_fill_the_transformer_and_leave_the_levels(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("weights") / "vit.pth"
    source = timm.create_model("test_vit")
    torch.save(source.state_dict(), path)
    encoder = build_encoder("test_vit", weights=str(path), normalization=STATISTICS, **ANY_SIZE)
    assert (encoder.weights_used["missing"], encoder.weights_used["unexpected"]) == ([], [])
    torch.testing.assert_close(encoder.body.model.model.blocks[5].mlp.fc1.weight, source.blocks[5].mlp.fc1.weight)


def test_without_dynamic_size_it_is_built_for_one_size() -> None:
    encoder = build_encoder("test_vit", weights=None, normalization=STATISTICS, image_size=96)
    assert encoder.stride == 96
    assert encoder.body.model.model.pos_embed.shape[1] == 36 + 1


def test_gradient_checkpointing_reaches_the_blocks_and_changes_no_gradient() -> None:
    encoder = build_encoder("test_vit", weights=None, normalization=STATISTICS, **ANY_SIZE)
    image = torch.rand(2, 3, 64, 64)
    gradients = []
    for _ in range(2):
        encoder.zero_grad(set_to_none=True)
        encoder(image)[-1].square().mean().backward()
        gradients.append(encoder.body.model.model.blocks[0].attn.qkv.weight.grad)
        checkpoint_gradients(encoder)
    assert encoder.body.model.model.grad_checkpointing
    torch.testing.assert_close(*gradients)
