"""Decoders with a branch for each head: hierarchical and context-aware, and its ablation without the exchange."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.base.initialization import initialize_decoder
from torch import Tensor, nn

from hsl.config.ranges import FractionBelowOne, PositiveInt
from hsl.errors import ConfigError
from hsl.models.decoders import dropout_of

STRIDE = 4


class TaskAttention(nn.Module):
    r"""Enriches the features of one task by those of all others, through cross-attention and a learned gate.

    .. math:: e = W\,\mathrm{softmax}(Q K^\top / \sqrt{d})\,V, \quad g = \sigma(G [q, e]), \quad
        y = (1 - g) \odot x + g \odot e

    The queries ``Q`` come from the task, keys ``K`` and values ``V`` from every other task. All three, and the gate,
    are computed at a pooled resolution, see `pool`. ``e`` and ``g`` are then upsampled, so whatever is finer than a
    token comes from ``x`` alone. Each other task has its own projection to keys and values. Source of the attention:
    Vaswani et al. 2017, "Attention Is All You Need", equation 1 and section 3.2.2 (several heads).

    Args:
        channels: channels of the task's map, a multiple of ``num_heads``.
        context_channels: channels of the map of each other task, at least one.
        num_heads: attention heads.

    Raises:
        ConfigError: the heads do not divide the channels.
    """

    def __init__(self, channels: int, context_channels: Sequence[int], *, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or channels % num_heads:
            raise ConfigError(
                f"`decoder.num_heads` should divide the {channels} channels. Found `decoder.num_heads = {num_heads}`."
            )
        self.num_heads = num_heads
        self.query = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, channels))
        self.context = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(given), nn.Linear(given, 2 * channels)) for given in context_channels
        )
        self.project = nn.Linear(channels, channels)
        self.gate = nn.Linear(2 * channels, channels)

    def forward(self, own: Tensor, pooled: Tensor, others: Sequence[Tensor]) -> Tensor:
        """Map ``(B, C, h, w)`` of the task, the same pooled, and the pooled maps of the others to ``(B, C, h, w)``."""
        tokens = _tokens(pooled)
        keys_values = torch.cat([make(_tokens(each)) for make, each in zip(self.context, others, strict=True)], dim=1)
        keys, values = keys_values.chunk(2, dim=-1)
        query, keys, values = (self._split(each) for each in (self.query(tokens), keys, values))
        attended = F.scaled_dot_product_attention(query, keys, values).transpose(1, 2).flatten(2)
        enriched = self.project(attended)
        gate = torch.sigmoid(self.gate(torch.cat([tokens, enriched], dim=-1)))
        mixed = torch.cat([gate, gate * enriched], dim=-1).transpose(1, 2)
        mixed = mixed.reshape(*mixed.shape[:2], *pooled.shape[-2:])
        gate, part = F.interpolate(mixed, own.shape[-2:], mode="bilinear", align_corners=False).chunk(2, dim=1)
        return own * (1 - gate) + part

    def _split(self, tokens: Tensor) -> Tensor:
        """``(B, N, C)`` to ``(B, heads, N, C / heads)``."""
        return tokens.reshape(*tokens.shape[:2], self.num_heads, -1).transpose(1, 2)


def pool(features: Tensor, side: int) -> Tensor:
    """Mean over each token, ``side`` x ``side`` pixels of the map; at the border a token may have fewer."""
    return F.avg_pool2d(features, side, ceil_mode=True, count_include_pad=False)


def _tokens(features: Tensor) -> Tensor:
    return features.flatten(2).transpose(1, 2)


class StageFusion(nn.Module):
    """The encoder's features at strides 4 to 32, projected to one width, upsampled to stride 4, stacked, fused.

    The all-MLP decoder of Xie et al. 2021, "SegFormer", section 3.2. The fusion is a linear map of the stack, so
    its block for each stage is applied before the upsampling and the results are summed: the same numbers, without
    the stack of four maps at stride 4.

    Args:
        encoder_channels: channels at strides 1, 2, 4, 8, 16, 32; the first two are not used.
        width: channels of the result.
        dropout: share of its channels that are dropped in training, in [0, 1).

    Raises:
        ConfigError: `dropout` is out of its range.
    """

    def __init__(self, encoder_channels: Sequence[int], width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(channels, width, 1, bias=False) for channels in encoder_channels[2:])
        self.fuse = nn.Conv2d(len(self.project) * width, width, 1, bias=False)
        self.normalize = nn.BatchNorm2d(width)
        self.dropout = dropout_of(dropout)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features at strides 1 to 32 to ``(B, width, H / 4, W / 4)``."""
        stages = features[2:]
        blocks = self.fuse.weight.chunk(len(stages), dim=1)
        fused = [F.conv2d(project(x), block) for project, x, block in zip(self.project, stages, blocks, strict=True)]
        size = stages[0].shape[-2:]
        total = fused[0]
        for each in fused[1:]:
            total = total + F.interpolate(each, size, mode="bilinear", align_corners=False)
        fused_map: Tensor = self.dropout(F.relu(self.normalize(total)))
        return fused_map


