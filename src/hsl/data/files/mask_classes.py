"""From the numbers or colours of a mask to class indices."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX
from hsl.errors import DataError

Palette = Mapping[tuple[int, int, int], int]

_TABLE = 2**16
_MOST_NAMED = 12


def indices_of_numbers(
    numbers: NDArray[Any], name: str, ignore_index: int, classes: Sequence[str] = ()
) -> NDArray[np.uint8]:
    """Numbers that are class indices, or ``ignore_index``.

    Raises:
        DataError: A number fits into no mask of 8 bits.
    """
    if ignore_index != IGNORE_INDEX:
        if (numbers == IGNORE_INDEX).any():
            raise DataError(
                f"`{name}` holds {IGNORE_INDEX}, neither a class nor `ignore_index = {ignore_index}`. Correct the "
                f"mask, or the line `ignore_index` of dataset.yaml. {_advice(numbers, classes, ignore_index)}"
            )
        # signed numbers of 8 bits have no 255
        wide = numbers.astype(np.int64) if numbers.dtype.kind == "i" else numbers
        indices = np.where(numbers == ignore_index, IGNORE_INDEX, wide)
    else:
        indices = numbers
    outside = np.zeros(0, bool) if indices.dtype == np.uint8 else (indices < 0) | (indices > IGNORE_INDEX)
    if outside.any():
        raise DataError(
            f"`{name}` should hold class indices in [0, {IGNORE_INDEX}]. Found {indices[outside][0]} (in all "
            f"{outside.sum()} such pixels). {_advice(numbers, classes, ignore_index)} If it is a map of instances, it "
            "belongs in instances/."
        )
    return np.array(indices, dtype=np.uint8)


def _advice(numbers: NDArray[Any], classes: Sequence[str], ignore_index: int) -> str:
    found = np.unique(numbers).tolist()
    ignored = f"If {found[0]} is what does not count, set `ignore_index: {found[0]}` in dataset.yaml. "
    return f"{ignored if found[0] < 0 else ''}{how_to_name(found, classes, ignore_index)}"


def how_to_name(found: Sequence[int], classes: Sequence[str], ignore_index: int = IGNORE_INDEX) -> str:
    """The line of dataset.yaml that says which class each number is, as far as it can be guessed.

    Args:
        found: The numbers in masks, each once and in order.
        classes: Names of the classes.
        ignore_index: What dataset.yaml says of it.

    Example:
        >>> how_to_name([0, 1000], ["background", "crack"])[:66]
        'If each is a class, write `values: {0: background, 1000: crack}` i'
    """
    instead = "" if ignore_index == IGNORE_INDEX else " in place of `ignore_index`"
    names = {number: "ignore" for number in found if instead and number == ignore_index}
    others = [number for number in found if number not in names]
    if len(others) > _MOST_NAMED + len(classes):
        return (
            f"{len(others)} different numbers look like a mask that was scaled or blurred: export it without smoothing."
        )
    if len(others) == len(classes):
        names |= dict(zip(others, classes, strict=True))
    elif len(others) == len(classes) + 1 and not names:
        names |= dict(zip(others, [*classes, "ignore"], strict=True))
    pairs = ", ".join(f"{number}: {names.get(number, 'NAME')}" for number in found)
    where = "in dataset.yaml (for `data=hf` set `data.reader.values`)"
    return f"If each is a class, write `values: {{{pairs}}}`{instead} {where}."


def indices_of_values(numbers: NDArray[Any], name: str, values: Mapping[int, int], step: int = 1) -> NDArray[np.uint8]:
    """The class of each number by ``values``.

    Grey of 1, 2 or 4 bits, which programs that make files small write, may be meant as it is shown: 1 of 1 bit is 255.

    Args:
        numbers: Of the mask.
        name: What an error calls it.
        values: Number -> class index.
        step: What 1 is shown as.

    Raises:
        DataError: A number is not named.
    """
    indices, unknown = _look_up(numbers, values)
    if unknown.size and step > 1:
        as_shown, unknown_too = _look_up(numbers * np.uint8(step), values)
        indices, unknown = (as_shown, unknown_too) if not unknown_too.size else (indices, unknown)
    if unknown.size:
        most, how_often, different = _most_frequent(unknown)
        raise DataError(
            f"`{name}` holds {different} numbers that `values` does not name, most often {most} ({how_often} pixels). "
            f"Add them to `values` in dataset.yaml (`{most}: ignore` if it is not to count), or correct the mask."
        )
    return indices


def indices_of_grey(numbers: NDArray[Any], name: str, palette: Palette) -> NDArray[np.uint8]:
    """The class of each grey, as a colour of three equal channels.

    A mask with a grey that is no colour of the palette holds class indices if all of its numbers are such.

    Raises:
        DataError: A grey is not in the palette, and the numbers are no class indices either.
    """
    greys = {red: index for (red, green, blue), index in palette.items() if red == green == blue}
    indices, unknown = _look_up(numbers, greys)
    if unknown.size and np.isin(numbers, [*palette.values(), IGNORE_INDEX]).all():
        return numbers.astype(np.uint8)
    if unknown.size:
        most, how_often, different = _most_frequent(unknown)
        raise DataError(
            f"`{name}` is grey and holds {different} values that are no colour of `palette`, most often {most} "
            f"({how_often} pixels). Remove `palette` from dataset.yaml if the masks hold class indices; add the colour "
            f"[{most}, {most}, {most}] if it is one."
        )
    return indices


def indices_of_colours(colours: NDArray[Any], name: str, palette: Palette) -> NDArray[np.uint8]:
    """The class of each colour ``(H, W, 3)``.

    Raises:
        DataError: A colour is not in the palette.
    """
    packed = {red << 16 | green << 8 | blue: index for (red, green, blue), index in palette.items()}
    wide = colours.astype(np.int32)
    indices, unknown = _look_up(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], packed)
    if unknown.size:
        most, how_often, different = _most_frequent(unknown)
        raise DataError(
            f"`{name}` holds {different} colours that `palette` does not name, most often "
            f"{(most >> 16, most >> 8 & 255, most & 255)} ({how_often} pixels). Add them to `palette` in "
            "dataset.yaml (under `ignore` if they are not to count) or correct the mask."
        )
    return indices


def indices_of_nearest(colours: NDArray[Any], palette: Palette) -> NDArray[np.uint8]:
    """The class of the nearest colour, by the sum of squared differences; of equals the one that is named first.

    Example:
        >>> indices_of_nearest(np.array([[3, 250, 120]]), {(0, 0, 0): 0, (255, 255, 255): 1})
        array([[0, 1, 0]], dtype=uint8)
    """
    wide = colours.astype(np.int64)
    wide = wide if wide.ndim == 3 else wide[..., None].repeat(3, axis=2)
    indices, least = np.zeros(wide.shape[:2], np.uint8), np.full(wide.shape[:2], np.iinfo(np.int64).max)
    for colour, index in palette.items():
        distance = np.square(wide - np.array(colour)).sum(axis=2)
        nearer = distance < least
        indices[nearer], least[nearer] = index, distance[nearer]
    return indices


def check_colour_table(table: Sequence[Sequence[int]], indices: NDArray[Any], name: str, palette: Palette) -> None:
    """Refuse a mask of indices whose own colours are those of other classes.

    Raises:
        DataError: An index has the colour of another class.
    """
    for index in np.unique(indices).tolist():
        colour = tuple(table[index]) if index < len(table) else None
        meant = palette.get((colour[0], colour[1], colour[2]), index) if colour else index
        if meant != index:
            raise DataError(
                f"`{name}` has index {index} in the colour {colour}, in dataset.yaml that of class {meant}. "
                "Store the mask as RGB if its colours are meant; remove `palette` if its indices are."
            )


def one_channel(colours: NDArray[Any], name: str) -> NDArray[Any]:
    """Three equal channels as one.

    Raises:
        DataError: They are not equal.
    """
    if (colours != colours[..., :1]).any():
        raise DataError(
            f"`{name}` holds colours, not class indices. Name the colour of each class under `palette` in "
            "dataset.yaml, or store the masks as one channel of class indices."
        )
    return colours[..., 0]


def _look_up(numbers: NDArray[Any], classes: Mapping[int, int]) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """The class of each number, and the numbers that have none."""
    if numbers.dtype.kind == "u" and numbers.dtype.itemsize <= 2:
        table = np.full(_TABLE, -1, np.int16)
        for number, index in classes.items():
            if 0 <= number < _TABLE:
                table[number] = index
        indices = np.take(table, numbers)
    else:
        limits = np.iinfo(numbers.dtype)
        held = sorted(number for number in classes if limits.min <= number <= limits.max)
        keys = np.array(held or [0], numbers.dtype)
        position = np.maximum(np.searchsorted(keys, numbers, side="right") - 1, 0)
        found = np.array([classes[number] for number in held] or [-1], np.int16)
        indices = np.where(keys[position] == numbers, found[position], -1)
    return indices.astype(np.uint8), numbers[indices < 0]


def _most_frequent(numbers: NDArray[Any]) -> tuple[int, int, int]:
    """The number that is there most often, how often, and how many different ones there are."""
    different, counts = np.unique(numbers, return_counts=True)
    return int(different[counts.argmax()]), int(counts.max()), different.size
