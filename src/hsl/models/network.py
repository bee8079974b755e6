"""The network: one encoder, one decoder, named heads."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from hsl.batch import Outputs
from hsl.config import ConfigError
from hsl.models.decoders import Decoder
from hsl.models.encoders import Encoder


class SegmentationNetwork(nn.Module):
    """Encoder -> decoder -> one output per head.

    Args:
        encoder: a built encoder.
        decoder: makes the decoder from ``encoder_channels``.
        heads: makes each head, by its name, from ``in_channels``, ``num_classes`` and ``upsampling``.
        classes: class names of each head, in the order of the class indices.

    Raises:
        ConfigError: a head has no classes in the data, or the data has classes without a head.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Callable[..., Decoder],
        heads: Mapping[str, Callable[..., nn.Module]],
        classes: Mapping[str, Sequence[str]],
    ) -> None:
        super().__init__()
        if set(heads) != set(classes):
            raise ConfigError(
                f"`heads` should be the heads of the data, {sorted(classes)}. "
                f"Found `heads = {sorted(heads)}`. Name them alike in `task` and `data`."
            )
        self.encoder = encoder
        self.decoder = decoder(encoder_channels=encoder.out_channels)
        made = {
            name: head(
                in_channels=self.decoder.out_channels,
                num_classes=len(classes[name]),
                upsampling=self.decoder.stride,
            )
            for name, head in heads.items()
        }
        self.heads = nn.ModuleDict(made)

    @property
    def stride(self) -> int:
        """Height and width of a picture must be multiples of it, in pixels."""
        return self.encoder.stride

    def forward(self, image: Tensor) -> Outputs:
        """Normalised picture ``(B, 3, H, W)`` to one output per head: a dense one gives ``(B, C, H, W)``.

        Raises:
            ValueError: H or W is no multiple of `stride`.
        """
        height, width = image.shape[-2:]
        if height % self.stride or width % self.stride:
            raise ValueError(
                f"`image` should have sides that are multiples of {self.stride}. Found {height} x {width}. "
                "Resize it, or pad it with an inference predictor."
            )
        decoded = self.decoder(self.encoder(image))
        return {name: head(decoded) for name, head in self.heads.items()}
