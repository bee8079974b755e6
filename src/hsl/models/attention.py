"""Attention between tasks: what one task may learn of the features of the others."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hsl.errors import ConfigError


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
