"""The rules of the audit that need no picture: each returns what it finds, naming the files."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hsl.batch import IGNORE_INDEX
from hsl.channels import class_pixels
from hsl.data.files.mask_classes import how_to_name
from hsl.data.files.records import Catalogue, Record
from hsl.data.files.scan import Scan
from hsl.data.labels.image_labels import read_image_labels
from hsl.data.splits.grouping import name_some
from hsl.files.split_file import Split

STOP, WARN = "stop", "warn"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        rule: ``"a"`` to ``"h"``, see `hsl.data.audit.audit.RULES`.
        severity: ``"stop"`` or ``"warn"``.
        message: What was found, with the first few files, and the way out.
        ids: Ids of all pictures concerned.
        files: All files concerned, as the sources call them.
    """

    rule: str
    severity: str
    message: str
    ids: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Subject:
    """What is audited: a data set and one fold of it."""

    catalogue: Catalogue
    scan: Scan
    split: Split
    fold: int

    @cached_property
    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """Ids by part, see `Split.parts`."""
        return self.split.parts(self.fold)

    @cached_property
    def part_of(self) -> Mapping[str, list[str]]:
        """Parts by id; more than one is rule (a)."""
        found: dict[str, list[str]] = defaultdict(list)
        for part, ids in self.parts.items():
            for name in ids:
                found[name].append(part)
        return found

    @cached_property
    def records(self) -> Mapping[str, Record]:
        """Records by id."""
        return {record.id: record for record in self.catalogue.records}

    def image(self, name: str) -> str:
        """The file of a picture."""
        return self.records[name].image.name

    def mask(self, name: str) -> str:
        """The file of its mask."""
        mask = self.records[name].mask
        return "" if mask is None else mask.name

    def files(self, name: str) -> tuple[str, ...]:
        """The files of a picture and, if it has one, its mask."""
        return tuple(file for file in (self.image(name), self.mask(name)) if file)

    def labelled(self, name: str) -> str:
        """The file of a picture with its parts, for a message."""
        return f"`{self.image(name)}` ({' and '.join(self.part_of[name])})"


def shared_pictures(subject: Subject) -> list[Finding]:
    """(a) An id or a content hash on both sides."""
    findings = []
    twice = [name for name, parts in subject.part_of.items() if len(parts) > 1]
    if twice:
        message = (
            f"{len(twice)} pictures are in two parts at once: "
            f"{name_some(list(map(subject.labelled, twice)))}. Delete the stored fold assignment; it is "
            "made anew."
        )
        findings.append(Finding("a", STOP, message, tuple(twice), tuple(map(subject.image, twice))))
    hashes = zip(subject.scan.ids, subject.scan.content, strict=True)
    copies = _across(subject, {name: content for name, content in hashes if content})
    if copies:
        named = [" = ".join(map(subject.labelled, names)) for names in copies.values()]
        ids = tuple(name for names in copies.values() for name in names)
        message = (
            f"{len(copies)} files are in two parts: {name_some(named, 3)}. Remove the copies, or give "
            "them one value of `group` in labels.csv and split by it."
        )
        findings.append(Finding("a", STOP, message, ids, tuple(map(subject.image, ids))))
    return findings


def shared_groups(subject: Subject) -> list[Finding]:
    """(b) A group on both sides.

    Looked at are the attribute that the split keeps whole and, if the records have it, the attribute
    ``group``. Where groups are switched off (``groups=null``) it only warns.
    """
    used = subject.split.groups
    findings = []
    for attribute in dict.fromkeys([used or "group", "group"]):
        known = ((name, record.attributes.get(attribute)) for name, record in subject.records.items())
        torn = _across(subject, {name: value for name, value in known if value is not None})
        if not torn:
            continue
        parts = ({part for name in names for part in subject.part_of[name]} for names in torn.values())
        named = [f"{value} ({' and '.join(sorted(where))})" for value, where in zip(torn, parts, strict=True)]
        ids = tuple(name for names in torn.values() for name in names)
        way = "Correct splits.csv, or make folds with `data/split=kfold`."
        if used != attribute:
            whole = "each picture by itself" if used is None else f"the values of `{used}`"
            way = f"The split takes {whole}; set `data.split.groups={attribute}`, or correct the column."
        message = f"{len(torn)} values of `{attribute}` are in two parts: {name_some(named)}. {way}"
        severity = WARN if used is None else STOP
        findings.append(Finding("b", severity, message, ids, tuple(map(subject.image, ids))))
    return findings


