"""What masks hold, by a sample of them: the settings that name their numbers or colours."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hsl.batch import IGNORE_INDEX
from hsl.data.files.decode_masks import mask_content
from hsl.data.files.records import FileSource
from hsl.errors import DataError

SAMPLE = 48
_MOST_COLOURS, _MOST_NUMBERS = 64, 64
_FEW_INDICES = 60


@dataclass(frozen=True)
class MaskGuess:
    """What a sample of masks holds.

    Attributes:
        what: In words.
        settings: ``classes``, and ``values``, ``palette`` or ``nearest`` where they are needed; empty if there is no
            telling.
        looked_at: Masks that were decoded.
        unread: Why some could not be.
    """

    what: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    looked_at: int = 0
    unread: Sequence[str] = ()


def guess(paths: Sequence[Path], one_class: bool = False) -> MaskGuess:
    """Decode some of the masks, evenly chosen, and say which settings read them.

    Args:
        paths: Of masks.
        one_class: Whether each file shows one class, so that there is nothing to name.
    """
    if one_class:
        return MaskGuess("a file a class")
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, SAMPLE).astype(int))] if paths else []
    numbers: Counter[int] = Counter()
    colours: Counter[tuple[int, int, int]] = Counter()
    unread, lossy, read = [], False, 0
    for path in chosen:
        try:
            content = mask_content(FileSource(path).read(), str(path))
        except DataError as error:
            unread.append(str(error))
            continue
        read += 1
        lossy |= content.lossy
        numbers.update(content.numbers)
        colours.update(content.colours)
    if not read:
        return MaskGuess("masks that cannot be read", unread=unread)
    what, settings = _of_colours(colours, lossy) if colours else _of_numbers(sorted(numbers), lossy)
    return MaskGuess(what, settings, read, unread)


def _of_numbers(numbers: Sequence[int], lossy: bool) -> tuple[str, dict[str, Any]]:
    shown = ", ".join(map(str, numbers[:8])) + (" ..." if len(numbers) > 8 else "")
    if lossy or len(numbers) > _MOST_NUMBERS:
        if numbers[0] >= 0 and numbers[-1] <= IGNORE_INDEX and (lossy or len(numbers) > 2 * _MOST_NUMBERS):
            settings = {"classes": _named(2), "values": {0: "background", 255: "foreground"}, "nearest": True}
            return f"grey masks that are blurred ({len(numbers)} numbers)", settings
        return f"masks with {len(numbers)} numbers ({shown}), perhaps ids of objects", {}
    indices = [number for number in numbers if number != IGNORE_INDEX]
    if indices and max(indices) <= _FEW_INDICES and min(indices) == 0 and not (len(indices) == 1 and len(numbers) == 2):
        return f"class indices {shown}", {"classes": _named(max(2, max(indices) + 1))}
    names = _named(len(numbers))
    if len(numbers) < 2:
        return f"masks with one number, {shown}", {}
    return f"masks with the numbers {shown}", {"classes": names, "values": dict(zip(numbers, names, strict=True))}


def _of_colours(colours: Mapping[tuple[int, int, int], int], lossy: bool) -> tuple[str, dict[str, Any]]:
    if lossy or len(colours) > _MOST_COLOURS:
        return f"masks with {len(colours)} colours, blurred or photographs", {}
    ordered = sorted(colours, key=lambda colour: (any(colour), -colours[colour]))
    names = _named(len(ordered))
    palette = {name: list(colour) for name, colour in zip(names, ordered, strict=True)}
    return f"masks with {len(ordered)} colours", {"classes": names, "palette": palette}


def _named(number: int) -> list[str]:
    return ["background", "foreground"] if number <= 2 else ["background", *(f"class_{i}" for i in range(1, number))]
