"""Encoders: every pyramid of features that smp or timm can build, by name."""

import difflib
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch.nn.functional as F
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from segmentation_models_pytorch.encoders import get_encoder
from timm.models import adapt_input_conv
from timm.models.maxxvit import TransformerBlock2d
from torch import Tensor, nn

from hsl.config.ranges import PositiveInt
from hsl.errors import ConfigError
from hsl.models.cbam import refine_stages
from hsl.models.plain_pyramid import build_plain_pyramid
from hsl.models.weights import load_weights

OWN_OPTIONS = frozenset(
    ["cache_dir", "checkpoint_path", "exportable", "features_only", "no_jit", "out_indices", "pretrained",
     "pretrained_cfg", "pretrained_cfg_overlay", "scriptable"]
)  # fmt: skip
"""What timm reads weights by, pickles among them, and what smp sets itself."""

NUM_LEVELS = 6
"""The picture itself and features at strides 2, 4, 8, 16 and 32."""


class Encoder(nn.Module):
    """A pyramid of features and what there is to know about it.

    Attributes:
        out_channels: channels at strides 1, 2, 4, 8, 16, 32; 0 at stride 2 where the architecture has none.
        stride: the sides of a picture must be multiples of it, in pixels. 32, or the size of the picture the
            encoder was built for if its attention windows follow that size.
        fixed_size: whether `stride` is the only side that a picture may have (CoAtNet's attention is built for it).
        normalization: ``mean`` and ``std`` per channel of a picture in [0, 1], as in pretraining.
        weights_used: where the first weights came from; see `hsl.models.weights.load_weights`.
        in_channels: of a picture.
        cbam: attention blocks by stage that refine features inside the body; may be empty. See `hsl.models.cbam`.
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        name: str,
        stride: int,
        normalization: Mapping[str, Sequence[float]],
        weights_used: dict[str, Any],
        cbam: nn.ModuleDict | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        self.cbam = nn.ModuleDict() if cbam is None else cbam
        self.name = name
        self.in_channels = 3
        self.out_channels: list[int] = [int(channels) for channels in body.out_channels]  # type: ignore[union-attr]
        self.stride = stride
        self.fixed_size = any(isinstance(module, TransformerBlock2d) for module in body.modules())
        self.normalization = {key: [float(v) for v in values] for key, values in normalization.items()}
        self.weights_used = weights_used

    def widen(self, channels: int) -> None:
        """Let the first layer take pictures of other channels, by timm's rule.

        Its weights are repeated along the channels until there are enough, and scaled by 3 / channels, so that what
        follows meets numbers of the same size (`timm.models.adapt_input_conv`).

        Raises:
            ConfigError: there is no one layer that takes three channels.
        """
        layers = (each for each in self.body.modules() if isinstance(each, nn.Conv2d))
        first = [each for each in layers if each.in_channels == self.in_channels == 3 and each.groups == 1]
        if len(first) != 1:
            raise ConfigError(
                f"`encoder` should have one first layer, which is repeated for {channels} channels. Found {len(first)} "
                f"in `{self.name}`. Choose another, such as `encoder=resnet50` or `encoder=convnext_tiny`."
            )
        (layer,) = first
        layer.weight = nn.Parameter(adapt_input_conv(channels, layer.weight.data))
        layer.in_channels = self.in_channels = self.out_channels[0] = channels
        self.weights_used = {**self.weights_used, "channels": channels}

    def forward(self, image: Tensor) -> list[Tensor]:
        """Picture ``(B, C, H, W)`` to features ``(B, out_channels[i], H / 2^i, W / 2^i)`` for i = 0..5.

        Where the architecture rounds a size down, its features are resized bilinearly.

        Raises:
            ConfigError: the encoder takes one size only, and this is another.
        """
        height, width = image.shape[-2:]
        if self.fixed_size and not height == width == self.stride:
            raise ConfigError(
                f"`{self.name}` was built for pictures of {self.stride} x {self.stride}. Found {height} x {width}. "
                f"Use `inference=sliding_window inference.window={self.stride}`, or another encoder."
            )
        features: list[Tensor] = self.body(image)
        return [_resized(feature, (height >> i, width >> i)) for i, feature in enumerate(features)]


def build_encoder(
    name: str,
    *,
    weights: str | None,
    normalization: Mapping[str, Sequence[float]],
    size_multiple: PositiveInt = 32,
    image_size: PositiveInt | Sequence[PositiveInt] | None = None,
    package: str | None = None,
    cbam_stages: Sequence[PositiveInt] | None = None,
    **options: Any,
) -> Encoder:
    """Build an encoder by its name in smp or timm and load its first weights.

    Args:
        name: a name of smp (``mit_b3``) or of timm (``convnext_tiny.fb_in1k``). Where both know it, smp's
            is meant; ``tu-`` before it means timm's.
        weights: ``auto``, ``imagenet``, ``None`` or a path; see `hsl.models.weights.load_weights`.
        normalization: ``mean`` and ``std`` of pretraining; the data module applies it.
        size_multiple: the sides of a picture must be multiples of it, in pixels.
        image_size: side of the pictures to come, in pixels, or height and width. Encoders whose attention follows
            it (MaxViT, CoAtNet; transformers without ``dynamic_img_size``) are built for it, for the greatest
            common divisor where the sides differ; the others are only checked against it.
        package: a Python package with the weights, asked before the hub.
        cbam_stages: stages of an encoder of timm that end in a CBAM, some of 1 to 4 (strides 4 to 32). It starts from
            random weights whatever ``weights`` is, and ``weights_used["cbam"]`` says of how many parameters.
        **options: further arguments of ``timm.create_model``, such as ``drop_path_rate``; ``dynamic_img_size=True``
            and, for Swin, ``strict_img_size=False`` let one transformer take pictures of any size.

    Raises:
        ConfigError: the name is unknown, the size is not possible, or the weights are not to be had.
    """
    name = _resolve(name)
    sides = [image_size] if isinstance(image_size, int) else list(image_size or [])
    for side in sides:
        _check_size(name, side, size_multiple)
    stride = size_multiple
    cfg = _timm_cfg(name)
    follows_size = cfg is not None and cfg.fixed_input_size
    if follows_size and not options.get("dynamic_img_size") and options.get("strict_img_size", True):
        stride = math.gcd(*sides) or cfg.input_size[-1]
        options["img_size"] = stride
    if taken := sorted(OWN_OPTIONS & options.keys()):
        raise ConfigError(
            f"`encoder.{taken[0]}` should not be given. Found `encoder.{taken[0]} = {options[taken[0]]}`. Weights come "
            "by `encoder.weights` alone."
        )
    if options and not name.startswith("tu-"):
        raise ConfigError(f"Encoder `{name}` of smp takes no options. Found {sorted(options)}. Delete them.")
    body = _build(name, options, maybe_plain=follows_size)
    used = load_weights(body, name, weights, package, options)
    if used["source"] not in ("random", "run"):
        _check_normalization(name, normalization)
    cbam = refine_stages(body, list(cbam_stages or []))
    if cbam:
        number = sum(parameter.numel() for parameter in cbam.parameters())
        used["cbam"] = {"stages": sorted(map(int, cbam)), "source": "random", "parameters": number}
    return Encoder(body, name=name, stride=stride, normalization=normalization, weights_used=used, cbam=cbam)


def _resolve(name: str) -> str:
    if name.startswith("timm-tf_efficientnet_lite"):
        raise ConfigError(
            f"`encoder.name` should not be `{name}`: smp's copy takes the published weights "
            f"without complaint but pads unlike them. Use `tu-{name.removeprefix('timm-')}`."
        )
    if name in smp_encoders:
        return name
    architecture, _, tag = name.removeprefix("tu-").partition(".")
    if not timm.is_model(architecture):
        known = [*smp_encoders, *timm.list_models()]
        near = difflib.get_close_matches(architecture, known, n=3, cutoff=0.5)
        raise ConfigError(
            f"`encoder.name` should be an encoder of smp or timm. Found `encoder.name = {name}`. "
            f"Near to it: {', '.join(near) or 'nothing'}."
        )
    if tag and not timm.models.is_model_pretrained(f"{architecture}.{tag}"):
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
        raise ConfigError(
            f"`encoder.name` should end in a tag of published weights. Found `encoder.name = {name}`. "
            f"Tags of {architecture}: {', '.join(tags) or 'none'}."
        )
    return f"tu-{architecture}" + (f".{tag}" if tag else "")


def _timm_cfg(name: str) -> Any:
    return timm.models.get_pretrained_cfg(name.removeprefix("tu-")) if name.startswith("tu-") else None


def _check_size(name: str, image_size: int, size_multiple: int) -> None:
    if image_size <= 0 or image_size % size_multiple:
        below = max(image_size // size_multiple, 1) * size_multiple
        raise ConfigError(
            f"The picture size of `{name}` should be a multiple of {size_multiple}. Found `data.image_size = "
            f"{image_size}`. The nearest sizes are {below} and {below + size_multiple}."
        )


def _build(name: str, options: Mapping[str, Any], *, maybe_plain: bool) -> nn.Module:
    try:
        plain = build_plain_pyramid(name.removeprefix("tu-"), options) if maybe_plain else None
        body: nn.Module = plain or get_encoder(name, weights=None, **options)
    except ConfigError:
        raise
    except (ValueError, RuntimeError, TypeError, AssertionError, LookupError) as error:
        # smp and timm have no error type of their own for "has no pyramid" or "unknown option".
        raise ConfigError(
            f"`{name}` cannot be built as an encoder with options {dict(options)} ({error}). "
            "Choose one with features at strides 4, 8, 16 and 32, or correct the options."
        ) from error
    if len(body.out_channels) != NUM_LEVELS:  # type: ignore[arg-type]
        raise ConfigError(
            f"`{name}` should have features down to stride 32. Found channels {body.out_channels}. "
            "Choose another encoder."
        )
    if name.startswith("tu-inception_"):
        _pad_borders(body)
    return body


def _pad_borders(body: nn.Module) -> None:
    """Inception's stem and reductions drop the border, which shifts its features against the picture: pad there."""
    for module in body.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d) and module.kernel_size in (3, (3, 3)):
            module.padding = 1 if isinstance(module, nn.MaxPool2d) else (1, 1)


def _resized(feature: Tensor, size: tuple[int, int]) -> Tensor:
    if feature.shape[-2:] == size:
        return feature
    return F.interpolate(feature, size=size, mode="bilinear", align_corners=False)


def _check_normalization(name: str, normalization: Mapping[str, Sequence[float]]) -> None:
    cfg = _timm_cfg(name)
    for key in ("mean", "std"):
        if cfg is not None and list(getattr(cfg, key)) != list(normalization[key]):
            warnings.warn(
                f"`{name}` was pretrained with {key} {list(getattr(cfg, key))}. Found "
                f"`encoder.normalization.{key} = {list(normalization[key])}`. "
                "Set it, unless the weights are your own.",
                stacklevel=3,
            )
