"""The families of encoders, and what is read of their weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import save_file
from segmentation_models_pytorch.encoders import encoders, get_encoder
from torch import nn

from hsl.errors import ConfigError, DataError
from hsl.models.encoders import Encoder, build_encoder
from hsl.models.families import family_of
from hsl.models.state_dict import fill_encoder, read_state_dict

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


# State dict.


TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def fresh(name: str, **options: object) -> nn.Module:
    return get_encoder(name, weights=None, **options)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    "save",
    [
        lambda path: torch.save(TENSORS, path),
        lambda path: torch.save({"state_dict": TENSORS, "epoch": 3}, path),
        lambda path: torch.save({"model": TENSORS, "args": {"lr": 0.1}}, path),
        lambda path: torch.save(TENSORS, path, _use_new_zipfile_serialization=False),
    ],
    ids=["bare", "state_dict", "model", "old_format"],
)
def test_reads_torch_files(tmp_path: Path, save: Callable[[Path], None]) -> None:
    save(tmp_path / "w.pt")
    assert all(torch.equal(value, TENSORS[key]) for key, value in read_state_dict(tmp_path / "w.pt").items())


def test_reads_safetensors(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.safetensors")
    assert set(read_state_dict(tmp_path / "w.safetensors")) == set(TENSORS)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 cut off"])
def test_broken_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} cannot be read as a state dict"):
        read_state_dict(tmp_path / name)


def test_file_with_code_is_not_run(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole_model.pth")
    with pytest.raises(DataError, match="Save the bare"):
        read_state_dict(tmp_path / "whole_model.pth")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], None])
def test_file_without_tensors(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(DataError, match="holds no tensors"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "architecture",
    [
        "test_convnext",
        "test_resnet",
        "test_efficientnet",
        "test_byobnet",
        "test_nfnet",
        "mobilenetv3_small_050",
    ],
)
def test_classifier_of_timm_fills_its_encoder(architecture: str) -> None:
    classifier = timm.create_model(architecture).eval()
    encoder = fresh(f"tu-{architecture}").eval()
    filled = fill_encoder(encoder, f"tu-{architecture}", classifier.state_dict(), {}, where="w.pth")
    assert (filled.missing, filled.unexpected) == ([], [])
    assert filled.head_keys > 0
    assert filled.loaded + filled.head_keys == len(classifier.state_dict())
    # Each tensor in its place, not only every place filled: the features are those of the classifier.
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        levels = len(encoder(image)) - 1 - (encoder.out_channels[1] == 0)
        expected = timm.create_model(architecture, features_only=True, out_indices=tuple(range(levels)))
        pairs = dict(zip(expected.state_dict(), encoder.state_dict().values(), strict=True))
        expected.load_state_dict(pairs)
        assert torch.allclose(expected.eval()(image)[-1], encoder(image)[-1])
        if architecture == "test_convnext":
            assert torch.allclose(classifier.forward_features(image), encoder(image)[-1], atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "mit_b0", "tu-test_convnext"])
@pytest.mark.parametrize("prefix", ["", "module.", "network.encoder.body."])
def test_own_names_below_any_prefix(name: str, prefix: str) -> None:
    source, target = fresh(name), fresh(name)
    state = {f"{prefix}{key}": value for key, value in source.state_dict().items()}
    filled = fill_encoder(target, name, state, {}, where="w.pth")
    assert (filled.missing, filled.unexpected) == ([], [])
    assert same(source, target)


def test_classifier_keys_of_smp_encoders_are_counted() -> None:
    source, target = fresh("resnet18"), fresh("resnet18")
    state = source.state_dict() | {"fc.weight": torch.ones(1000, 512), "fc.bias": torch.ones(1000)}
    filled = fill_encoder(target, "resnet18", state, {}, where="w.pth")
    assert (filled.missing, filled.unexpected, filled.head_keys) == ([], [], 2)
    assert same(source, target)


def test_missing_and_unexpected_are_listed() -> None:
    source = fresh("resnet18")
    state = {key: value for key, value in source.state_dict().items() if not key.startswith("layer4.1.conv2")}
    filled = fill_encoder(fresh("resnet18"), "resnet18", state | {"decoder.weight": torch.ones(1)}, {}, where="w.pth")
    assert filled.missing == ["layer4.1.conv2.weight"]
    assert filled.unexpected == ["decoder.weight"]


def test_old_files_lack_batch_counters_without_harm() -> None:
    state = {k: v for k, v in fresh("resnet18").state_dict().items() if not k.endswith("num_batches_tracked")}
    assert fill_encoder(fresh("resnet18"), "resnet18", state, {}, where="w.pth").missing == []


def test_shape_mismatch_stops_and_changes_nothing() -> None:
    encoder = fresh("resnet18")
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with pytest.raises(ConfigError, match=r"w\.pth should have the shapes of `resnet18`.*\(64, 256, 1, 1\)"):
        fill_encoder(encoder, "resnet18", get_encoder("resnet50", weights=None).state_dict(), {}, where="w.pth")
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_foreign_file_loads_nothing() -> None:
    state = {"alpha": torch.ones(2), "beta.gamma": torch.ones(3)}
    filled = fill_encoder(fresh("tu-test_convnext"), "tu-test_convnext", state, {}, where="w.pth")
    assert filled.loaded == 0
    assert filled.unexpected == ["alpha", "beta.gamma"]


def test_first_authors_words_are_translated() -> None:
    """The names of the original ConvNeXt release, made from timm's by hand."""
    source = timm.create_model("convnext_atto", conv_mlp=False)
    original = {}
    for key, value in source.state_dict().items():
        words = key.replace(".blocks.", ".").replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        if words.startswith("stem."):
            words = words.replace("stem.", "downsample_layers.0.")
        elif ".downsample." in words:
            _, stage, _, rest = words.split(".", 3)
            words = f"downsample_layers.{stage}.{rest}"
        words = words.replace("head.norm.", "norm.").replace("head.fc.", "head.")
        original[words] = value
    assert "stages.0.0.dwconv.weight" in original
    name, options = "tu-convnext_atto", {"conv_mlp": False}
    encoder = fresh(name, **options)
    filled = fill_encoder(encoder, name, original, options, where="w.pth")
    assert (filled.missing, filled.unexpected) == ([], [])
    key = "stages.2.blocks.1.mlp.fc1.weight"
    assert torch.equal(encoder.state_dict()["model." + key.replace("s.", "s_", 1)], source.state_dict()[key])


@pytest.mark.parametrize("architecture", ["maxvit_pico_rw_256", "maxvit_tiny_tf_384"])
def test_attention_tables_are_resized_to_the_picture(architecture: str) -> None:
    source = timm.create_model(architecture, img_size=128)
    encoder = fresh(f"tu-{architecture}", img_size=64)
    filled = fill_encoder(encoder, f"tu-{architecture}", source.state_dict(), {"img_size": 64}, where="w.pth")
    assert (filled.missing, filled.unexpected) == ([], [])
    key = "stages.0.blocks.0.attn_block.attn.rel_pos.relative_position_bias_table"
    table, resized = source.state_dict()[key], encoder.state_dict()["model." + key.replace("s.", "s_", 1)]
    if table.ndim == 2:  # (positions, heads); the other family has (heads, rows, columns)
        table, resized = table.T.reshape(-1, 7, 7), resized.T.reshape(-1, 3, 3)
    # Windows of 4 know displacements -3..3, windows of 2 know -1..1: the same displacement has the same bias.
    assert torch.allclose(resized, table[:, 2:5, 2:5], atol=1e-6)
    assert table.std() > 0
