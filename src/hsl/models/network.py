"""The network: one encoder, one decoder, named heads."""

import inspect
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from hsl.batch import Outputs
from hsl.config import ConfigError
from hsl.models.decoders import Decoder, Features
from hsl.models.encoders import Encoder
from hsl.models.multitask_decoders import MultitaskDecoder

Head = Callable[..., nn.Module]
Share = Callable[[Features], Features]


class SegmentationNetwork(nn.Module):
    """Encoder -> decoder -> one output per head.

    Args:
        encoder: a built encoder.
        decoder: makes the decoder from ``encoder_channels`` and, if it has a branch for every head, their names
            ``heads``.
        heads: makes each head, by its name, from ``in_channels``, ``num_classes`` and ``upsampling``; or what makes
            them all, whatever heads the data have.
        classes: class names of each head, in the order of the class indices.

    Raises:
        ConfigError: a head has no classes in the data, or the data has classes without a head.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Callable[..., Decoder | MultitaskDecoder],
        heads: Mapping[str, Head] | Head,
        classes: Mapping[str, Sequence[str]],
    ) -> None:
        super().__init__()
        makers = dict.fromkeys(classes, heads) if callable(heads) else heads
        if set(makers) != set(classes):
            raise ConfigError(
                f"`heads` should be the heads of the data, {sorted(classes)}. Found `heads = {sorted(makers)}`. "
                "Name them alike in `task` and `data`, or take `task=multitask`."
            )
        self.encoder = encoder
        names = {"heads": tuple(makers)} if "heads" in inspect.signature(decoder).parameters else {}
        self.decoder = decoder(encoder_channels=encoder.out_channels, **names)
        channels = self.decoder.out_channels
        made = {
            name: head(
                in_channels=channels if isinstance(channels, int) else channels[name],
                num_classes=len(classes[name]),
                upsampling=self.decoder.stride,
            )
            for name, head in makers.items()
        }
        self.heads = nn.ModuleDict(made)

    @property
    def stride(self) -> int:
        """Height and width of a picture must be multiples of it, in pixels."""
        return self.encoder.stride

    def forward(self, image: Tensor, share: Share | None = None) -> Outputs:
        """Normalised picture ``(B, 3, H, W)`` to one output per head: a dense one gives ``(B, C, H, W)``.

        Args:
            image: the picture.
            share: called with the encoder's features, a list over strides 1 to 32, and gives what the decoder is to
                see in their place. The first is the picture itself, the second is not read by every decoder.

        Raises:
            ValueError: H or W is no multiple of `stride`.
        """
        height, width = image.shape[-2:]
        if height % self.stride or width % self.stride:
            raise ValueError(
                f"`image` should have sides that are multiples of {self.stride}. Found {height} x {width}. "
                "Resize it, or pad it with an inference predictor."
            )
        features = self.encoder(image)
        decoded = self.decoder(features if share is None else share(features))
        if isinstance(decoded, Tensor):
            return {name: head(decoded) for name, head in self.heads.items()}
        return {name: head(decoded[name]) for name, head in self.heads.items()}
