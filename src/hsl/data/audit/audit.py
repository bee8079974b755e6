"""The check of a fold before the first epoch: leaks between the parts, masks that mean something else."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hsl.config.ranges import FractionAboveZero
from hsl.data.audit.near_duplicates import ORIENTATIONS, copied_pictures, is_blank, stored_near_duplicates
from hsl.data.audit.pixel_values import overlapping_annotations, picture_values
from hsl.data.audit.rules import (
    STOP,
    Finding,
    Subject,
    absent_classes,
    absent_image_classes,
    mask_values,
    mismatched_files,
    shared_groups,
    shared_pictures,
    unread_masks,
)
from hsl.data.audit.states import RuleState, rule_states
from hsl.data.files.records import Catalogue
from hsl.data.files.scan import Scan
from hsl.errors import ConfigError, DataError
from hsl.files.split_file import Split

RULES = {
    "a": "a picture in two parts",
    "b": "a group in two parts",
    "c": "near-duplicates in two parts",
    "d": "values of the masks",
    "e": "pictures and masks that do not fit",
    "f": "classes without a training picture",
    "g": "a picture that is there twice",
    "h": "values of the pictures",
}
MAX_PAIRS = 10_000
"""So many pairs are kept, those of the highest correlation; all are counted."""


@dataclass(frozen=True)
class Pair:
    """Two near-duplicates in different parts: ``second`` put into ``orientation`` looks like ``first``."""

    first: str
    second: str
    first_part: str
    second_part: str
    correlation: float
    orientation: str


@dataclass(frozen=True)
class Audit:
    """What the audit of one fold found.

    Attributes:
        data: Name of the data set.
        sha256: Of its pictures, see `Split.sha256`.
        method: How the split was made.
        groups: The attribute that it keeps whole.
        fold: Number of the fold.
        num_pictures: By part.
        near_duplicates: ``"stop"``, ``"warn"`` or ``"off"``: whether they were looked for.
        threshold: Of their correlation.
        missing_classes: The same for the classes absent from the training part.
        conflicts: The same for copies of a picture whose masks or labels contradict each other.
        num_inside: Pairs of near-duplicates within a part, which do no harm.
        num_across: Pairs in different parts.
        pairs: Those in different parts, highest correlation first, at most `MAX_PAIRS`.
        findings: By rule.
        states: What each rule came to, and what it could not look at.
        not_read: Files among the pictures that are not part of the data set, as the reader tells of them.
        num_blank: Pictures without contrast, which were not compared.
    """

    data: str
    sha256: str
    method: str
    groups: str | None
    fold: int
    num_pictures: dict[str, int]
    near_duplicates: str
    threshold: float
    missing_classes: str
    conflicts: str
    num_inside: int
    num_across: int
    pairs: tuple[Pair, ...]
    findings: tuple[Finding, ...]
    states: dict[str, RuleState]
    not_read: tuple[str, ...] = ()
    num_blank: int = 0

    @property
    def stopped(self) -> bool:
        """Whether a finding stops the run."""
        return any(finding.severity == STOP for finding in self.findings)

    def raise_if_stopped(self) -> None:
        """Stop the run if a finding does.

        Raises:
            DataError: With all findings, the ones that only warn included.
        """
        if not self.stopped:
            return
        listed = "".join(f"\n({f.rule}, {f.severity}) {f.message}" for f in self.findings)
        raise DataError(f"The audit stops fold {self.fold} of `{self.data}`:{listed}")

    def to_json(self) -> str:
        """The text of ``audit.json``."""
        return json.dumps({"stopped": self.stopped, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"


def audit(
    catalogue: Catalogue,
    scan: Scan,
    split: Split,
    fold: int,
    *,
    near_duplicates: str | bool | None = "stop",
    threshold: FractionAboveZero = 0.98,
    missing_classes: str | bool | None = "stop",
    conflicts: str | bool | None = "stop",
    image_labels: str | Sequence[str] | None = None,
    cache_dir: Path | str | None = None,
) -> Audit:
    """Audit one fold.

    (a) An id or a content hash in two parts; (b) a group in two parts; (c) near-duplicates in two parts,
    under the eight flips and turns; (d) masks with values outside the classes, 0/255 masks for two classes,
    an ignore value that is a class; (e) pictures and masks that are unpaired, unlike in size or cannot be
    read; (f) classes, of masks and of whole pictures, absent from the training part, unless (d) or (e) tell that
    masks mean something else; (g) pictures of one content with unlike masks or labels; (h) pictures of 16 bits that
    are of 10, 12 or 14, constant pictures, several pages. All stop the run, except (b) when the split takes no
    groups, (d) 0/255 masks among others, (g) copies inside a part that are alike in all, (h) but for the range of
    most pictures, and what is set to "warn".

    Args:
        catalogue: The data set.
        scan: Its scan.
        split: Its fold assignment.
        fold: Number of the fold.
        near_duplicates: What (c) does: ``"stop"``, ``"warn"``, or ``"off"`` (``None``): no search.
        threshold: Correlation in (0, 1] from which two pictures are near-duplicates, see
            `hsl.data.audit.near_duplicates.find_near_duplicates`.
        missing_classes: What (f) does, likewise.
        conflicts: What (g) does, likewise.
        image_labels: The columns whose labels (g) compares, besides the masks, and whose classes (f) counts.
        cache_dir: Where the near-duplicates are stored, so that the next fold need not search; ``None``
            stores nothing.

    Raises:
        ConfigError: An argument is outside its range, or there is no such fold.
    """
    search = _severity("near_duplicates", near_duplicates)
    missing, unlike = _severity("missing_classes", missing_classes), _severity("conflicts", conflicts)
    subject = Subject(catalogue, scan, split, fold)
    pairs: tuple[Pair, ...] = ()
    num_inside = num_across = num_blank = 0
    unchecked: dict[str, str] = {}
    findings = [*shared_pictures(subject), *shared_groups(subject)]
    if search != "off":
        pairs, num_across, num_inside = _search(subject, threshold, None if cache_dir is None else Path(cache_dir))
        findings += _near_duplicates(subject, pairs, num_across, search)
        num_blank = int(is_blank(scan.thumbnails[scan.image_sizes[:, 0] > 0]).sum())
    values = mask_values(subject)
    findings += [*values, *overlapping_annotations(subject), *mismatched_files(subject)]
    if missing != "off":
        absent = absent_classes(subject, missing)
        misread = any(one.severity == STOP for one in values)
        if misread or (absent and unread_masks(subject)):  # they would only repeat what is wrong with the masks
            unchecked["f"] = "masks mean something else" if misread else "masks cannot be read"
        else:
            findings += absent
        findings += absent_image_classes(subject, missing, image_labels)
    if unlike != "off":
        findings += copied_pictures(subject, unlike, image_labels)
    findings += picture_values(subject)
    return Audit(
        data=catalogue.name,
        sha256=split.sha256,
        method=split.method,
        groups=split.groups,
        fold=fold,
        num_pictures={part: len(ids) for part, ids in subject.parts.items()},
        near_duplicates=search,
        threshold=threshold,
        missing_classes=missing,
        conflicts=unlike,
        num_inside=num_inside,
        num_across=num_across,
        pairs=pairs,
        findings=tuple(findings),
        states=rule_states(subject, findings, {"c": search, "f": missing, "g": unlike}, unchecked),
        not_read=catalogue.not_read,
        num_blank=num_blank,
    )


def _search(subject: Subject, threshold: float, cache_dir: Path | None) -> tuple[tuple[Pair, ...], int, int]:
    """The pairs in different parts, how many there are, and how many are in the same part."""
    scan = subject.scan
    decoded = np.flatnonzero(scan.image_sizes[:, 0] > 0)
    found = stored_near_duplicates(scan.thumbnails[decoded], threshold, cache_dir)
    parts = list(subject.parts)
    part = np.array([parts.index(subject.part_of[name][0]) for name in scan.ids])
    first, second = decoded[found.first], decoded[found.second]
    across = np.flatnonzero(part[first] != part[second])
    order = across[np.lexsort((across, -found.correlation[across]))][:MAX_PAIRS]
    pairs = tuple(
        Pair(
            scan.ids[first[i]],
            scan.ids[second[i]],
            parts[part[first[i]]],
            parts[part[second[i]]],
            round(float(found.correlation[i]), 5),
            ORIENTATIONS[found.orientation[i]],
        )
        for i in order
    )
    return pairs, len(across), len(found) - len(across)


def _near_duplicates(subject: Subject, pairs: Sequence[Pair], number: int, severity: str) -> list[Finding]:
    if not pairs:
        return []
    named = ", ".join(
        f"{subject.labelled(pair.first)} with {subject.labelled(pair.second)} "
        f"({pair.correlation:.4f}, {pair.orientation})"
        for pair in pairs[:3]
    )
    has_groups = any("group" in record.attributes for record in subject.catalogue.records)
    way = (
        "Split by their groups with `data.split.groups=group`"
        if has_groups and subject.split.groups is None
        else "Give both one value of `group` in labels.csv"
    )
    more = f" and {number - 3} more" if number > 3 else ""
    message = (
        f"{number} pairs of near-duplicates have their pictures in two parts: {named}{more}. {way}, or go on "
        "with `data.audit.near_duplicates=warn`."
    )
    ids = sorted({name for pair in pairs for name in (pair.first, pair.second)})
    return [Finding("c", severity, message, tuple(ids), tuple(map(subject.image, ids)))]


def _severity(name: str, value: str | bool | None) -> str:
    if value is None or value is False:  # YAML 1.1 reads a bare `off` as false
        return "off"
    if value not in ("stop", "warn", "off"):
        raise ConfigError(f"`{name}` should be stop, warn or off. Found `{name} = {value}`. Set `data.audit.{name}`.")
    return str(value)
