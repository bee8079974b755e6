"""One look at the whole picture."""

import math

from torch import Tensor, nn

from hsl.batch import Outputs
from hsl.config.ranges import PositiveInt
from hsl.errors import ConfigError
from hsl.inference.geometry import reflected_to


class Whole:
    """Runs the network on the whole picture, padded to a size that the network can take.

    The picture grows at the bottom and at the right by reflection without repeating the border pixel (``a b c
    d`` goes on with ``c b a b ...``), as often as needed, so that also a picture smaller than the padding
    works. A picture of one pixel has nothing to reflect and is repeated. What was padded is cropped off the
    outputs.

    Args:
        stride: height and width are padded to a multiple of it, >= 1, and of ``network.stride`` where there is one. The
            total downsampling of the encoder.

    Raises:
        ConfigError: ``stride`` is below 1.
    """

    def __init__(self, stride: PositiveInt) -> None:
        if stride < 1:
            raise ConfigError(
                f"`stride` should be at least 1. Found `stride = {stride}`. Give the encoder's downsampling."
            )
        self.stride = stride

    def __call__(self, network: nn.Module, images: Tensor) -> Outputs:
        """Outputs of ``network`` for ``images`` ``(B, 3, H, W)``, dense heads cropped to ``(B, C, H, W)``.

        Raises:
            ValueError: a dense head answers at another size than its input.
        """
        height, width = images.shape[-2:]
        stride = math.lcm(self.stride, getattr(network, "stride", 1))  # windows of attention may ask for more
        padded = reflected_to(images, height + -height % stride, width + -width % stride)
        outputs: Outputs = network(padded)
        for head, output in outputs.items():
            if output.ndim == 4 and output.shape[-2:] != padded.shape[-2:]:
                raise ValueError(
                    f"Head `{head}` should answer at the size of its input, {tuple(padded.shape[-2:])}. "
                    f"Found {tuple(output.shape[-2:])}. Give the head an upsampling to the input size."
                )
        return {head: output[..., :height, :width] if output.ndim == 4 else output for head, output in outputs.items()}
