"""Which family an encoder is of, by its name."""

from pathlib import Path

import pytest
import timm
from omegaconf import OmegaConf
from segmentation_models_pytorch.encoders import encoders

from hsl.models.families import family_of

CONF = Path(__file__).parents[2] / "conf" / "encoder"
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
