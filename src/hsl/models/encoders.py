"""Encoders: every pyramid of features that smp or timm can build, by name."""

import difflib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import timm
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn

from hsl.config import ConfigError
from hsl.models.weights import load_weights

NUM_LEVELS = 6
"""The picture itself and features at strides 2, 4, 8, 16 and 32."""


class Encoder(nn.Module):
    """A pyramid of features and what there is to know about it.

    Attributes:
        out_channels: channels at strides 1, 2, 4, 8, 16, 32; 0 at stride 2 where the architecture has none.
        stride: the sides of a picture must be multiples of it, in pixels. 32, or the size of the picture the
            encoder was built for if its attention windows follow that size.
        normalization: ``mean`` and ``std`` per channel of a picture in [0, 1], as in pretraining.
        weights_used: where the first weights came from; see `hsl.models.weights.load_weights`.
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        name: str,
        stride: int,
        normalization: Mapping[str, Sequence[float]],
        weights_used: dict[str, Any],
    ) -> None:
        super().__init__()
        self.body = body
        self.name = name
        self.out_channels: list[int] = [int(channels) for channels in body.out_channels]  # type: ignore[union-attr]
        self.stride = stride
        self.normalization = {key: [float(v) for v in values] for key, values in normalization.items()}
        self.weights_used = weights_used

    def forward(self, image: Tensor) -> list[Tensor]:
        """Picture ``(B, 3, H, W)`` to features ``(B, out_channels[i], H / 2^i, W / 2^i)`` for i = 0..5."""
        features: list[Tensor] = self.body(image)
        return features


def build_encoder(
    name: str,
    *,
    weights: str | None,
    normalization: Mapping[str, Sequence[float]],
    size_multiple: int = 32,
    image_size: int | None = None,
    package: str | None = None,
    **options: Any,
) -> Encoder:
    """Build an encoder by its name in smp or timm and load its first weights.

    Args:
        name: a name of smp (``mit_b3``) or of timm (``convnext_tiny.fb_in1k``). Where both know it, smp's
            is meant; ``tu-`` before it means timm's.
        weights: ``auto``, ``imagenet``, ``None`` or a path; see `hsl.models.weights.load_weights`.
        normalization: ``mean`` and ``std`` of pretraining; the data module applies it.
        size_multiple: the sides of a picture must be multiples of it, in pixels.
        image_size: side of the pictures to come, in pixels. Encoders whose attention windows follow it
            (MaxViT) are built for it; the others are only checked against it.
        package: a Python package with the weights, asked before the hub.
        **options: further arguments of ``timm.create_model``, such as ``drop_path_rate``.

    Raises:
        ConfigError: the name is unknown, the size is not possible, or the weights are not to be had.
    """
    name = _resolve(name)
    if image_size is not None:
        _check_size(name, image_size, size_multiple)
    stride = size_multiple
    cfg = _timm_cfg(name)
    if cfg is not None and cfg.fixed_input_size:
        stride = image_size or cfg.input_size[-1]
        options["img_size"] = stride
    if options and not name.startswith("tu-"):
        raise ConfigError(f"Encoder `{name}` of smp takes no options. Found {sorted(options)}. Delete them.")
    body = _build(name, options)
    used = load_weights(body, name, weights, package, options)
    if used["source"] != "random":
        _check_normalization(name, normalization)
    return Encoder(body, name=name, stride=stride, normalization=normalization, weights_used=used)


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


def _build(name: str, options: Mapping[str, Any]) -> nn.Module:
    try:
        body: nn.Module = get_encoder(name, weights=None, **options)
    except (ValueError, RuntimeError, TypeError, AssertionError, LookupError) as error:
        # smp and timm have no error type of their own for "has no pyramid" or "unknown option".
        raise ConfigError(
            f"`{name}` cannot be built as an encoder with options {dict(options)} ({error}). "
            "Choose one with features at strides 4, 8, 16 and 32, or mend the options."
        ) from error
    if len(body.out_channels) != NUM_LEVELS:  # type: ignore[arg-type]
        raise ConfigError(
            f"`{name}` should have features down to stride 32. Found channels {body.out_channels}. "
            "Choose another encoder."
        )
    return body


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
