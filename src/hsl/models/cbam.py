"""CBAM: attention over channels, then over places, between the stages of an encoder.

Source: Woo, Park, Lee, Kweon 2018, "CBAM: Convolutional Block Attention Module".
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.models import FeatureHookNet, FeatureListNet
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import Tensor, nn

from hsl.errors import ConfigError
from hsl.models.plain_pyramid import PlainPyramid

STAGES = (1, 2, 3, 4)
"""Stage s has its features at stride 2^(s + 1)."""

STAGE_BY_STAGE = (FeatureListNet, FeatureHookNet, EfficientNetFeatures, MobileNetV3Features)
"""Networks of timm that call a stage's module, return what it puts out, and hand the same on to the next stage."""


class ChannelAttention(nn.Module):
    r"""Weighs the channels of a map by what they are like on average and at their strongest.

    .. math:: y = x \odot \sigma(W_1\,\mathrm{ReLU}(W_0\,\mathrm{mean}(x)) + W_1\,\mathrm{ReLU}(W_0\,\max(x)))

    Mean and maximum over all places; both go through the same two layers, which have no bias. Source: equation 2.

    Args:
        channels: of the map.
        reduction: the hidden layer has ``channels / reduction`` units, at least one.

    Example:
        >>> sum(p.numel() for p in ChannelAttention(64).parameters())
        512
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.ReLU(), nn.Conv2d(hidden, channels, 1, bias=False)
        )

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        mean, strongest = features.mean((2, 3), keepdim=True), features.amax((2, 3), keepdim=True)
        return features * torch.sigmoid(self.mlp(mean) + self.mlp(strongest))


class SpatialAttention(nn.Module):
    r"""Weighs the places of a map by a convolution over the mean and the maximum of their channels.

    .. math:: y = x \odot \sigma(f([\mathrm{mean}_c(x), \max_c(x)]))

    Source: equation 3; the borders are padded by zeros.

    Args:
        kernel_size: side of the convolution ``f``, odd.

    Raises:
        ConfigError: the side is even.
    """

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ConfigError(f"`kernel_size` should be odd. Found `kernel_size = {kernel_size}`. Take 3 or 7.")
        self.convolution = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        summary = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], dim=1)
        return features * torch.sigmoid(self.convolution(summary))


class CBAM(nn.Module):
    """Channel attention, then spatial attention.

    Args:
        channels: of the map.
        reduction: of `ChannelAttention`.
        kernel_size: of `SpatialAttention`.

    Example:
        >>> CBAM(32)(torch.zeros(2, 32, 5, 9)).shape
        torch.Size([2, 32, 5, 9])
    """

    def __init__(self, channels: int, reduction: int = 16, kernel_size: int = 7) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels, reduction)
        self.spatial = SpatialAttention(kernel_size)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        refined: Tensor = self.spatial(self.channel(features))
        return refined


@dataclass(frozen=True, eq=False)
class _Refine:
    """A forward hook that replaces what a stage puts out. An object, so that a copy of the network uses its own."""

    block: nn.Module
    channels_last: bool

    def __call__(self, _stage: nn.Module, _inputs: tuple[Any, ...], features: Any) -> Any:
        if isinstance(features, list | tuple):  # such as SelecSLS: the features, and a shortcut for the next stage
            return type(features)([self._refined(features[0]), *features[1:]])
        return self._refined(features)

    def _refined(self, features: Tensor) -> Tensor:
        if self.channels_last:
            refined: Tensor = self.block(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            return refined
        refined = self.block(features)
        return refined


@dataclass(frozen=True, eq=False)
class _RefineReturned:
    """A forward hook that replaces one of the features that a network returns."""

    refine: _Refine
    index: int

    def __call__(self, network: nn.Module, inputs: tuple[Any, ...], features: Sequence[Tensor]) -> list[Tensor]:
        refined = list(features)
        refined[self.index] = self.refine(network, inputs, refined[self.index])
        return refined


def refine_stages(body: nn.Module, stages: Sequence[int]) -> nn.ModuleDict:
    """Put a CBAM behind some stages of an encoder.

    It works inside the network where timm runs the stages one by one: the later stages, and everyone who reads the
    features of this one, see the refined map. Where timm's network runs them itself (Hiera, MViT, Twins, CoaT, HRNet,
    ...), only the features that it returns are refined, and the later stages read the plain map; a warning says so.
    The names of the body's parameters stay, so that weights fit with and without CBAM.

    Args:
        body: An encoder of timm with stages as smp wraps it; changed in place.
        stages: Some of 1 to 4; the features of stage s are those at stride 2^(s + 1).

    Returns:
        The blocks by their stage, with random weights. Whoever holds the body has to hold them too.

    Raises:
        ConfigError: A stage is none of 1 to 4, stands there twice, or the encoder is not one of timm with stages.
    """
    if len(set(stages)) < len(stages) or not set(stages) <= set(STAGES):
        raise ConfigError(
            f"`encoder.cbam_stages` should be different ones of {list(STAGES)}. Found {list(stages)}. "
            "The usual choice is [3, 4]."
        )
    if not stages:
        return nn.ModuleDict()
    network: Any = getattr(body, "model", None)
    if isinstance(body, PlainPyramid) or not hasattr(network, "feature_info"):
        raise ConfigError(
            "`encoder.cbam_stages` should be null for an encoder that is not one of timm with stages. "
            f"Found {list(stages)}. Choose one of timm, such as tu-resnet50 for resnet50, or set it to null."
        )
    levels = network.feature_info.get_dicts()
    channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
    blocks = nn.ModuleDict()
    returned_only = []
    for stage in stages:
        index = len(levels) - len(STAGES) + stage - 1  # the last four levels are strides 4 to 32
        block = blocks[str(stage)] = CBAM(levels[index]["num_chs"])
        refine = _Refine(block, channels_last)
        module = _stage(network, levels[index])
        if module is None:
            network.register_forward_hook(_RefineReturned(refine, index))
            returned_only += [stage] if stage < STAGES[-1] else []
        else:
            module.register_forward_hook(refine, prepend=True)  # before a hook by which timm takes the features
    if returned_only:
        warnings.warn(
            f"`encoder.cbam_stages` refines the features of `{body.name}` at {sorted(returned_only)} for the decoder "
            "only: this encoder runs its stages out of reach, so the later ones, and a head that reads the last one "
            "alone, see the plain map. Set it to [4], or choose an encoder such as tu-convnext_tiny.",
            stacklevel=3,
        )
    return blocks


def _stage(network: nn.Module, level: dict[str, Any]) -> nn.Module | None:
    """The module that puts out the features of a level, where these are known to be both returned and read on."""
    if not isinstance(network, STAGE_BY_STAGE) or level.get("hook_type") == "forward_pre":
        return None
    modules, name = dict(network.named_modules()), level["module"]
    # timm's networks of a flat list have `stages_2` for `stages.2`; those it leaves as they are stand under `body`
    return next((modules[n] for n in (name, name.replace(".", "_", 1), f"body.{name}") if n in modules), None)
