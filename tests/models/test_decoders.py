"""Decoders of one task and of several."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder

from hsl.errors import ConfigError
from hsl.models.decoders import Decoder, deeplabv3plus, segformer, unet, unetplusplus, upernet
from hsl.models.multitask_decoders import MultitaskDecoder, StageFusion, hierarchical, multihead

CONF = Path(__file__).parents[2] / "conf" / "decoder"
BRANCHED = {"hierarchical", "multihead"}  # of several tasks: below
OPTIONS = sorted({path.stem for path in CONF.glob("*.yaml")} - BRANCHED)
CONVOLUTIONAL = [3, 16, 24, 40, 80, 160]
WITHOUT_STRIDE_2 = [3, 0, 24, 40, 80, 160]
CHANNELS = [256, 128, 64, 32, 16]


def option(name: str) -> Callable[..., Decoder]:
    return instantiate(OmegaConf.load(CONF / f"{name}.yaml"))


def features(channels: list[int], height: int, width: int, batch: int = 2) -> list[torch.Tensor]:
    return [torch.rand(batch, c, height // 2**i, width // 2**i) for i, c in enumerate(channels)]


def test_there_are_seven() -> None:
    assert OPTIONS == ["deeplabv3plus", "fpn", "segformer", "unet", "unet_small", "unetplusplus", "upernet"]


@pytest.mark.parametrize("channels", [CONVOLUTIONAL, WITHOUT_STRIDE_2], ids=["stride2", "no_stride2"])
@pytest.mark.parametrize("name", OPTIONS)
def test_output_has_the_promised_channels_and_stride(name: str, channels: list[int]) -> None:
    decoder = option(name)(encoder_channels=channels)
    decoded = decoder(features(channels, 64, 96))
    assert decoded.shape == (2, decoder.out_channels, 64 // decoder.stride, 96 // decoder.stride)
    decoded.square().mean().backward()
    assert [key for key, p in decoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", OPTIONS)
def test_batch_of_one_can_be_trained(name: str) -> None:
    decoder = option(name)(encoder_channels=CONVOLUTIONAL).train()
    assert torch.isfinite(decoder(features(CONVOLUTIONAL, 64, 64, batch=1))).all()


@pytest.mark.parametrize("name", OPTIONS)
def test_features_are_not_changed(name: str) -> None:
    given = features(CONVOLUTIONAL, 64, 64)
    before = [feature.clone() for feature in given]
    option(name)(encoder_channels=CONVOLUTIONAL)(given)
    assert len(given) == len(before)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


@pytest.mark.parametrize("encoder", ["tu-test_convnext", "tu-test_resnet"])
@pytest.mark.parametrize(
    ("ours", "peer"),
    [
        (partial(unet, channels=CHANNELS, interpolation="nearest"), smp.Unet),
        (partial(unetplusplus, channels=CHANNELS, interpolation="nearest"), smp.UnetPlusPlus),
        (
            partial(unet, channels=CHANNELS, interpolation="bilinear"),
            partial(smp.Unet, decoder_interpolation="bilinear"),
        ),
        (
            partial(unet, channels=CHANNELS, interpolation="nearest", attention="scse"),
            partial(smp.Unet, decoder_attention_type="scse"),
        ),
        (
            partial(unetplusplus, channels=CHANNELS, interpolation="nearest", attention="scse"),
            partial(smp.UnetPlusPlus, decoder_attention_type="scse"),
        ),
    ],
    ids=["unet", "unetplusplus", "bilinear", "unet_scse", "unetplusplus_scse"],
)
def test_same_numbers_as_smp(ours: Callable[..., Decoder], peer: Callable[..., torch.nn.Module], encoder: str) -> None:
    model = peer(encoder, encoder_weights=None).eval()
    decoder = ours(encoder_channels=model.encoder.out_channels).eval()
    unused = ("blocks.4.attention1", "blocks.x_0_4.attention1")  # of a skip that the last block does not have
    called = [value for name, value in model.decoder.state_dict().items() if not name.startswith(unused)]
    copied = zip(decoder.state_dict().values(), called, strict=True)
    for own, theirs in copied:
        own.copy_(theirs)
    with torch.inference_mode():
        pyramid = model.encoder(torch.rand(1, 3, 64, 64))
        assert torch.allclose(decoder(pyramid), model.decoder(pyramid), atol=1e-5)


@pytest.mark.parametrize("channels", [CONVOLUTIONAL, WITHOUT_STRIDE_2], ids=["stride2", "no_stride2"])
@pytest.mark.parametrize("name", ["unet", "unetplusplus"])
def test_all_of_the_attention_learns(name: str, channels: list[int]) -> None:
    plain, decoder = (option(name)(encoder_channels=channels, attention=word) for word in (None, "scse"))
    decoder(features(channels, 64, 96)).square().mean().backward()
    assert [key for key, p in decoder.named_parameters() if p.grad is None] == []
    assert len(list(decoder.parameters())) > len(list(plain.parameters()))


@pytest.mark.parametrize(
    ("make", "encoder_channels", "channels", "attention", "message"),
    [
        (unetplusplus, CONVOLUTIONAL, CHANNELS, "cbam", "should be null or scse. Found `decoder.attention = cbam`"),
        (unet, CONVOLUTIONAL, CHANNELS, "cbam", "should be null or scse"),
        (unet, CONVOLUTIONAL, [256, 128, 64, 32, 8], "scse", "at least 16 channels. Found 8"),
        (unetplusplus, [3, 8, 24, 40, 80, 160], CHANNELS, "scse", "at least 16 channels. Found 8"),
    ],
)
def test_attention_that_cannot_be(
    make: Callable[..., Decoder], encoder_channels: list[int], channels: list[int], attention: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(encoder_channels, channels=channels, interpolation="nearest", attention=attention)


@pytest.mark.parametrize("name", ["unet", "unetplusplus"])
def test_channels_last_survives_the_stride_without_features(name: str) -> None:
    decoder = option(name)(encoder_channels=WITHOUT_STRIDE_2).to(memory_format=torch.channels_last)
    given = [f.contiguous(memory_format=torch.channels_last) for f in features(WITHOUT_STRIDE_2, 64, 64)]
    layouts = []
    for block in decoder.body.modules():
        if isinstance(block, torch.nn.Conv2d):
            block.register_forward_pre_hook(
                lambda _, inputs: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
            )
    decoder(given)
    assert layouts
    assert all(layouts)


def test_deeplabv3plus_looks_at_strides_4_16_and_32() -> None:
    decoder = deeplabv3plus(CONVOLUTIONAL, channels=32, skip_channels=24, rates=[6, 12, 18], dropout=0.5).eval()
    rates = [conv[0][0].dilation for conv in list(decoder.body.aspp[0].convs)[1:4]]
    assert rates == [(6, 6), (12, 12), (18, 18)]
    assert decoder.body.block1[0].out_channels == 24
    assert looked_at(decoder) == [False, False, True, False, True, True]


def test_segformer_looks_at_strides_4_to_32() -> None:
    assert looked_at(segformer(CONVOLUTIONAL, channels=32).eval()) == [False, False, True, True, True, True]


def test_upernet_pools_to_one_two_three_and_six() -> None:
    decoder = upernet(CONVOLUTIONAL, channels=32).eval()
    assert [block[0].output_size for block in decoder.body.psp.blocks] == [1, 2, 3, 6]
    assert looked_at(decoder) == [False, False, True, True, True, True]


def looked_at(decoder: Decoder) -> list[bool]:
    given = [feature.requires_grad_() for feature in features(CONVOLUTIONAL, 64, 64)]
    decoder(given).square().sum().backward()
    return [feature.grad is not None and bool(feature.grad.abs().sum() > 0) for feature in given]


@pytest.mark.parametrize("make", [unet, unetplusplus])
def test_wrong_number_of_blocks(make: Callable[..., Decoder]) -> None:
    with pytest.raises(ConfigError, match="should have 5 entries"):
        make(CONVOLUTIONAL, channels=[64, 32, 16], interpolation="nearest")


def test_dropout_acts_in_training_on_whole_channels_of_the_fused_map() -> None:
    torch.manual_seed(0)
    decoder, given = segformer(CONVOLUTIONAL, channels=256, dropout=0.5), features(CONVOLUTIONAL, 64, 64)
    plain = segformer(CONVOLUTIONAL, channels=256)
    plain.load_state_dict(decoder.state_dict())  # no parameter of its own
    decoder.eval(), plain.eval()
    torch.testing.assert_close(decoder(given), plain(given))
    decoder.train(), plain.train()
    kept = decoder(given).flatten(2).abs().amax(2) > 0
    alive = plain(given).flatten(2).abs().amax(2) > 0
    assert 0.4 < (kept.sum() / alive.sum()).item() < 0.6
    assert option("segformer")(encoder_channels=CONVOLUTIONAL).dropout.p == 0.1


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_dropout_out_of_its_range(dropout: float) -> None:
    with pytest.raises(ConfigError, match=r"`decoder.dropout` should be in \[0, 1\)"):
        segformer(CONVOLUTIONAL, channels=32, dropout=dropout)


# Multitask decoders.


HEADS = ("genus", "health", "fish")


def pyramid(channels: Sequence[int] = CONVOLUTIONAL, size: tuple[int, int] = (64, 96)) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.rand(2, c, size[0] // 2**i, size[1] // 2**i) for i, c in enumerate(channels)]


def made(primary: Any = "all", heads: Sequence[str] = HEADS, **changed: Any) -> MultitaskDecoder:
    given = {"width": 16, "num_heads": 4, "context_stride": 32, "encoder_channels": CONVOLUTIONAL} | changed
    torch.manual_seed(0)
    return hierarchical(heads=heads, primary=primary, **given)


MAKERS: dict[str, Callable[..., MultitaskDecoder]] = {
    "holistic": made,
    "focused": partial(made, ["genus", "health"]),
    "one primary": partial(made, ["fish"]),
    "one head": partial(made, "all", ["genus"]),
    "multihead": lambda **changed: multihead(changed.get("encoder_channels", CONVOLUTIONAL), HEADS, width=16),
}


def test_the_fusion_is_the_stacked_one_of_segformer() -> None:
    fusion = StageFusion(CONVOLUTIONAL, 16).eval()
    peer = SegformerDecoder([3, 0, *CONVOLUTIONAL[2:]], 5, 16).eval()
    for project, mlp in zip(fusion.project, reversed(peer.mlp_stage), strict=True):
        mlp.linear.weight.data.copy_(project.weight.flatten(1))
        mlp.linear.bias.data.zero_()  # the batch norm behind the fusion takes any constant away
    blocks = fusion.fuse.weight.chunk(4, dim=1)
    peer.fuse_stage[0].weight.data.copy_(torch.cat(blocks[::-1], dim=1))  # smp stacks the deepest stage first
    given = pyramid()
    torch.testing.assert_close(fusion(given), peer([given[0], given[0][:, :0], *given[2:]]))


@pytest.mark.parametrize("channels", [CONVOLUTIONAL, WITHOUT_STRIDE_2], ids=["stride2", "no_stride2"])
@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_promised_shapes_and_a_gradient_for_every_parameter(kind: str, channels: list[int]) -> None:
    decoder = MAKERS[kind](encoder_channels=channels)
    decoded = decoder(pyramid(channels))
    assert list(decoded) == list(decoder.out_channels)
    for head, each in decoded.items():
        assert each.shape == (2, decoder.out_channels[head], 16, 24)
    torch.stack([each.square().mean() for each in decoded.values()]).sum().backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("size", [(32, 32), (32, 160), (96, 224)])
@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_odd_numbers_of_tokens(size: tuple[int, int], stride: int) -> None:
    decoded = made(context_stride=stride)(pyramid(size=size))
    assert {tuple(each.shape[2:]) for each in decoded.values()} == {(size[0] // 4, size[1] // 4)}


def test_primary_heads_are_full_and_auxiliary_ones_light() -> None:
    decoder = made(["genus", "health"])
    assert decoder.out_channels == {"genus": 16, "health": 16, "fish": 4}
    assert list(decoder.exchange) == ["genus", "health"]
    assert {name: len(list(branch.parameters())) for name, branch in decoder.branches.items()} == {
        "genus": 6, "health": 6, "fish": 3,
    }  # fmt: skip


def reads(decoder: MultitaskDecoder, head: str) -> set[str]:
    """The heads whose branch the output of one head depends on."""
    decoder.zero_grad()
    decoder(pyramid())[head].square().sum().backward()
    return {name for name, branch in decoder.branches.items() if any(p.grad is not None for p in branch.parameters())}


def test_a_primary_head_reads_all_others_and_an_auxiliary_one_none() -> None:
    decoder = made(["genus", "health"])
    assert reads(decoder, "genus") == reads(decoder, "health") == set(HEADS)
    assert reads(decoder, "fish") == {"fish"}
    assert reads(multihead(CONVOLUTIONAL, HEADS, width=16), "genus") == {"genus"}


def test_one_head_has_nothing_to_attend_to() -> None:
    decoder = made("all", ["genus"])
    assert len(decoder.exchange) == 0
    assert not any("exchange" in name for name, _ in decoder.named_parameters())


def test_only_strides_4_to_32_are_read() -> None:
    given = [each.requires_grad_() for each in pyramid()]
    torch.stack([each.square().sum() for each in made()(given).values()]).sum().backward()
    assert [each.grad is not None for each in given] == [False, False, True, True, True, True]


@pytest.mark.parametrize("primary", [[], ["coral"], ["genus", "genus"], ["genus", "all"]])
def test_primary_heads_that_cannot_be(primary: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"`decoder\.primary` should be all, or different heads of"):
        made(primary)


def test_other_arguments_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="context_stride = 12"):
        made(context_stride=12)
    with pytest.raises(ConfigError, match="num_heads = 5"):
        made(num_heads=5)


@pytest.mark.parametrize("make", [made, lambda **more: multihead(CONVOLUTIONAL, HEADS, width=16, **more)])
def test_dropout_of_the_fused_map(make: Callable[..., MultitaskDecoder]) -> None:
    given, decoder = pyramid(), make(dropout=0.5)
    assert isinstance(decoder.fusion.dropout, torch.nn.Dropout2d)
    plain = make()
    plain.load_state_dict(decoder.state_dict())
    for head, expected in plain.eval()(given).items():
        torch.testing.assert_close(decoder.eval()(given)[head], expected)
    fused = decoder.train().fusion(given)
    assert (fused.flatten(2).abs().amax(2) == 0).any()
    with pytest.raises(ConfigError, match=r"`decoder.dropout` should be in \[0, 1\)"):
        make(dropout=1.0)
