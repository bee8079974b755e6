"""Encoders: their options, and pyramids of plain transformers."""

from pathlib import Path

import pytest
import timm
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from hsl.errors import ConfigError
from hsl.models.encoders import OWN_OPTIONS, Encoder, build_encoder
from hsl.models.network import checkpoint_gradients
from hsl.models.plain_pyramid import PlainPyramid, build_plain_pyramid

CONF = Path(__file__).parents[2] / "conf" / "encoder"
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
SMALL = ["resnet10t", "cs3darknet_s", "convnext_atto", "mit_b0", "maxvit_pico", "mobilenetv3_small",
         "efficientnet_lite0", "efficientnet_lite0_cbam"]  # fmt: skip
FAMILIES = [  # in test_families.py
    "cspdarknet53", "ghostnetv2", "skresnet34", "mobileone_s1", "regnety_016", "inception_v4", "resnet50d",
    "densenet121", "deit_small", "vit_hybrid", "coatnet_0", "swin_tiny",
]  # fmt: skip
LARGE = ["convnext_tiny", "convnext_tiny_cbam", "mit_b2", "mit_b3", "maxvit_tiny", "efficientnetv2_s", "resnet50"]


def option(stem: str, image_size: int = 64, **changes: object) -> DictConfig:
    cfg = OmegaConf.create({"data": {"image_size": image_size}, "encoder": OmegaConf.load(CONF / f"{stem}.yaml")})
    cfg.encoder = OmegaConf.merge(cfg.encoder, {"weights": None, **changes})
    return cfg.encoder


def pyramid(encoder: Encoder, side: int) -> list[tuple[int, ...]]:
    with torch.inference_mode():
        return [tuple(f.shape[1:]) for f in encoder.eval()(torch.rand(1, 3, side, side))]


