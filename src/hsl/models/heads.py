"""Heads: from the decoder's features to the output of one task."""

from typing import ClassVar

import torch.nn.functional as F
from segmentation_models_pytorch.base.initialization import initialize_head
from torch import Tensor, nn

from hsl.config.ranges import FractionBelowOne, PositiveInt
from hsl.errors import ConfigError
from hsl.heads import Kind


class DenseHead(nn.Module):
    """Class logits for every pixel: a convolution, then bilinear upsampling to the size of the picture.

    Args:
        in_channels: channels of the decoder's output.
        num_classes: number of classes C.
        upsampling: stride of the decoder's output.
        kernel_size: side of the convolution; ``None`` is 3 at full resolution and 1 below it, as
            published with U-Net on the one hand and DeepLab, SegFormer, FPN and UPerNet on the other.
    """

    kind: ClassVar[Kind] = "dense"

    def __init__(self, in_channels: int, num_classes: int, upsampling: int, kernel_size: int | None = None) -> None:
        super().__init__()
        size = kernel_size or (3 if upsampling == 1 else 1)
        self.classify = nn.Conv2d(in_channels, num_classes, size, padding=size // 2)
        self.upsampling = upsampling
        initialize_head(self)

    def forward(self, decoded: Tensor) -> Tensor:
        """Decoded ``(B, in_channels, h, w)`` to logits ``(B, C, h * upsampling, w * upsampling)``."""
        return upsampled(self.classify(decoded), self.upsampling)


def upsampled(values: Tensor, factor: int) -> Tensor:
    """``(B, C, h, w)`` to ``(B, C, h * factor, w * factor)``, bilinear."""
    if factor == 1:
        return values
    return F.interpolate(values, scale_factor=float(factor), mode="bilinear", align_corners=False)


class MapHead(nn.Module):
    """A map of numbers for every pixel, such as a distance or the colours of the picture.

    Args:
        in_channels: channels of the decoder's output.
        upsampling: stride of the decoder's output.
        channels: numbers per pixel.
    """

    kind: ClassVar[Kind] = "map"

    def __init__(self, in_channels: int, upsampling: int, channels: PositiveInt) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.upsampling = upsampling
        initialize_head(self)

    def forward(self, decoded: Tensor) -> Tensor:
        """Decoded ``(B, in_channels, h, w)`` to ``(B, channels, h * upsampling, w * upsampling)``, each in (0, 1)."""
        return upsampled(self.project(decoded).sigmoid(), self.upsampling)


class AttentionHead(nn.Module):
    """Where the encoder looks: the mean of its squared activations over the channels. It has no parameters.

    Source: Zagoruyko & Komodakis 2017, "Paying More Attention to Attention", section 3.1, there as a sum.
    """

    kind: ClassVar[Kind] = "map"

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(B, D, h, w)`` to ``float32 (B, 1, h, w)``, at least 0."""
        return features.float().square().mean(dim=1, keepdim=True)


class EmbeddingHead(nn.Module):
    """A vector of length 1 for every pixel of a coarser grid; a part of the training only.

    Args:
        in_channels: channels of the decoder's output.
        upsampling: stride of the decoder's output.
        dimension: D.
        stride: of the grid, a multiple of ``upsampling``; finer ones are averaged.
    """

    kind: ClassVar[Kind] = "embedding"

    def __init__(self, in_channels: int, upsampling: int, dimension: PositiveInt = 32, stride: PositiveInt = 4) -> None:
        super().__init__()
        if stride % upsampling:
            raise ConfigError(
                f"`stride` of an embedding head should be a multiple of the decoder's, {upsampling}. "
                f"Found `stride = {stride}`."
            )
        self.project = nn.Conv2d(in_channels, dimension, 1)
        self.pooling = stride // upsampling
        initialize_head(self)

    def forward(self, decoded: Tensor) -> Tensor:
        """Decoded ``(B, in_channels, h, w)`` to ``(B, dimension, h / pooling, w / pooling)``, of length 1 over D."""
        pooled = F.avg_pool2d(decoded, self.pooling) if self.pooling > 1 else decoded
        return F.normalize(self.project(pooled).float(), dim=1)


class ImageHead(nn.Module):
    """Class logits of the whole picture: the mean of the encoder's deepest features, dropout, a linear layer.

    Args:
        in_channels: channels of the deepest features.
        num_classes: number of classes K.
        dropout: probability that a pooled feature is left out in training, in [0, 1).

    Raises:
        ConfigError: ``dropout`` is outside its range.
    """

    kind: ClassVar[Kind] = "image"

    def __init__(self, in_channels: int, num_classes: int, dropout: FractionBelowOne = 0.2) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ConfigError(f"`dropout` of an image head should be in [0, 1). Found `dropout = {dropout}`.")
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(in_channels, num_classes)
        initialize_head(self)

    def embed(self, features: Tensor) -> Tensor:
        """Features ``(B, in_channels, h, w)`` to their mean over the picture ``(B, in_channels)``."""
        return features.mean(dim=(2, 3))

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(B, in_channels, h, w)`` to logits ``(B, K)``."""
        logits: Tensor = self.classify(self.dropout(self.embed(features)))
        return logits
