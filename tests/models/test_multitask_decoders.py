from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder

from hsl.errors import ConfigError
from hsl.models.multitask_decoders import MultitaskDecoder, StageFusion, hierarchical, multihead

CONVOLUTIONAL = [3, 16, 24, 40, 80, 160]
WITHOUT_STRIDE_2 = [3, 0, 24, 40, 80, 160]
HEADS = ("genus", "health", "fish")


def features(channels: Sequence[int] = CONVOLUTIONAL, size: tuple[int, int] = (64, 96)) -> list[torch.Tensor]:
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
    given = features()
    torch.testing.assert_close(fusion(given), peer([given[0], given[0][:, :0], *given[2:]]))


@pytest.mark.parametrize("channels", [CONVOLUTIONAL, WITHOUT_STRIDE_2], ids=["stride2", "no_stride2"])
@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_promised_shapes_and_a_gradient_for_every_parameter(kind: str, channels: list[int]) -> None:
    decoder = MAKERS[kind](encoder_channels=channels)
    decoded = decoder(features(channels))
    assert list(decoded) == list(decoder.out_channels)
    for head, each in decoded.items():
        assert each.shape == (2, decoder.out_channels[head], 16, 24)
    torch.stack([each.square().mean() for each in decoded.values()]).sum().backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("size", [(32, 32), (32, 160), (96, 224)])
@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_odd_numbers_of_tokens(size: tuple[int, int], stride: int) -> None:
    decoded = made(context_stride=stride)(features(size=size))
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
    decoder(features())[head].square().sum().backward()
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
    given = [each.requires_grad_() for each in features()]
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
    given, decoder = features(), make(dropout=0.5)
    assert isinstance(decoder.fusion.dropout, torch.nn.Dropout2d)
    plain = make()
    plain.load_state_dict(decoder.state_dict())
    for head, expected in plain.eval()(given).items():
        torch.testing.assert_close(decoder.eval()(given)[head], expected)
    fused = decoder.train().fusion(given)
    assert (fused.flatten(2).abs().amax(2) == 0).any()
    with pytest.raises(ConfigError, match=r"`decoder.dropout` should be in \[0, 1\)"):
        make(dropout=1.0)
