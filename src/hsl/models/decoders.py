"""Decoders: from the pyramid of features to one map.

Each function takes the channels of the encoder's features at strides 1, 2, 4, 8, 16, 32 (0 where it has none)
and returns a `Decoder` around the module of segmentation_models_pytorch, with smp's initialisation.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder, SeparableConv2d
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from segmentation_models_pytorch.decoders.unetplusplus.decoder import UnetPlusPlusDecoder
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn

from hsl.config.ranges import FractionBelowOne, PositiveInt
from hsl.errors import ConfigError

Features = list[Tensor]
SCSE_REDUCTION = 16
"""smp's scSE has a hidden layer of a sixteenth of the channels."""


class Decoder(nn.Module):
    """A decoder of smp that knows its output.

    Args:
        body: smp's module, from features to a map.
        out_channels: channels of the map.
        stride: pixels of the picture per pixel of the map.
        select: what the body sees of the features.
        dropout: share of the channels of the map that are dropped in training, in [0, 1).

    Raises:
        ConfigError: `dropout` is out of its range.
    """

    def __init__(
        self,
        body: nn.Module,
        out_channels: int,
        stride: int,
        select: Callable[[Features], Features] = list,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        initialize_decoder(body)
        self.body = body
        self.out_channels = out_channels
        self.stride = stride
        self.select = select
        self.dropout = dropout_of(dropout)

    def forward(self, features: Features) -> Tensor:
        """Features at strides 1 to 32 to ``(B, out_channels, H / stride, W / stride)``."""
        decoded: Tensor = self.dropout(self.body(self.select(features)))
        return decoded


def dropout_of(share: float) -> nn.Module:
    """Dropout of whole channels; nothing where the share is 0.

    Raises:
        ConfigError: the share is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise ConfigError(f"`decoder.dropout` should be in [0, 1). Found `decoder.dropout = {share}`. 0 turns it off.")
    return nn.Dropout2d(share) if share else nn.Identity()


class WithoutSkip(nn.Module):
    """A block at a stride where the encoder has no features.

    smp passes a tensor of zero channels there. Concatenating it copies the whole map and turns channels_last
    into the default memory layout for the convolution after it; so the block is called without it.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, *arguments: Tensor | int, skip_connection: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Upsample and convolve `x`; target sizes pass, tensors do not."""
        decoded: Tensor = self.block(x, *(a for a in arguments if not isinstance(a, Tensor)))
        return decoded


def unet(
    encoder_channels: Sequence[int],
    *,
    channels: Sequence[PositiveInt],
    interpolation: str,
    attention: str | None = None,
) -> Decoder:
    """U-Net (Ronneberger 2015), one block for each halving of the resolution, output at full resolution.

    ``attention="scse"`` weighs channels and places of the joined maps and of what each block puts out (Roy 2018,
    "Concurrent Spatial and Channel Squeeze & Excitation").
    """
    _check_blocks("unet", channels, encoder_channels)
    _check_attention(attention, channels, [])
    body = UnetDecoder(
        encoder_channels,
        list(channels),
        n_blocks=len(channels),
        attention_type=attention,
        interpolation_mode=interpolation,
    )
    _without_missing_skips(body.blocks, list(range(len(channels))), encoder_channels, attention)
    return Decoder(body, channels[-1], stride=1)


def unetplusplus(
    encoder_channels: Sequence[int],
    *,
    channels: Sequence[PositiveInt],
    interpolation: str,
    attention: str | None = None,
) -> Decoder:
    """U-Net++ (Zhou 2018): nested dense skips between encoder and decoder, output at full resolution.

    For ``attention`` see `unet`.
    """
    _check_blocks("unetplusplus", channels, encoder_channels)
    _check_attention(attention, channels, encoder_channels[1:-2])  # a block between as wide as its encoder's features
    body = UnetPlusPlusDecoder(
        encoder_channels,
        list(channels),
        n_blocks=len(channels),
        attention_type=attention,
        interpolation_mode=interpolation,
    )
    _without_missing_skips(body.blocks, [f"x_0_{index}" for index in range(len(channels))], encoder_channels, attention)
    return Decoder(body, channels[-1], stride=1)


def fpn(
    encoder_channels: Sequence[int], *, pyramid_channels: PositiveInt, channels: PositiveInt, dropout: FractionBelowOne
) -> Decoder:
    """Feature pyramid (Kirillov 2019, "Panoptic Feature Pyramid Networks"), summed at stride 4."""
    depth = len(encoder_channels) - 1
    body = FPNDecoder(list(encoder_channels), depth, pyramid_channels, channels, dropout)
    return Decoder(body, channels, stride=4)


def deeplabv3plus(
    encoder_channels: Sequence[int],
    *,
    channels: PositiveInt,
    skip_channels: PositiveInt,
    rates: Sequence[PositiveInt],
    dropout: FractionBelowOne,
) -> Decoder:
    """DeepLabv3+ (Chen 2018): atrous pyramid at stride 16, joined with stride 4.

    The paper dilates the encoder's last stage to keep it at stride 16. Transformers cannot be dilated, so
    every encoder is left as it is: its features at stride 32 are upsampled and stacked on those of stride 16.
    The pooled branch has no batch norm: it sees one value per channel and picture, and fails on a batch of 1.
    The features of stride 4 are projected to `skip_channels`, 48 in the paper.
    """
    *finer, stride_16, stride_32 = encoder_channels
    body = DeepLabV3PlusDecoder(
        encoder_channels=[*finer, stride_16 + stride_32],
        encoder_depth=4,
        out_channels=channels,
        atrous_rates=rates,
        output_stride=16,
        aspp_separable=True,
        aspp_dropout=dropout,
    )
    body.aspp[0].convs[-1][2] = nn.Identity()
    body.block1[0] = nn.Conv2d(encoder_channels[2], skip_channels, 1, bias=False)
    body.block1[1] = nn.BatchNorm2d(skip_channels)
    body.block2[0] = SeparableConv2d(skip_channels + channels, channels, kernel_size=3, padding=1, bias=False)
    return Decoder(body, channels, stride=4, select=_stack_deepest)


def segformer(encoder_channels: Sequence[int], *, channels: PositiveInt, dropout: FractionBelowOne = 0.0) -> Decoder:
    """All-MLP decoder (Xie 2021, "SegFormer") over strides 4 to 32, as published: stride 2 is not seen.

    ``dropout`` acts on the fused map, before it is classified; 0.1 as published.
    """
    seen = [encoder_channels[0], 0, *encoder_channels[2:]]
    body = SegformerDecoder(seen, len(seen) - 1, channels)
    return Decoder(body, channels, stride=4, select=_hide_stride_2, dropout=dropout)


def upernet(encoder_channels: Sequence[int], *, channels: PositiveInt) -> Decoder:
    """UPerNet (Xiao 2018): pyramid pooling at stride 32 and a feature pyramid, fused at stride 4.

    The branch pooled to one pixel has no batch norm, because that fails on a batch of one.
    """
    body = UPerNetDecoder(encoder_channels, len(encoder_channels) - 1, channels)
    body.psp.blocks[0][1][1] = nn.Identity()
    return Decoder(body, channels, stride=4)


def _without_missing_skips(
    blocks: nn.Module, names: Sequence[Any], encoder_channels: Sequence[int], attention: str | None
) -> None:
    found: Any = blocks
    for name, skip in zip(names, encoder_channels[-2:0:-1], strict=False):  # the last block has none
        if skip == 0 and attention is None:  # smp's attention acts where a skip is passed, be it of zero channels
            found[name] = WithoutSkip(found[name])
    found[names[-1]].attention1 = nn.Identity()  # smp never calls it: its parameters would stay without gradient


def _stack_deepest(features: Features) -> Features:
    *finer, stride_16, stride_32 = features
    upsampled = F.interpolate(stride_32, size=stride_16.shape[-2:], mode="bilinear", align_corners=False)
    return [*finer, torch.cat([stride_16, upsampled], dim=1)]


def _hide_stride_2(features: Features) -> Features:
    return [features[0], features[0][:, :0], *features[2:]]


def _check_blocks(name: str, channels: Sequence[int], encoder_channels: Sequence[int]) -> None:
    if len(channels) != len(encoder_channels) - 1:
        raise ConfigError(
            f"`decoder.channels` of {name} should have {len(encoder_channels) - 1} entries, "
            f"from stride 16 to 1. Found `channels = {list(channels)}`."
        )


def _check_attention(attention: str | None, channels: Sequence[int], encoder_channels: Sequence[int]) -> None:
    if attention not in (None, "scse"):
        raise ConfigError(f"`decoder.attention` should be null or scse. Found `decoder.attention = {attention}`.")
    narrow = [number for number in (*channels, *encoder_channels) if 0 < number < SCSE_REDUCTION]
    if attention is not None and narrow:
        raise ConfigError(
            f"`decoder.attention = scse` should have maps of at least {SCSE_REDUCTION} channels. Found {min(narrow)} "
            f"in `decoder.channels = {list(channels)}` or the encoder's {list(encoder_channels)}. "
            "Widen the decoder, choose another encoder, or set `decoder.attention=null`."
        )
