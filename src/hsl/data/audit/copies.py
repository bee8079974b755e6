"""The rule of the audit on pictures that are there twice: whether the copies say the same."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from hsl.data.audit.rules import WARN, Finding, Subject
from hsl.data.files.decoding import Decoding
from hsl.data.splits.grouping import name_some


def copied_pictures(subject: Subject, severity: str, image_labels: str | Sequence[str] | None) -> list[Finding]:
    """(g) Pictures of one content whose masks or labels contradict each other; alike ones inside a part are warned of.

    Copies in two parts are rule (a). A mask or label that is not known contradicts none, nor does a training mask that
    is not the data set's own: it may show another draw of the objects.

    Args:
        subject: What is audited.
        severity: Of contradictions.
        image_labels: The columns that are learnt, as in `hsl.data.labels.image_labels.read_image_labels`.
    """
    columns = [image_labels] if isinstance(image_labels, str) else list(image_labels or ())
    holders: dict[str, list[str]] = defaultdict(list)
    for name, content in zip(subject.scan.ids, subject.scan.content, strict=True):
        if content and name in subject.part_of:
            holders[content].append(name)
    masks = dict(zip(subject.scan.ids, subject.scan.mask_content, strict=True))
    alike, unlike = [], []
    for names in holders.values():
        if len(names) == 1:
            continue
        odd = [f"`{column}`" for column in columns if _labels_differ(subject, names, column)]
        odd += ["mask"] * _masks_differ(subject, names, masks)
        if odd:
            unlike.append((names, f" (unlike {', '.join(odd)})"))
        elif len({subject.part_of[name][0] for name in names}) == 1:
            alike.append((names, ""))
    way = "Keep the right one of each, or correct them, or go on with both by `data.audit.conflicts=warn`."
    counted = "files are there several times, with unlike masks or labels"
    found = [_finding(subject, severity, counted, unlike, way)] if unlike else []
    counted = "files are there several times in one part, and count as often"
    return found + ([_finding(subject, WARN, counted, alike, "Remove the copies.")] if alike else [])


def _finding(subject: Subject, severity: str, counted: str, sets: Sequence[tuple[list[str], str]], way: str) -> Finding:
    named = [" = ".join(map(subject.labelled, names)) + how for names, how in sets]
    ids = tuple(name for names, _ in sets for name in names)
    files = tuple(file for name in ids for file in subject.files(name))
    return Finding("g", severity, f"{len(sets)} {counted}: {name_some(named, 3)}. {way}", ids, files)


def _labels_differ(subject: Subject, names: Sequence[str], column: str) -> bool:
    return len({subject.records[name].attributes.get(column) for name in names} - {None}) > 1


def _masks_differ(subject: Subject, names: Sequence[str], contents: Mapping[str, str]) -> bool:
    """By their pixels: the same mask can be stored in several ways."""
    catalogue, records = subject.catalogue, subject.records
    decoding = Decoding.of(catalogue)
    own = [name for name in names if name not in catalogue.relabelled and name not in subject.scan.errors]
    masks = {contents[name]: mask for name in own if (mask := records[name].mask) is not None}
    if len(masks) < 2:
        return False
    first, *others = (decoding.mask(mask) for mask in masks.values())
    return any(not np.array_equal(first, other) for other in others)
