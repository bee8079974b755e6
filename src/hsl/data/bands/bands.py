"""The channels of pictures that are not just red, green and blue: their names, ranges, and which are shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST, MOST = 2, 16
COLOURS = ("red", "green", "blue")
"""What bands are called that people see as they are: these alone are changed by colour augmentation."""

Range = tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Bands:
    """What ``bands`` in ``dataset.yaml`` says.

    Attributes:
        names: in the order in which the files store them.
        ranges: for each the numbers that become 0 and 255; ``None``: those of all pictures of the data set.
        shown: places of the three bands that people are shown as red, green and blue.
    """

    names: tuple[str, ...]
    ranges: tuple[Range, ...]
    shown: tuple[int, int, int]

    @classmethod
    def of(
        cls, names: Sequence[str], ranges: Sequence[Range] | None = None, shown: Sequence[str] | None = None
    ) -> "Bands":
        """With what is usual in place of what is not said: red, green and blue are shown, else the first three.

        Example:
            >>> Bands.of(["nir", "blue", "green", "red"]).shown
            (3, 2, 1)
            >>> Bands.of(["hh", "hv"]).shown
            (0, 1, 1)
        """
        chosen = shown or (COLOURS if set(COLOURS) <= set(names) else [*names[:3], names[-1]][:3])
        first, second, third = (names.index(name) for name in chosen)
        return cls(tuple(names), tuple(ranges or [None] * len(names)), (first, second, third))

    @property
    def colours(self) -> tuple[int, ...]:
        """Places of red, green and blue; empty where one of them is not there."""
        return tuple(self.names.index(name) for name in COLOURS) if set(COLOURS) <= set(self.names) else ()

    def rgb(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The shown bands ``uint8 (H, W, 3)`` of a picture ``uint8 (H, W, C)``."""
        return np.ascontiguousarray(image[..., list(self.shown)])

    def as_json(self) -> dict[str, Any]:
        """Lists, to stand in a provenance."""
        ranges = [None if ends is None else list(ends) for ends in self.ranges]
        return {"names": list(self.names), "ranges": ranges, "shown": list(self.shown)}

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Bands":
        """What `as_json` made."""
        ranges = tuple(None if ends is None else (float(ends[0]), float(ends[1])) for ends in content["ranges"])
        first, second, third = content["shown"]
        return cls(tuple(content["names"]), ranges, (int(first), int(second), int(third)))


@dataclass(frozen=True, slots=True)
class BandStatistics:
    """What bands are normalised by.

    Attributes:
        bands: whose.
        mean: of each band, of the pixels of the training part in [0, 1].
        std: their standard deviation, above 0.
    """

    bands: Bands
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        """Lists, to stand in a provenance."""
        return {**self.bands.as_json(), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def read(cls, content: Mapping[str, Any] | None) -> "BandStatistics | None":
        """What `as_json` made; ``None`` of a run with red, green and blue alone, which recorded none."""
        if content is None:
            return None
        return cls(Bands.read(content), tuple(map(float, content["mean"])), tuple(map(float, content["std"])))


def statistics_of(bands: Bands, histograms: NDArray[np.int64]) -> BandStatistics:
    """Mean and standard deviation of each band.

    Args:
        bands: whose.
        histograms: ``(C, 256)``: how many pixels of the training part have each value.

    Example:
        >>> counts = np.zeros((2, 256), np.int64); counts[:, 0] = counts[:, 255] = 1
        >>> statistics_of(Bands.of(["a", "b"]), counts).std
        (0.5, 0.5)
    """
    values, numbers = np.arange(256) / 255, histograms.sum(axis=1).clip(1)
    mean = histograms @ values / numbers
    std = np.sqrt((histograms * (values - mean[:, None]) ** 2).sum(axis=1) / numbers)
    constant = std < 1 / 255  # divided by next to nothing, a band that says nothing would say most
    return BandStatistics(bands, tuple(mean.tolist()), tuple(np.where(constant, 1.0, std).tolist()))


def histograms_of(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """``(C, 256)`` of a picture ``uint8 (H, W, C)``."""
    return np.stack([np.bincount(band.ravel(), minlength=256) for band in np.moveaxis(image, -1, 0)]).astype(np.int64)