def mask_values(subject: Subject) -> list[Finding]:
    """(d) Values outside the classes, 0/255 masks for two classes, an ignore value that is a class."""
    num_classes = subject.catalogue.num_values
    counts, ids = subject.scan.class_counts, np.array(subject.scan.ids)
    if num_classes > IGNORE_INDEX:
        message = (
            f"`{subject.catalogue.name}` has {num_classes} classes, so the ignored value {IGNORE_INDEX} "
            f"is one of them. At most {IGNORE_INDEX} fit."
        )
        return [Finding("d", STOP, message, (), ())]
    findings = []
    outside = counts[:, num_classes:IGNORE_INDEX]
    rows = np.flatnonzero(outside.any(axis=1))
    if len(rows):
        wrong = tuple(ids[rows].tolist())
        values = [np.flatnonzero(outside[row]) + num_classes for row in rows]
        named = [
            f"`{subject.mask(name)}` has {name_some(list(map(str, found)), 4)} ({outside[row].sum()} pixels)"
            for name, found, row in zip(wrong, values, rows, strict=True)
        ]
        message = (
            f"{len(wrong)} masks have values that are neither a class (0 to {num_classes - 1}) nor ignored "
            f"({IGNORE_INDEX}): {name_some(named)}. Correct the masks, or name all classes in dataset.yaml."
            f"{_how_to_name(subject)}"
        )
        findings.append(Finding("d", STOP, message, wrong, tuple(map(subject.mask, wrong))))
    if num_classes == 2 and _holds_indices(subject) and not findings:  # whose advice names 255 too
        findings += _black_and_white(subject)
    return findings


def _holds_indices(subject: Subject) -> bool:
    return subject.catalogue.palette is None and subject.catalogue.values is None


def _how_to_name(subject: Subject) -> str:
    catalogue = subject.catalogue
    if not _holds_indices(subject):
        return ""
    found = np.flatnonzero(subject.scan.class_counts.sum(axis=0)).tolist()
    stored = sorted(catalogue.ignore_index if number == IGNORE_INDEX else number for number in found)
    return f" {how_to_name(stored, catalogue.classes, catalogue.ignore_index)}"


def _black_and_white(subject: Subject) -> list[Finding]:
    """Masks that hold 255 and no 1, unless another one holds both: there 255 does mean "ignored"."""
    ones, ignored = (subject.scan.class_counts[:, value] > 0 for value in (1, IGNORE_INDEX))
    suspects = tuple(np.array(subject.scan.ids)[ignored & ~ones].tolist())
    if not suspects or (ones & ignored).any():
        return []
    files, (background, other) = tuple(map(subject.mask, suspects)), subject.catalogue.classes
    advice = how_to_name([0, IGNORE_INDEX], subject.catalogue.classes)
    if ones.any():
        line = f"values: {{0: {background}, 1: {other}, {IGNORE_INDEX}: {other}}}"
        advice = f"If it is `{other}`, write `{line}` in dataset.yaml."
    message = (
        f"{len(suspects)} masks hold {IGNORE_INDEX} and no 1, as if {IGNORE_INDEX} were meant to be class 1: "
        f"{name_some([f'`{file}`' for file in files])}. {IGNORE_INDEX} is ignored, so nothing would be "
        f"learnt of `{subject.catalogue.classes[1]}` there. {advice}"
    )
    return [Finding("d", WARN if ones.any() else STOP, message, suspects, files)]


