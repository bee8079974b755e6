"""Attention: in encoders, and between the decoders of several tasks."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from hsl.errors import ConfigError
from hsl.models.cbam import CBAM, ChannelAttention, SpatialAttention
from hsl.models.encoders import Encoder, build_encoder
from hsl.models.multitask_decoders import TaskAttention, pool
from hsl.models.network import checkpoint_gradients

NORMALIZATION = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
NAMES = ["test_convnext", "test_efficientnet", "test_resnet", "mobilenetv3_small_050", "tu-densenet121"]
TAKEN_BY_HOOKS = ["tu-xception41", "legacy_xception"]  # by timm, with the network rewritten and as it is
A_LIST_PER_STAGE = ["selecsls42"]
OUT_OF_REACH = ["coat_tiny", "hrnet_w18_small"]


def build(name: str = "test_convnext", weights: str | None = None, **options: object) -> Encoder:
    torch.manual_seed(0)
    return build_encoder(name, weights=weights, normalization=NORMALIZATION, **options).eval()  # type: ignore[arg-type]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_channel_attention_by_hand() -> None:
    torch.manual_seed(0)
    channels, hidden, height, width = 4, 2, 2, 3
    block, x = ChannelAttention(channels, reduction=2), torch.randn(2, channels, height, width)
    first = block.mlp[0].weight.flatten(1).tolist()  # type: ignore[operator,union-attr]
    second = block.mlp[2].weight.flatten(1).tolist()  # type: ignore[operator,union-attr]

    def mlp(pooled: list[float]) -> list[float]:
        inner = [max(sum(first[j][c] * pooled[c] for c in range(channels)), 0.0) for j in range(hidden)]
        return [sum(second[c][j] * inner[j] for j in range(hidden)) for c in range(channels)]

    y = block(x)
    for b in range(2):
        maps = [x[b, c].flatten().tolist() for c in range(channels)]
        mean, strongest = mlp([sum(m) / len(m) for m in maps]), mlp([max(m) for m in maps])
        for c in range(channels):
            expected = x[b, c] * sigmoid(mean[c] + strongest[c])
            torch.testing.assert_close(y[b, c], expected)


def test_spatial_attention_by_hand() -> None:
    torch.manual_seed(0)
    block, x = SpatialAttention(3), torch.randn(1, 3, 4, 5)
    kernel = block.convolution.weight[0].tolist()
    y = block(x)
    for row in range(4):
        for column in range(5):
            total = 0.0
            for i in range(3):
                for j in range(3):
                    r, s = row + i - 1, column + j - 1
                    if 0 <= r < 4 and 0 <= s < 5:
                        there = x[0, :, r, s].tolist()
                        total += kernel[0][i][j] * sum(there) / 3 + kernel[1][i][j] * max(there)
            torch.testing.assert_close(y[0, :, row, column], x[0, :, row, column] * sigmoid(total))


def test_cbam_is_one_after_the_other_and_all_of_it_learns() -> None:
    torch.manual_seed(0)
    block, x = CBAM(32), torch.randn(2, 32, 5, 9, requires_grad=True)
    y = block(x)
    torch.testing.assert_close(y, block.spatial(block.channel(x)))
    y.square().sum().backward()
    for name, parameter in [*block.named_parameters(), ("x", x)]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    # 2 layers of 32 x 2, and 2 x 7 x 7
    assert sum(parameter.numel() for parameter in block.parameters()) == 2 * 32 * 2 + 98


def test_few_channels_and_an_even_kernel() -> None:
    assert ChannelAttention(5)(torch.ones(1, 5, 1, 1)).shape == (1, 5, 1, 1)
    with pytest.raises(ConfigError, match=r"`kernel_size` should be odd. Found `kernel_size = 4`"):
        SpatialAttention(4)


@pytest.mark.parametrize("name", [*NAMES, *TAKEN_BY_HOOKS, *A_LIST_PER_STAGE])
def test_the_features_of_a_stage_are_the_refined_ones_and_the_next_stage_reads_them(name: str) -> None:
    plain, refined = build(name), build(name, cbam_stages=[3])
    refined.body.load_state_dict(plain.body.state_dict(), strict=True)  # type: ignore[arg-type]
    assert refined.out_channels == plain.out_channels
    x = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        before, after = plain(x), refined(x)
        for level in range(4):  # to stride 8
            torch.testing.assert_close(after[level], before[level])
        torch.testing.assert_close(after[4], refined.cbam["3"](before[4]))
        assert after[5].shape == before[5].shape
        assert not torch.allclose(after[5], before[5])


@pytest.mark.parametrize("name", OUT_OF_REACH)
def test_where_stages_are_out_of_reach_what_is_returned_is_refined_and_a_warning_says_so(name: str) -> None:
    size = {"image_size": 64} if name == "coat_tiny" else {}
    plain = build(name, **size)
    with pytest.warns(UserWarning, match=rf"`{name}` at \[3\] for the decoder only.*Set it to \[4\]"):
        refined = build(name, cbam_stages=[4, 3], **size)
    nn.Module.load_state_dict(refined.body, plain.body.state_dict())
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        before, after = plain(x), refined(x)
    for level in range(4):
        torch.testing.assert_close(after[level], before[level])
    for stage in (3, 4):
        with torch.inference_mode():
            torch.testing.assert_close(after[stage + 1], refined.cbam[str(stage)](before[stage + 1]))
        assert not torch.allclose(after[stage + 1], before[stage + 1])


@pytest.mark.parametrize("name", ["test_convnext", "mobilenetv3_small_050", *TAKEN_BY_HOOKS, *OUT_OF_REACH])
def test_the_last_stage_is_refined_and_learns(name: str) -> None:
    encoder = build(name, cbam_stages=[4], **({"image_size": 64} if name == "coat_tiny" else {})).train()
    encoder(torch.rand(2, 3, 64, 64))[5].square().sum().backward()
    for key, parameter in encoder.cbam.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


def test_channels_last_as_in_swin() -> None:
    options = {"image_size": 64, "strict_img_size": False}
    plain = build("swin_tiny_patch4_window7_224", **options)
    refined = build("swin_tiny_patch4_window7_224", cbam_stages=[4], **options)
    nn.Module.load_state_dict(refined.body, plain.body.state_dict())
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(refined(x)[5], refined.cbam["4"](plain(x)[5]))


def test_gradients_reach_everything_also_through_checkpoints() -> None:
    x = torch.rand(2, 3, 64, 64)
    gradients = []
    for checkpointed in (False, True):
        encoder = build(cbam_stages=[3, 4])
        if checkpointed:
            checkpoint_gradients(encoder)
        encoder.train()(x)[5].square().mean().backward()
        for name, parameter in encoder.named_parameters():
            assert parameter.grad is not None, name
        gradients.append([parameter.grad for parameter in encoder.cbam.parameters()])
        assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients[-1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_copy_uses_its_own_attention() -> None:
    encoder, x = build(cbam_stages=[4]), torch.rand(1, 3, 64, 64)
    twin = copy.deepcopy(encoder)
    with torch.inference_mode():
        for parameter in encoder.cbam.parameters():
            parameter.zero_()
        assert torch.allclose(encoder(x)[5] / 0.25, build()(x)[5], atol=1e-5)  # both gates are sigmoid(0)
        assert not torch.allclose(encoder(x)[5], twin(x)[5])


def test_weights_load_into_the_body_and_the_attention_counts_as_random(tmp_path: Path) -> None:
    source = build()
    body = source.body.model.state_dict()  # type: ignore[union-attr,operator]
    path = tmp_path / "weights.pth"
    torch.save(
        {key.replace("stages_", "stages.").replace("stem_", "stem."): value for key, value in body.items()}, path
    )
    encoder = build(weights=str(path), cbam_stages=[4, 3])
    assert encoder.weights_used["source"] == "file:weights.pth"
    assert encoder.weights_used["missing"] == []
    number = sum(parameter.numel() for parameter in encoder.cbam.parameters())
    assert encoder.weights_used["cbam"] == {"stages": [3, 4], "source": "random", "parameters": number}
    assert number == sum(p.numel() for p in encoder.parameters()) - sum(p.numel() for p in source.parameters())
    for key, value in encoder.body.state_dict().items():
        torch.testing.assert_close(value, source.body.state_dict()[key])
    assert "cbam" not in source.weights_used
    assert not [key for key in source.state_dict() if "cbam" in key]


@pytest.mark.parametrize(
    ("name", "stages", "message"),
    [
        ("test_convnext", [5], r"should be different ones of \[1, 2, 3, 4\]. Found \[5\]"),
        ("test_convnext", [3, 3], r"Found \[3, 3\]"),
        ("mit_b0", [3], "not one of timm with stages"),
        ("resnet18", [3], "such as tu-resnet50 for resnet50"),
        ("test_vit", [3], "not one of timm with stages"),
    ],
)
def test_stages_that_cannot_be_refined(name: str, stages: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, cbam_stages=stages, image_size=160 if name == "test_vit" else None)


# Attention.


def made(channels: int = 8, context: tuple[int, ...] = (8, 4), num_heads: int = 2) -> TaskAttention:
    torch.manual_seed(0)
    return TaskAttention(channels, context, num_heads=num_heads)


def test_same_numbers_as_a_loop_over_heads_and_queries() -> None:
    module = made()
    own = torch.rand(2, 8, 6, 4)
    others = [torch.rand(2, 8, 3, 2), torch.rand(2, 4, 3, 2)]
    pooled = pool(own, 2)
    expected = torch.empty(2, 6, 8)
    gates = torch.empty(2, 6, 8)
    for b in range(2):
        tokens = pooled[b].flatten(1).T
        query = module.query(tokens)
        rows = [make(other[b].flatten(1).T) for make, other in zip(module.context, others, strict=True)]
        keys, values = torch.cat([row[:, :8] for row in rows]), torch.cat([row[:, 8:] for row in rows])
        for n in range(6):
            parts = []
            for head in (slice(0, 4), slice(4, 8)):
                scores = torch.stack([query[n, head] @ key[head] / math.sqrt(4) for key in keys])
                parts.append((scores.softmax(0)[:, None] * values[:, head]).sum(0))
            expected[b, n] = module.project(torch.cat(parts))
            gates[b, n] = torch.sigmoid(module.gate(torch.cat([tokens[n], expected[b, n]])))
    enlarge = nn.Upsample((6, 4), mode="bilinear")
    gate = enlarge(gates.transpose(1, 2).reshape(2, 8, 3, 2))
    part = enlarge((gates * expected).transpose(1, 2).reshape(2, 8, 3, 2))
    torch.testing.assert_close(module(own, pooled, others), own * (1 - gate) + part)


def test_a_closed_gate_leaves_the_task_alone_and_an_open_one_replaces_it() -> None:
    module, own = made(), torch.rand(1, 8, 4, 4)
    others = [torch.rand(1, 8, 2, 2), torch.rand(1, 4, 2, 2)]
    nn.init.zeros_(module.gate.weight)
    nn.init.constant_(module.gate.bias, -100)
    torch.testing.assert_close(module(own, pool(own, 2), others), own)
    nn.init.constant_(module.gate.bias, 100)
    opened = module(own, pool(own, 2), others)
    assert torch.equal(opened, module(own + 1, pool(own, 2), others))


def test_every_other_task_is_looked_at_and_every_parameter_reached() -> None:
    module = made()
    own = torch.rand(2, 8, 4, 4, requires_grad=True)
    others = [torch.rand(2, 8, 2, 2, requires_grad=True), torch.rand(2, 4, 2, 2, requires_grad=True)]
    module(own, pool(own, 2), others).square().sum().backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in (own, *others))
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_the_order_of_the_tokens_of_another_task_is_of_no_matter() -> None:
    module, own = made(), torch.rand(1, 8, 4, 4)
    first, second = torch.rand(1, 8, 2, 2), torch.rand(1, 4, 2, 2)
    turned = module(own, pool(own, 2), [first.flip(-1), second.flip(-2)])
    torch.testing.assert_close(module(own, pool(own, 2), [first, second]), turned)


def test_tokens_at_the_border_are_means_of_what_is_there() -> None:
    features = torch.arange(15.0).reshape(1, 1, 3, 5)
    assert pool(features, 2).flatten().tolist() == [3.0, 5.0, 6.5, 10.5, 12.5, 14.0]
    assert torch.equal(pool(features, 1), features)


@pytest.mark.parametrize("num_heads", [0, 3])
def test_heads_that_do_not_divide_the_channels(num_heads: int) -> None:
    with pytest.raises(ConfigError, match=rf"divide the 8 channels.*num_heads = {num_heads}"):
        made(num_heads=num_heads)