def test_every_option_is_tested() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} == {*SMALL, *LARGE, *FAMILIES, "generic"}


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet10t", 4.92),
        ("cs3darknet_s", 2.76),
        ("convnext_atto", 3.37),
        ("mit_b0", 3.32),
        ("maxvit_pico", 7.26),
        ("mobilenetv3_small", 0.93),
        ("efficientnet_lite0", 2.96),
        ("efficientnet_lite0_cbam", 2.97),
        ("convnext_tiny", 27.82),
        ("convnext_tiny_cbam", 27.91),
        ("mit_b2", 24.20),
        ("mit_b3", 44.07),
        ("maxvit_tiny", 30.12),
        ("efficientnetv2_s", 19.85),
        ("resnet50", 23.51),
    ],
)
def test_named_option(name: str, millions: float) -> None:
    cfg = option(name)
    encoder = instantiate(cfg)
    assert encoder.weights_used["source"] == "random"
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    expected = [(channels, 64 // 2**i, 64 // 2**i) for i, channels in enumerate(encoder.out_channels)]
    assert pyramid(encoder, 64) == expected
    assert len(expected) == 6
    # smp publishes its configs on the hub only; its two encoders were trained with ImageNet's statistics.
    published = timm.models.get_pretrained_cfg(cfg.name.removeprefix("tu-")) if cfg.name.startswith("tu-") else None
    statistics = {"mean": list(published.mean), "std": list(published.std)} if published else IMAGENET
    assert encoder.normalization == statistics


@pytest.mark.parametrize("side", [128, 224, 384])
def test_attention_windows_follow_the_picture(side: int) -> None:
    encoder = instantiate(option("maxvit_pico", image_size=side))
    assert encoder.stride == side
    assert pyramid(encoder, side)[-1] == (256, side // 32, side // 32)


def test_windowed_encoder_takes_multiples_of_its_size_only() -> None:
    encoder = instantiate(option("maxvit_pico", image_size=64))
    assert pyramid(encoder, 128)[-1] == (256, 4, 4)
    with pytest.raises(AssertionError, match="divisible by window"):  # timm's; the network asks first
        pyramid(encoder, 96)


def test_windowed_encoder_without_a_picture_size_keeps_its_published_one() -> None:
    assert build_encoder("test_maxvit", weights=None, normalization=IMAGENET).stride == 160


@pytest.mark.parametrize("name", ["maxvit_pico_rw_256", "mit_b0", "mobilenetv3_small_100"])
@pytest.mark.parametrize(("size", "nearest"), [(100, "96 and 128"), (130, "128 and 160"), (20, "32 and 64")])
def test_impossible_size_names_the_nearest(name: str, size: int, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"multiple of 32. Found `data.image_size = {size}`.*{nearest}"):
        build_encoder(name, weights=None, normalization=IMAGENET, image_size=size)


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        ("resnet18", "resnet18"),  # smp's comes first where both know the name
        ("tu-resnet18", "tu-resnet18"),
        ("test_resnet.r160_in1k", "tu-test_resnet.r160_in1k"),
        ("tu-test_convnext", "tu-test_convnext"),
        ("mobilenet_v2", "mobilenet_v2"),
    ],
)
def test_generic_takes_every_name_of_smp_and_timm(given: str, resolved: str) -> None:
    encoder = instantiate(option("generic", name=given))
    assert encoder.name == resolved
    assert pyramid(encoder, 64)[0] == (3, 64, 64)


def test_options_reach_timm() -> None:
    encoder = build_encoder("test_convnext", weights=None, normalization=IMAGENET, drop_path_rate=0.5)
    assert any("DropPath" in type(module).__name__ for module in encoder.modules())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("convnext_tinny", {}, "Near to it: convnext_tiny"),
        ("convnext_atto.foo", {}, "Tags of convnext_atto: .*d2_in1k"),
        ("timm-tf_efficientnet_lite0", {}, "Use `tu-tf_efficientnet_lite0`"),
        ("crossvit_tiny_240", {}, "cannot be built as an encoder"),
        ("convnext_atto", {"drop_pth_rate": 0.1}, "drop_pth_rate"),
        ("mit_b0", {"drop_path_rate": 0.1}, "takes no options"),
    ],
)
def test_bad_names_and_options(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_encoder(name, weights=None, normalization=IMAGENET, **options)


def test_loaded_weights_warn_about_another_normalization(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    own = timm.models.get_pretrained_cfg("test_resnet").mean
    wrong = {"mean": [0.1, 0.2, 0.3], "std": list(timm.models.get_pretrained_cfg("test_resnet").std)}
    with pytest.warns(UserWarning, match=rf"pretrained with mean \[{own[0]}"):
        build_encoder("test_resnet", weights=str(path), normalization=wrong)


@pytest.mark.parametrize("option", sorted(OWN_OPTIONS))
def test_weights_come_by_one_way_alone(option: str) -> None:
    """timm would read a pickle, or ask the hub."""
    with pytest.raises(ConfigError, match=f"`encoder.{option}` should not be given"):
        build_encoder("resnet10t", weights=None, normalization=IMAGENET, **{option: "x"})


@pytest.mark.parametrize("package", ["a.b", ".a", "a/b", "", "a b"])
def test_a_package_is_looked_for_without_importing_another(package: str) -> None:
    with pytest.raises(ConfigError, match=r"`encoder\.package` should be the name of one package"):
        build_encoder("resnet10t", weights="auto", normalization=IMAGENET, package=package)


# Plain pyramid.


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


@pytest.mark.parametrize("name", ["resnet18", "mit_b0", "tu-convnext_atto", "tu-test_vit"])
@pytest.mark.parametrize("channels", [2, 7])
def test_the_first_layer_is_repeated_for_other_channels(name: str, channels: int) -> None:
    """Weight by weight, against the rule written out; what follows is not touched."""
    options = {"dynamic_img_size": True} if "vit" in name else {}
    normalization = {"mean": [0.0] * 3, "std": [1.0] * 3}
    encoder = build_encoder(name, weights=None, normalization=normalization, **options)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    encoder.widen(channels)
    after = encoder.state_dict()
    (changed,) = (key for key, value in after.items() if value.shape != before[key].shape)
    for channel in range(channels):
        torch.testing.assert_close(after[changed][:, channel], before[changed][:, channel % 3] * 3 / channels)
    assert all(torch.equal(after[key], before[key]) for key in before if key != changed)
    features = encoder.eval()(torch.rand(1, channels, 64, 64))
    assert tuple(features[0].shape[1:]) == (channels, 64, 64)
    assert encoder.weights_used["channels"] == channels
    with pytest.raises(ConfigError, match=r"one first layer, which is repeated for 4 channels\. Found 0"):
        encoder.widen(4)
