"""The families of encoders, and which family an encoder is of."""

from pathlib import Path

import pytest
import timm
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from segmentation_models_pytorch.encoders import encoders

from hsl.errors import ConfigError
from hsl.models.encoders import Encoder, build_encoder
from hsl.models.families import family_of

CONF = Path(__file__).parents[2] / "conf" / "encoder"
STATISTICS = {"mean": [0.5] * 3, "std": [0.5] * 3}
QUICK = {"ghostnetv2": 1.25, "mobileone_s1": 3.54, "densenet121": 6.95, "regnety_016": 10.31, "deit_small": 23.92}
SLOW = {
    "cspdarknet53": 26.62, "skresnet34": 21.77, "inception_v4": 41.14, "resnet50d": 23.53, "coatnet_0": 26.61,
    "swin_tiny": 27.52, "vit_hybrid": 106.9, "efficientnet_lite0": 2.96, "convnext_tiny": 27.82, "maxvit_tiny": 30.12,
}  # fmt: skip
OPTIONS = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def built(stem: str, image_size: object = 64) -> Encoder:
    torch.manual_seed(0)
    cfg = OmegaConf.create({"data": {"image_size": image_size}, "encoder": OmegaConf.load(CONF / f"{stem}.yaml")})
    encoder: Encoder = instantiate(OmegaConf.merge(cfg.encoder, {"weights": None}))
    return encoder


@pytest.mark.parametrize("name", OPTIONS)
def test_family(name: str) -> None:
    encoder = built(name)
    millions = sum(p.numel() for p in encoder.parameters()) / 1e6
    assert millions == pytest.approx((QUICK | SLOW)[name], abs=0.01)
    published = timm.models.get_pretrained_cfg(encoder.name.removeprefix("tu-"))
    assert encoder.normalization == {"mean": list(published.mean), "std": list(published.std)}
    assert timm.models.is_model_pretrained(encoder.name.removeprefix("tu-"))
    features = encoder(torch.rand(2, 3, 64, 64))
    expected = [(2, channels, 64 >> i, 64 >> i) for i, channels in enumerate(encoder.out_channels)]
    assert [tuple(feature.shape) for feature in features] == expected
    features[-1].square().mean().backward()
    assert [key for key, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("name", ["mobileone_s1", "deit_small", "swin_tiny"])
def test_sides_may_differ_from_each_other_and_from_those_of_training(name: str) -> None:
    encoder = built(name, image_size=[64, 96]).eval()
    assert (encoder.stride, encoder.fixed_size) == (32, False)
    with torch.inference_mode():
        features = encoder(torch.rand(1, 3, 96, 160))
    assert [tuple(feature.shape[-2:]) for feature in features] == [(96 >> i, 160 >> i) for i in range(6)]


def test_windows_follow_the_common_divisor_of_unequal_sides() -> None:
    encoder = built("maxvit_pico", image_size=[128, 192]).eval()
    assert encoder.stride == 64
    with torch.inference_mode():
        assert encoder(torch.rand(1, 3, 128, 192))[-1].shape[-2:] == (4, 6)


def test_an_unequal_side_that_is_impossible_is_named() -> None:
    with pytest.raises(ConfigError, match=r"Found `data.image_size = 100`"):
        build_encoder("mobileone_s0", weights=None, normalization=STATISTICS, image_size=[64, 100])


def test_coatnet_takes_one_size_only_and_says_so() -> None:
    encoder = build_encoder("coatnet_pico_rw_224", weights=None, normalization=STATISTICS, image_size=64)
    assert encoder.fixed_size
    with pytest.raises(ConfigError, match=r"64 x 64. Found 128 x 128. Use `inference=sliding_window inference.window"):
        encoder(torch.rand(1, 3, 128, 128))


def test_inception_is_aligned_with_the_picture() -> None:
    # Without its padding the deepest features of this size would be 1 x 1. A change at a pixel must be seen most in
    # the cell of the pyramid that lies over it.
    encoder = built("inception_v4").eval()
    image = torch.zeros(1, 3, 96, 96)
    changed = image.clone()
    changed[..., 72:80, 24:32] = 1
    with torch.inference_mode():
        difference = (encoder.body(image)[2] - encoder.body(changed)[2]).abs().sum(1)[0]
    assert difference.shape == (24, 24)
    row, column = divmod(int(difference.argmax()), 24)
    assert 17 <= row <= 20
    assert 5 <= column <= 8


def test_features_that_were_rounded_down_are_resized() -> None:
    encoder = build_encoder("legacy_xception", weights=None, normalization=STATISTICS).eval()
    image = torch.rand(1, 3, 96, 96)
    with torch.inference_mode():
        raw, exact = encoder.body(image), encoder(image)
    assert raw[1].shape[-1] == 45
    assert [tuple(feature.shape[-2:]) for feature in exact] == [(96 >> i, 96 >> i) for i in range(6)]
    assert torch.allclose(exact[1].mean(), raw[1].mean(), rtol=0.05)


# Which family an encoder is of, by its name.


FAMILIES = {
    "CNN": [
        "convnext_atto", "convnext_tiny", "convnext_tiny_cbam", "cs3darknet_s", "cspdarknet53", "densenet121",
        "efficientnet_lite0", "efficientnet_lite0_cbam", "efficientnetv2_s", "ghostnetv2", "inception_v4",
        "mobilenetv3_small", "mobileone_s1", "regnety_016", "resnet10t", "resnet50", "resnet50d", "skresnet34",
    ],
    "transformer": ["mit_b0", "mit_b2", "mit_b3", "deit_small", "swin_tiny"],
    "hybrid": ["coatnet_0", "maxvit_pico", "maxvit_tiny", "vit_hybrid"],
}  # fmt: skip


def test_every_option_has_its_family() -> None:
    stems = {path.stem for path in CONF.glob("[!_]*.yaml")} - {"generic"}
    assert stems == {name for options in FAMILIES.values() for name in options}
    for family, options in FAMILIES.items():
        for option in options:
            assert family_of(OmegaConf.load(CONF / f"{option}.yaml").name) == family, option


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("tu-regnety_032.ra_in1k", "CNN"),
        ("timm-efficientnet-b3", "CNN"),
        ("se_resnext50_32x4d", "CNN"),
        ("tu-swinv2_tiny_window8_256.ms_in1k", "transformer"),
        ("tu-pvt_v2_b2.in1k", "transformer"),
        ("tu-vit_small_r26_s32_224.augreg_in21k", "hybrid"),
        ("tu-vit_small_patch16_224.augreg_in21k", "transformer"),
        ("tu-mobilevitv2_100.cvnets_in1k", "hybrid"),
        ("tu-coat_lite_tiny.in1k", "hybrid"),
        ("tu-mobilenetv4_hybrid_medium.e200_r256_in12k", "hybrid"),
        ("tu-mobilenetv4_conv_small.e2400_r224_in1k", "CNN"),
        ("tu-samvit_base_patch16.sa1b", "transformer"),
        ("something_else", "unknown"),
    ],
)
def test_others_by_name(name: str, family: str) -> None:
    assert family_of(name) == family


def test_few_are_unknown() -> None:
    """Of all that smp and timm offer."""
    names = [*encoders, *(f"tu-{name}" for name in timm.list_models())]
    unknown = [name for name in names if family_of(name) == "unknown"]
    assert len(unknown) < 0.06 * len(names), unknown