def mismatched_files(subject: Subject) -> list[Finding]:
    """(e) A picture without a mask, a size unlike its mask's, a file that cannot be read."""
    scan, findings = subject.scan, []
    broken = tuple(name for name in scan.ids if name in scan.errors)
    if broken:
        shown = " ".join(scan.errors[name] for name in broken[:20]) + " ..." * (len(broken) > 20)
        message = f"The files of {len(broken)} pictures cannot be read: {shown}"
        named = tuple(file for name in broken for file in subject.files(name) if file in scan.errors[name])
        findings.append(Finding("e", STOP, message, broken, named))
    unpaired = tuple(name for name in scan.ids if subject.records[name].mask is None)
    if unpaired and not subject.catalogue.masks_optional:
        files = tuple(map(subject.image, unpaired))
        message = (
            f"{len(unpaired)} pictures have no mask: {name_some([f'`{file}`' for file in files])}. Add "
            "the masks, or remove the pictures."
        )
        findings.append(Finding("e", STOP, message, unpaired, files))
    decoded = (scan.image_sizes[:, 0] > 0) & (scan.mask_sizes[:, 0] > 0)
    rows = np.flatnonzero(decoded & (scan.image_sizes != scan.mask_sizes).any(axis=1))
    if len(rows):
        unlike = tuple(scan.ids[row] for row in rows)
        sizes = ((scan.image_sizes[row], scan.mask_sizes[row]) for row in rows)
        pairs = [
            f"`{subject.image(name)}` is {h} x {w}, `{subject.mask(name)}` {mask_h} x {mask_w}"
            for name, ((h, w), (mask_h, mask_w)) in zip(unlike, sizes, strict=True)
        ]
        message = (
            f"{len(rows)} pictures are unlike in size to their masks (height x width): "
            f"{name_some(pairs, 3)}. Export both at one size; pictures and masks are each turned upright by their own "
            "EXIF orientation first."
        )
        named = tuple(file for name in unlike for file in subject.files(name))
        findings.append(Finding("e", STOP, message, unlike, named))
    return findings


def unread_masks(subject: Subject) -> bool:
    """Whether there is a mask that cannot be read."""
    heights = dict(zip(subject.scan.ids, subject.scan.mask_sizes[:, 0].tolist(), strict=True))
    return any(record.mask is not None and not heights[name] for name, record in subject.records.items())


def absent_classes(subject: Subject, severity: str) -> list[Finding]:
    """(f) Classes without a pixel in the training part of the fold."""
    scan, classes = subject.scan, subject.catalogue.classes
    present = class_pixels(scan.class_counts, len(classes), subject.catalogue.overlapping) > 0
    absent = np.flatnonzero(~present[scan.rows(subject.parts["train"])].any(axis=0))
    if not len(absent):
        return []
    named = []
    for index in absent.tolist():
        holders = {scan.ids[row] for row in np.flatnonzero(present[:, index])}
        in_part = {part: len(holders.intersection(ids)) for part, ids in subject.parts.items()}
        where = ", ".join(f"{number} in {part}" for part, number in in_part.items() if number)
        named.append(f"{classes[index]} ({where or 'nowhere in the data set'})")
    message = (
        f"{len(named)} classes are in no training picture: {name_some(named, 20)}. {_other_split(subject)}, "
        "take them out of dataset.yaml, or go on with "
        "`data.audit.missing_classes=warn`."
    )
    ids = tuple(scan.ids[row] for row in np.flatnonzero(present[:, absent].any(axis=1)))
    return [Finding("f", severity, message, ids, tuple(map(subject.mask, ids)))]


def absent_image_classes(subject: Subject, severity: str, columns: str | Sequence[str] | None) -> list[Finding]:
    """(f) Classes of whole pictures that no training picture is known to show."""
    if columns is None:
        return []
    records = subject.catalogue.records
    labels = read_image_labels(columns, records)
    place = {record.id: i for i, record in enumerate(records)}
    counts = {part: labels.count([place[name] for name in ids]).tolist() for part, ids in subject.parts.items()}
    absent = [k for k, number in enumerate(counts["train"]) if not number]
    if not absent:
        return []
    named = []
    for k in absent:
        where = ", ".join(f"{number[k]} in {part}" for part, number in counts.items() if number[k])
        named.append(f"{labels.classes[k]} ({where or 'nowhere in the data set'})")
    message = (
        f"{len(absent)} classes of `data.image_labels` are in no training picture: {name_some(named, 20)}. "
        f"{_other_split(subject)}, or go on with `data.audit.missing_classes=warn`."
    )
    ids = tuple(records[i].id for i in np.flatnonzero(labels.shown()[:, absent].any(axis=1)).tolist())
    return [Finding("f", severity, message, ids, tuple(map(subject.image, ids)))]


def _other_split(subject: Subject) -> str:
    less = ", a smaller `data.split.stop_fraction`" if "stop" in subject.parts else ""
    return f"Use fewer folds{less} or another `data.split.seed`"


def _across(subject: Subject, values: Mapping[str, str]) -> dict[str, list[str]]:
    """Value -> its ids, for the values that are found in more than one part."""
    holders: dict[str, list[str]] = defaultdict(list)
    for name, value in values.items():
        if name in subject.part_of:
            holders[value].append(name)
    parts = {value: {subject.part_of[name][0] for name in names} for value, names in holders.items()}
    return {value: names for value, names in sorted(holders.items()) if len(parts[value]) > 1}
