"""The rule of the audit on what pictures hold: numbers of another range than is assumed, no contrast, several pages."""

import numpy as np
from numpy.typing import NDArray

from hsl.data.audit.rules import STOP, WARN, Finding, Subject
from hsl.data.files.reading import FLAT
from hsl.data.splits.grouping import name_some

_FULL, _DARK = 16, 14
"""Bits of the largest number: that of a picture that fills 16, and one of which a quarter is left."""


def picture_values(subject: Subject) -> list[Finding]:
    """(h) Pictures of 16 bits that would come out black, pictures without contrast, pictures of several pages."""
    ranges = _ranges(subject)
    stopped = any(finding.severity == STOP for finding in ranges)
    return [*ranges, *_flat(subject, of_8_bits=stopped), *_several(subject)]


def overlapping_annotations(subject: Subject) -> list[Finding]:
    """(d) Pixels that annotations of different classes claim: the later annotation is what counts."""
    overlap = subject.scan.overlap
    if not overlap.any():
        return []
    names = _names(subject, overlap > 0)
    of = dict(zip(subject.scan.ids, overlap.tolist(), strict=True))
    most = sorted(names, key=lambda name: -of[name])
    message = (
        f"{len(names)} masks have pixels that annotations of different classes claim ({overlap.sum()} in all; the one "
        f"that lies above counts): {name_some([f'`{subject.mask(name)}` ({of[name]} pixels)' for name in most], 3)}. "
        "Look whether the order of the classes is the one you mean."
    )
    return [Finding("d", WARN, message, names, tuple(map(subject.mask, names)))]


def _ranges(subject: Subject) -> list[Finding]:
    """Numbers of 10, 12 or 14 bits in pictures of 16, unless ``value_range`` says what is black and white."""
    largest = subject.scan.largest
    deep = largest > 0
    if not deep.any():
        return []
    if subject.catalogue.value_range is not None:
        return _clipped(subject, deep, subject.catalogue.value_range[1])
    bits = np.array([number.bit_length() for number in largest.tolist()])
    dark = deep & (bits <= _DARK)
    if bits.max() < _FULL:
        return [_range(subject, deep, STOP, "all")]
    if not dark.any():
        return []
    most = 2 * dark.sum() >= deep.sum()
    return [_range(subject, dark, STOP if most else WARN, f"{dark.sum()} of {deep.sum()}")]


def _clipped(subject: Subject, deep: NDArray[np.bool_], white: float) -> list[Finding]:
    """Most pictures of 16 bits go far beyond what a named range makes white."""
    beyond = deep & (subject.scan.largest > 2 * white)
    if 2 * beyond.sum() <= deep.sum():
        return []
    names = _names(subject, beyond)
    files, largest = tuple(map(subject.image, names)), int(subject.scan.largest.max())
    message = (
        f"`value_range` makes white what is above {white:g}. Found numbers up to {largest} in {len(names)} of "
        f"{deep.sum()} pictures of 16 bits: {name_some([f'`{file}`' for file in files])}. Write "
        f"`[0, {2 ** largest.bit_length() - 1}]` if all of them count."
    )
    return [Finding("h", WARN, message, names, files)]


def _range(subject: Subject, chosen: NDArray[np.bool_], severity: str, how_many: str) -> Finding:
    largest = int(subject.scan.largest[chosen].max())
    bits = largest.bit_length()
    names = _names(subject, chosen)
    files = tuple(map(subject.image, names))
    clipped = "" if how_many == "all" else ", which makes white what is brighter in the others"
    message = (
        f"Pictures of 16 bits should fill the range 0 to 65535. Found numbers up to {largest} only ({bits} bits) in "
        f"{how_many} of them, which would come out almost black: {name_some([f'`{file}`' for file in files])}. Write "
        f"`value_range: [0, {2**bits - 1}]` in dataset.yaml (or set `data.value_range=[0,{2**bits - 1}]`){clipped}; "
        "`[0, 65535]` if they are that dark."
    )
    return Finding("h", severity, message, names, files)


def _flat(subject: Subject, *, of_8_bits: bool) -> list[Finding]:
    scan = subject.scan
    chosen = (scan.contrast < FLAT) & (scan.image_sizes[:, 0] > 0)
    if of_8_bits:  # the others are flat only because their range is not known
        chosen &= scan.largest == 0
    if not chosen.any():
        return []
    names = _names(subject, chosen)
    files = tuple(map(subject.image, names))
    message = (
        f"{len(names)} pictures are constant or nearly so (standard deviation below {FLAT:g} of 255): "
        f"{name_some([f'`{file}`' for file in files])}. Remove them if they show nothing."
    )
    return [Finding("h", WARN, message, names, files)]


def _several(subject: Subject) -> list[Finding]:
    names = _names(subject, subject.scan.frames > 1)
    if not names:
        return []
    files = tuple(map(subject.image, names))
    message = (
        f"{len(names)} pictures hold several pages or frames, of which the first is read: "
        f"{name_some([f'`{file}`' for file in files])}. Export the others as pictures of their own if they count."
    )
    return [Finding("h", WARN, message, names, files)]


def _names(subject: Subject, chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(name for name, one in zip(subject.scan.ids, chosen.tolist(), strict=True) if one)
