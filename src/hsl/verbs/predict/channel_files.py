"""What `hsl predict` writes of overlapping channels: a mask for each, so that nothing that overlaps is lost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.batch import Outputs
from hsl.channels import channel_mask, holds
from hsl.data.files.run_lengths import encode_classes
from hsl.files.io import write_atomically
from hsl.inference.global_space import channel_codes
from hsl.reports.page import pictures


@dataclass(frozen=True, eq=False)
class PredictedChannels:
    """The channels of one picture.

    Attributes:
        name: id of the picture.
        classes: ``absent`` and the channels.
        codes: ``uint8 (H, W)``, see `hsl.channels`.
        confidence: ``float32 (H, W)``, the mean over the channels of the top probability.
        probabilities: ``float32 (K, H, W)`` that each channel is there.
    """

    name: str
    classes: Sequence[str]
    codes: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    @classmethod
    def of(cls, name: str, outputs: Outputs, classes: Sequence[str]) -> "PredictedChannels":
        """From the logits ``(2, H, W)`` of each channel."""
        channels = classes[1:]
        codes, confidence = channel_codes({channel: outputs[channel][None] for channel in channels}, channels)
        probabilities = np.stack([outputs[channel].float().softmax(dim=0)[1].numpy() for channel in channels])
        return cls(name, classes, codes[0].numpy(), confidence[0].numpy(), probabilities)

    def row(self) -> dict[str, Any]:
        """Of ``areas.csv``: pixels and share of each channel, and its mean probability where it is predicted."""
        channels, shown = self.classes[1:], np.moveaxis(holds(len(self.classes) - 1)[self.codes], -1, 0)
        height, width = self.codes.shape
        row = {"id": self.name, "height": height, "width": width, "confidence": self.confidence.mean()}
        row |= {f"pixels/{channel}": int(there.sum()) for channel, there in zip(channels, shown, strict=True)}
        row |= {f"share/{channel}": there.mean() for channel, there in zip(channels, shown, strict=True)}
        means = (of[there].mean() if there.any() else None for of, there in zip(self.probabilities, shown, strict=True))
        return row | {f"confidence/{channel}": mean for channel, mean in zip(channels, means, strict=True)}

    def layers(self) -> list[NDArray[np.uint8]]:
        """A class map ``uint8 (H, W)`` for each channel: its number, from 1, where it is, else 0."""
        bits = range(len(self.classes) - 1)
        return [(self.codes >> np.uint8(bit) & 1).astype(np.uint8) * np.uint8(bit + 1) for bit in bits]

    def runs(self) -> Iterator[tuple[int, str]]:
        """Number of each channel, from 1, and its run lengths; none of a channel that is not there."""
        for layer in self.layers():
            yield from encode_classes(layer).items()

    def write(self, folder: Path, image: NDArray[np.uint8]) -> None:
        """Write ``masks/<channel>/<id>.png``, as `hsl.data.formats.channels` reads them, and the overlay."""
        for bit, channel in enumerate(self.classes[1:]):
            _write(folder / "masks" / channel / f"{self.name}.png", channel_mask(self.codes, bit))
        shown = pictures.overlay(image, self.codes, self.confidence, self.classes, overlapping=True)
        _write(folder / "overlays" / f"{self.name}.png", shown[..., ::-1])


def _write(path: Path, pixels: NDArray[np.uint8]) -> None:
    _, png = cv2.imencode(".png", pixels)
    write_atomically(path, png.tobytes())