class MultitaskDecoder(nn.Module):
    """One fused map, a branch of its own for every head, and an exchange between them for some.

    Attributes:
        out_channels: channels of the map of each head.
        stride: pixels of the picture per pixel of the maps.

    Args:
        fusion: makes the map that all branches read.
        branches: by head.
        exchange: by head what enriches it by the maps of all other heads; a head without one keeps its own.
        out_channels: by head.
        pooling: side of an attention token in pixels of the maps.
    """

    stride = STRIDE

    def __init__(
        self,
        fusion: nn.Module,
        branches: Mapping[str, nn.Module],
        exchange: Mapping[str, TaskAttention],
        out_channels: Mapping[str, int],
        pooling: int,
    ) -> None:
        super().__init__()
        self.fusion = fusion
        self.branches = nn.ModuleDict(dict(branches))
        self.exchange = nn.ModuleDict(dict(exchange))
        self.pooling = pooling
        self.out_channels = dict(out_channels)
        initialize_decoder(self)

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Features at strides 1 to 32 to a map ``(B, out_channels[head], H / 4, W / 4)`` for every head."""
        fused = self.fusion(features)
        maps: dict[str, Tensor] = {head: branch(fused) for head, branch in self.branches.items()}
        if not self.exchange:
            return maps
        context = {head: pool(each, self.pooling) for head, each in maps.items()}
        return {
            head: self.exchange[head](own, context[head], [each for other, each in context.items() if other != head])
            if head in self.exchange
            else own
            for head, own in maps.items()
        }


def hierarchical(
    encoder_channels: Sequence[int],
    heads: Sequence[str],
    *,
    primary: Sequence[str] | Literal["all"],
    width: PositiveInt,
    num_heads: PositiveInt,
    context_stride: PositiveInt,
    dropout: FractionBelowOne = 0.0,
) -> MultitaskDecoder:
    """Primary heads with a full MLP decoder that reads the other heads by cross-attention, auxiliary ones light.

    A primary head has a perceptron of two layers per pixel and a `TaskAttention` over all other heads; an auxiliary
    head has one layer of a quarter of the width. With one head only there is nothing to attend to.

    Args:
        encoder_channels: channels at strides 1, 2, 4, 8, 16, 32.
        heads: names of all heads.
        primary: names of the primary ones, at least one, or ``all``.
        width: channels of the fused map and of the primary heads, a multiple of 4 and of ``num_heads``.
        num_heads: attention heads.
        context_stride: side of an attention token in pixels of the picture: 4, 8, 16 or 32.
        dropout: share of the channels of the fused map that are dropped in training, in [0, 1).

    Raises:
        ConfigError: a name is no head or stands twice, none is given, or a number is out of its range.
    """
    chosen = list(heads) if primary == "all" else list(primary)
    unknown = [name for name in chosen if name not in heads]
    if unknown or not chosen or len(set(chosen)) < len(chosen):
        raise ConfigError(
            f"`decoder.primary` should be all, or different heads of {list(heads)}, at least one. "
            f"Found `decoder.primary = {primary if primary == 'all' else chosen}`."
        )
    if context_stride not in (4, 8, 16, 32):
        raise ConfigError(
            f"`decoder.context_stride` should be 4, 8, 16 or 32. Found `decoder.context_stride = {context_stride}`."
        )
    out_channels = {head: width if head in chosen else max(1, width // 4) for head in heads}
    branches = {head: _full(width) if head in chosen else _layer(width, out_channels[head]) for head in heads}
    exchange = {
        head: TaskAttention(
            width,
            [channels for other, channels in out_channels.items() if other != head],
            num_heads=num_heads,
        )
        for head in chosen
        if len(heads) > 1
    }
    return MultitaskDecoder(
        StageFusion(encoder_channels, width, dropout), branches, exchange, out_channels, context_stride // STRIDE
    )


def multihead(
    encoder_channels: Sequence[int], heads: Sequence[str], *, width: PositiveInt, dropout: FractionBelowOne = 0.0
) -> MultitaskDecoder:
    """The ablation of `hierarchical`: every head primary, and none learns of another.

    Args:
        encoder_channels: channels at strides 1, 2, 4, 8, 16, 32.
        heads: names of all heads.
        width: channels of the fused map and of every head.
        dropout: share of the channels of the fused map that are dropped in training, in [0, 1).
    """
    branches = {head: _full(width) for head in heads}
    fusion = StageFusion(encoder_channels, width, dropout)
    return MultitaskDecoder(fusion, branches, {}, dict.fromkeys(heads, width), pooling=1)


def _full(width: int) -> nn.Module:
    return nn.Sequential(*_layer(width, width), *_layer(width, width))


def _layer(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
    )
