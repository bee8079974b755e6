"""A pyramid of features for transformers that work at one scale from the first block to the last."""

import itertools
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from hsl.errors import ConfigError

STRIDES = (4, 8, 16, 32)


class PlainPyramid(nn.Module):
    """Four depths of a plain transformer, brought to strides 4, 8, 16 and 32.

    The tokens after each quarter of the blocks are normalised, projected by a 1 x 1 convolution to a quarter, a half,
    and twice all of the transformer's channels, and then resampled from the stride of its patches: finer by a
    transposed convolution, coarser by a convolution, both as wide as their step. Early blocks feed the fine levels.
    A strided convolution adds each level to the next coarser one, so that, as in a convolutional network, whoever reads
    the deepest features alone trains everything. It starts at zero: the pretrained tokens are what is seen at first.

    Source: Ranftl et al. 2021, "Vision Transformers for Dense Prediction", section 3.1 (four depths, transposed
    convolutions), and Liu et al. 2018, "Path Aggregation Network", section 3.1 (from fine to coarse). There are no
    features at stride 2.

    Args:
        backbone: timm's ``features_only`` transformer with four outputs, all at the stride of its patches.

    Raises:
        ConfigError: the patches are no power of two between 4 and 32 pixels wide.

    Example:
        >>> pyramid = build_plain_pyramid("test_vit", {"dynamic_img_size": True})
        >>> [tuple(feature.shape) for feature in pyramid(torch.zeros(1, 3, 64, 96))][2:]
        [(1, 16, 16, 24), (1, 32, 8, 12), (1, 64, 4, 6), (1, 64, 2, 3)]
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        info: Any = backbone.feature_info
        (patch,), (width,) = set(info.reduction()), set(info.channels())
        if patch not in STRIDES:
            raise ConfigError(
                f"A plain transformer should have patches of 4, 8, 16 or 32 pixels. Found {patch}. "
                "Choose one with patches of 16."
            )
        widths = [width // 4, width // 2, width, width]
        self.model = backbone
        self.levels = nn.ModuleList(
            nn.Sequential(LayerNorm2d(width), nn.Conv2d(width, out, 1), _resampling(out, patch, stride))
            for out, stride in zip(widths, STRIDES, strict=True)
        )
        self.downwards = nn.ModuleList(_from_zero(nn.Conv2d(*pair, 2, 2)) for pair in itertools.pairwise(widths))
        self.out_channels = [3, 0, *widths]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Picture ``(B, 3, H, W)`` to features at strides 1, 2 (no channels), 4, 8, 16 and 32."""
        batch, _, height, width = image.shape
        features = [level(tokens) for level, tokens in zip(self.levels, self.model(image), strict=True)]
        for i, downward in enumerate(self.downwards):
            features[i + 1] = features[i + 1] + downward(features[i])
        return [image, image.new_empty(batch, 0, height // 2, width // 2), *features]


def build_plain_pyramid(architecture: str, options: Mapping[str, Any]) -> PlainPyramid | None:
    """The pyramid of a timm transformer of one scale; ``None`` for an architecture that has several itself.

    Args:
        architecture: timm's name.
        options: further arguments of ``timm.create_model``.
    """
    with torch.device("meta"):
        probe: Any = timm.create_model(architecture, features_only=True, **options)
    if len(set(probe.feature_info.reduction())) > 1:
        return None
    depth = len(probe.model.feature_info)
    quarters = [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
    return PlainPyramid(timm.create_model(architecture, features_only=True, out_indices=quarters, **options))


def _resampling(channels: int, patch: int, stride: int) -> nn.Module:
    if patch > stride:
        return nn.ConvTranspose2d(channels, channels, patch // stride, patch // stride)
    return nn.Conv2d(channels, channels, stride // patch, stride // patch) if stride > patch else nn.Identity()


def _from_zero(convolution: nn.Conv2d) -> nn.Conv2d:
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)
    return convolution
