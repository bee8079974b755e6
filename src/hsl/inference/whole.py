"""One look at the whole picture."""

import math

from torch import Tensor

from hsl.batch import Outputs
from hsl.config.ranges import PositiveInt
from hsl.errors import ConfigError
from hsl.inference.predictor import Network, reflected_to


class Whole:
    """Runs the network on the whole picture, padded to a size that the network can take.

    The picture grows at the bottom and at the right by reflection without repeating the border pixel (``a b c
    d`` goes on with ``c b a b ...``), as often as needed, so that also a picture smaller than the padding
    works. A picture of one pixel has nothing to reflect and is repeated. What was padded is cropped off the
    outputs.

    Args:
        stride: height and width are padded to a multiple of it, >= 1, and of ``network.stride``. The total downsampling
            of the encoder.

    Raises:
        ConfigError: ``stride`` is below 1.
    """

    def __init__(self, stride: PositiveInt) -> None:
        if stride < 1:
            raise ConfigError(
                f"`stride` should be at least 1. Found `stride = {stride}`. Give the encoder's downsampling."
            )
        self.stride = stride

    def __call__(self, network: Network, images: Tensor) -> Outputs:
        """Outputs of ``network`` for ``images`` ``(B, 3, H, W)``; all but image heads are cropped to it.

        Raises:
            ValueError: a head that is no image head answers at another size than its input.
        """
        height, width = images.shape[-2:]
        stride = math.lcm(self.stride, network.stride)  # windows of attention may ask for more
        padded = reflected_to(images, height + -height % stride, width + -width % stride)
        outputs: Outputs = network(padded)
        spatial = {name for name in outputs if network.known_heads[name].kind != "image"}
        for head, output in outputs.items():
            if head in spatial and output.shape[-2:] != padded.shape[-2:]:
                raise ValueError(
                    f"Head `{head}` should answer at the size of its input, {tuple(padded.shape[-2:])}. "
                    f"Found {tuple(output.shape[-2:])}. Give the head an upsampling to the input size."
                )
        return {head: output[..., :height, :width] if head in spatial else output for head, output in outputs.items()}
