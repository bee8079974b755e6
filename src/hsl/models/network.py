"""The network: one encoder, one decoder, named heads."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hsl.batch import ATTENTION, Outputs
from hsl.errors import ConfigError
from hsl.heads import Head, Kind, of_kind
from hsl.models.decoders import Decoder, Features
from hsl.models.encoders import Encoder
from hsl.models.heads import AttentionHead
from hsl.models.multitask_decoders import MultitaskDecoder


def checkpoint_network(network: nn.Module) -> None:
    """Checkpoint the gradients of the encoder, see `checkpoint_gradients`, and of the decoder as a whole.

    Args:
        network: an `hsl.models.network.SegmentationNetwork`; one of image heads alone has no decoder.
    """
    checkpoint_gradients(network.get_submodule("encoder"))
    if getattr(network, "decoder", None) is not None:
        _run_again(network.get_submodule("decoder"))


def checkpoint_gradients(encoder: nn.Module) -> None:
    """Keep only the borders of the encoder's stages, or where it has no such switch only its input and output.

    Gradients are the same (Chen 2016, "Training Deep Nets with Sublinear Memory Cost"); the encoder's forward pass is
    run twice. Running statistics of batch norm see each batch twice; who calls the backward pass takes that back.

    Args:
        encoder: an `hsl.models.encoders.Encoder`, or any module.
    """
    # smp wraps timm's networks in `model`; its own encoders may inherit timm's switch without reading it
    network = getattr(getattr(encoder, "body", None), "model", None)
    for one in (network, getattr(network, "model", None)):  # the second: where timm wraps a network once more
        switch = getattr(one, "set_grad_checkpointing", None)
        if switch is not None:
            switch(True)
            return
    _run_again(encoder)


def _run_again(module: nn.Module) -> None:
    """Keep the input and the output of a module only."""
    module.forward = functools.partial(checkpoint, module.forward, use_reentrant=False)


MakeHead = Callable[..., nn.Module]
Share = Callable[[Features], Features]


class SegmentationNetwork(nn.Module):
    """Encoder -> decoder -> one output per head; image heads read the encoder's deepest features.

    Args:
        encoder: a built encoder.
        decoder: makes the decoder from ``encoder_channels`` and, if it has a branch for every head, their names
            ``heads``. Not called, and may be ``None``, where there are image heads only.
        heads: makes each head, by its name, from ``in_channels``, ``num_classes`` and ``upsampling``; or what makes
            them all, whatever heads the data have.
        class_heads: the heads that give classes, of pixels or of whole images.
        further_heads: what makes heads that are no classifiers (maps, embeddings), from ``in_channels`` and
            ``upsampling``.
        wanted: which of these are built; ``None``: all. It alone asks for ``attention``, where the encoder looks.
        evaluated: which of these answer at evaluation too; the others are there for the training.

    Attributes:
        known_heads: what each head is, by name.

    Raises:
        ConfigError: a head has no classes in the data, or the data has classes without a head.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Callable[..., Decoder | MultitaskDecoder] | None,
        heads: Mapping[str, MakeHead] | MakeHead,
        class_heads: Sequence[Head],
        further_heads: Mapping[str, MakeHead] | None = None,
        wanted: Sequence[str] | None = None,
        evaluated: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.known_heads = {head.name: head for head in class_heads}
        makers = {head.name: heads for head in of_kind(class_heads, "dense")} if callable(heads) else heads
        if set(makers) != set(self.known_heads):
            raise ConfigError(
                f"`heads` should be the heads of the data, {sorted(self.known_heads)}. "
                f"Found `heads = {sorted(makers)}`. Name them alike in `task` and `data`, take `task=multitask`, or "
                "give the column of the image labels with `data.image_labels`."
            )
        self.encoder = encoder
        dense = [self.known_heads[name] for name in makers if self.known_heads[name].kind == "dense"]
        self.decoder = _decode(decoder, encoder, tuple(head.name for head in dense))
        made = {}
        for head in dense:
            channels = self.decoder.out_channels
            made[head.name] = makers[head.name](
                in_channels=channels if isinstance(channels, int) else channels[head.name],
                num_classes=len(head.classes),
                upsampling=self.decoder.stride,
            )
        for head in of_kind(class_heads, "image"):
            made[head.name] = makers[head.name](in_channels=encoder.out_channels[-1], num_classes=len(head.classes))
        chosen = {name: make for name, make in (further_heads or {}).items() if wanted is None or name in wanted}
        for name, make in chosen.items():
            made[name] = make(in_channels=self.decoder.out_channels, upsampling=self.decoder.stride)
            self.known_heads[name] = Head(name, cast(Kind, made[name].kind))
        self.training_heads = chosen.keys() - set(evaluated)
        if ATTENTION in (wanted or ()):
            made[ATTENTION] = AttentionHead()
            self.known_heads[ATTENTION] = Head(ATTENTION, "map")
            self.training_heads |= {ATTENTION}
        self.heads = nn.ModuleDict(made)

    @property
    def stride(self) -> int:
        """Height and width of a picture must be multiples of it, in pixels."""
        return self.encoder.stride

    def forward(self, image: Tensor, share: Share | None = None) -> Outputs:
        """Normalised picture ``(B, 3, H, W)`` to one output per head: ``(B, C, H, W)``, of an image head ``(B, K)``.

        Args:
            image: the picture.
            share: called with the encoder's features, a list over strides 1 to 32, and gives what the decoder is to
                see in their place. The first is the picture itself, the second is not read by every decoder.

        Raises:
            ConfigError: H or W is no multiple of `stride`.
        """
        height, width = image.shape[-2:]
        # an encoder of one size says itself what it takes
        if not self.encoder.fixed_size and (height % self.stride or width % self.stride):
            raise ConfigError(
                f"`image` should have sides that are multiples of {self.stride}. Found {height} x {width}. "
                "Evaluate with `inference=whole` or `inference=sliding_window`, or resize the pictures."
            )
        features = self.encoder(image)
        if share is not None:
            features = share(features)
        images = of_kind(self.known_heads.values(), "image")
        outputs = {head.name: self.heads[head.name](features[-1]) for head in images}
        if self.training and ATTENTION in self.heads:
            outputs[ATTENTION] = self.heads[ATTENTION](features[-1])
        if self.decoder is None:
            return outputs
        decoded = self.decoder(features)
        for name, head in self.heads.items():
            if name not in outputs and (self.training or name not in self.training_heads):
                outputs[name] = head(decoded if isinstance(decoded, Tensor) else decoded[name])
        return outputs

    def embed(self, image: Tensor) -> Tensor:
        """Picture ``(B, 3, H, W)`` to the mean of its deepest features ``(B, D)``."""
        features: Tensor = self.encoder(image)[-1]
        return features.mean(dim=(2, 3))


def _decode(decoder: Callable[..., Decoder | MultitaskDecoder] | None, encoder: Encoder, heads: tuple[str, ...]) -> Any:
    """The decoder of these dense heads; ``None`` without any."""
    if not heads or decoder is None:
        return None
    names = {"heads": heads} if "heads" in inspect.signature(decoder).parameters else {}
    return decoder(encoder_channels=encoder.out_channels, **names)
