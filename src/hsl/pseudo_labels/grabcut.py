"""GrabCut: a first mask from colour alone (Rother et al. 2004, "GrabCut: Interactive foreground extraction")."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.config.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt
from hsl.data.files.decoding import Decoding
from hsl.data.files.reading import in_processes
from hsl.data.files.records import Record
from hsl.errors import ConfigError

CHANNELS = {"hue": 360.0, "saturation": 100.0, "value": 100.0}
Bools = NDArray[np.bool_]
Votes = NDArray[np.float32]


class UnseededError(ValueError):
    """A picture has no pixel in the colours of the foreground, or none in those of the background."""


@dataclass(frozen=True)
class ColourSeeds:
    """The colours of a data set's classes, and how GrabCut is run on them.

    A colour is a box in HSV as colour pickers show it: ``hue`` in degrees, 0 to 360, ``saturation`` and ``value`` in
    per cent; both ends belong to it. A channel left out may be anything. A hue whose low end is above its high end goes
    through red: ``[340, 20]``.

    Attributes:
        colours: class name to its colours, such as ``{"leaf": [{"hue": [60, 170], "saturation": [35, 100]}]}``.
        longest_side: GrabCut sees the picture at this size at most, in pixels: its time grows faster than the area.
        iterations: rounds of GrabCut.
        clean: specks and gaps narrower than this are removed, in pixels; 1 leaves all.

    Raises:
        ConfigError: a colour is no range of a known channel, or a number is out of range.
    """

    colours: Mapping[str, Sequence[Mapping[str, Sequence[NonNegativeFloat]]]]
    longest_side: PositiveInt = 256
    iterations: PositiveInt = 3
    clean: NonNegativeInt = 3

    def __post_init__(self) -> None:
        for name, least in (("longest_side", 16), ("iterations", 1), ("clean", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"`{name}` should be at least {least}. Found `{name} = {getattr(self, name)}`.")
        for name, colours in self.colours.items():
            for colour in colours:
                for channel, ends in colour.items():
                    _check_range(name, channel, ends)


def grabcut_votes(image: NDArray[np.uint8], seeds: ColourSeeds, classes: Sequence[str]) -> NDArray[np.float32]:
    """The class of each pixel from its colour inside the foreground that GrabCut finds.

    Pixels in a colour of any foreground class are surely foreground, those in a colour of the background surely
    background (in both: neither), the rest is for GrabCut to decide. A pixel of the background found votes for
    ``classes[0]``; one of the foreground for the last class whose colours it is in, else for the main class
    ``classes[1]``. Colours are read at full size. The result depends on the arguments only.

    Args:
        image: ``uint8 (H, W, 3)``, RGB.
        seeds: the colours.
        classes: C class names, the background first.

    Returns:
        ``float32 (C, H, W)``, 1 for the class voted for.

    Raises:
        ConfigError: the seeds name a class that does not exist, or none for the background or the foreground.
        UnseededError: the picture has no pixel in the colours of the background, or none in those of the foreground.
    """
    _check_names(seeds, classes)
    height, width = image.shape[:2]
    scale = min(1.0, seeds.longest_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    found = _clean(_cut(small, seeds, classes), seeds.clean)
    foreground = cv2.resize(found.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    hsv, labels = _hsv(image), foreground.astype(np.int64)
    for index, name in enumerate(classes[2:], start=2):
        labels[foreground & _clean(_in_colours(hsv, seeds, name), seeds.clean)] = index
    return np.equal(labels[None], np.arange(len(classes))[:, None, None]).astype(np.float32)


def grabcut_each(
    records: Sequence[Record], seeds: ColourSeeds, classes: Sequence[str], decoding: Decoding, workers: int
) -> Iterator[Votes | None]:
    """`grabcut_votes` of many pictures, in the order of the records, in several processes.

    Args:
        records: the pictures.
        seeds: the colours.
        classes: C class names, the background first.
        decoding: how they are decoded.
        workers: processes; 1 works in this one.

    Yields:
        ``float32 (C, H, W)``; ``None`` for a picture without a pixel in the colours of the seeds.

    Raises:
        DataError: a picture cannot be read, or a process was killed.
    """
    votes = functools.partial(_votes_of, seeds=seeds, classes=classes, decoding=decoding)
    killed = "A process of GrabCut was killed, most likely for want of memory. Use fewer: `workers=1`."
    yield from in_processes(votes, records, workers if len(records) > 1 else 1, killed)


def _votes_of(record: Record, seeds: ColourSeeds, classes: Sequence[str], decoding: Decoding) -> Votes | None:
    image = decoding.image(record.image)
    try:
        return grabcut_votes(image, seeds, classes)
    except UnseededError:
        return None


def _cut(image: NDArray[np.uint8], seeds: ColourSeeds, classes: Sequence[str]) -> Bools:
    hsv = _hsv(image)
    background = _in_colours(hsv, seeds, classes[0])
    foreground = np.logical_or.reduce([_in_colours(hsv, seeds, name) for name in classes[1:]])
    both = background & foreground
    background, foreground = background & ~both, foreground & ~both
    _check_seeded(background, foreground, seeds, classes)
    labels = np.full(image.shape[:2], cv2.GC_PR_FGD, dtype=np.uint8)
    labels[foreground], labels[background] = cv2.GC_FGD, cv2.GC_BGD
    cv2.setRNGSeed(0)  # its colour clusters start at random
    model = np.zeros((2, 1, 65))
    nowhere = (0, 0, 0, 0)  # the rectangle, which a start from labels does not read
    cv2.grabCut(image, labels, nowhere, model[0], model[1], seeds.iterations, cv2.GC_INIT_WITH_MASK)
    found: Bools = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return found


def _hsv(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    return np.asarray(hsv * (1, 100, 100), dtype=np.float32)


def _in_colours(hsv: NDArray[np.float32], seeds: ColourSeeds, name: str) -> Bools:
    found = np.zeros(hsv.shape[:2], dtype=np.bool_)
    for colour in seeds.colours.get(name, ()):
        inside = np.ones(hsv.shape[:2], dtype=np.bool_)
        for channel, (low, high) in colour.items():
            values = hsv[..., list(CHANNELS).index(channel)]
            above, below = values >= low, values <= high
            inside &= above & below if low <= high else above | below
        found |= inside
    return found


def _clean(mask: Bools, diameter: int) -> Bools:
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, disc)
    closed: Bools = cv2.morphologyEx(opened, cv2.MORPH_CLOSE, disc) > 0
    return closed


def _check_range(name: str, channel: str, ends: Sequence[float]) -> None:
    if channel not in CHANNELS:
        raise ConfigError(f"A colour of `{name}` should have the channels {', '.join(CHANNELS)}. Found `{channel}`.")
    most = CHANNELS[channel]
    ordered = len(ends) == 2 and (channel == "hue" or ends[0] <= ends[1])
    if not ordered or not all(0 <= end <= most for end in ends):
        raise ConfigError(
            f"`{channel}` of `{name}` should be [low, high] within [0, {most:g}]. Found `{channel} = {list(ends)}`. "
            "Hue is in degrees, saturation and value are in per cent."
        )


def _check_names(seeds: ColourSeeds, classes: Sequence[str]) -> None:
    unknown = sorted(set(seeds.colours) - set(classes))
    if unknown:
        raise ConfigError(f"`colours` should name classes of the data, {list(classes)}. Found {unknown}. Rename them.")
    if not seeds.colours.get(classes[0]) or not any(seeds.colours.get(name) for name in classes[1:]):
        raise ConfigError(
            f"`colours` should have colours for the background `{classes[0]}` and for one or more of "
            f"{list(classes[1:])}. Found colours for {[name for name in classes if seeds.colours.get(name)]}."
        )


def _check_seeded(background: Bools, foreground: Bools, seeds: ColourSeeds, classes: Sequence[str]) -> None:
    empty = [] if background.any() else [classes[0]]
    empty += [] if foreground.any() else [name for name in classes[1:] if name in seeds.colours]
    if empty:
        ranges = "; ".join(f"{name}: {[dict(colour) for colour in seeds.colours[name]]}" for name in empty)
        raise UnseededError(
            "GrabCut should find a pixel of the background and one of the foreground by their colours. Found none of "
            f"{ranges}. Widen `colours` of these classes, or leave the picture out."
        )
