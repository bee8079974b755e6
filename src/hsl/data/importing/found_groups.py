"""Groups where nobody named them: pictures that are alike, share a name or were taken in one go."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hsl.data.audit.near_duplicates import stored_near_duplicates
from hsl.data.files.records import Catalogue
from hsl.data.files.scan import Scan
from hsl.data.formats.tables import GROUP
from hsl.data.importing.candidates import bursts, number_of, shared_prefixes, taken

BURST_S = 2.0
"""Seconds between two pictures of one camera that were taken in one go."""
MOST_OF_ALL = 0.1
"""Share of all pictures above which a shared name is that of a class or a series, not of one thing."""
_FEW = 20


@dataclass(frozen=True)
class FoundGroups:
    """The groups that were found.

    Attributes:
        group: By id: the first id of its group; its own where it is alone.
        reason: By id why, in words.
        not_taken: Shared names that are too common to be of one thing, with how many pictures have them.
    """

    group: dict[str, str]
    reason: dict[str, str]
    not_taken: dict[str, int]

    @property
    def shared(self) -> dict[str, int]:
        """By group of two or more its pictures."""
        return {name: number for name, number in Counter(self.group.values()).items() if number > 1}


def find_groups(catalogue: Catalogue, scan: Scan, threshold: float, cache_dir: Path | None) -> FoundGroups:
    """Join pictures that belong together: connected components over all reasons.

    Joined are copies and near-duplicates (correlation of at least ``threshold`` in one of 8 orientations), names that
    are alike but for a number at the end, as those of frames of a video (unless more than a tenth of all pictures share
    them), pictures that one camera took within two seconds (EXIF), and what the data set's own ``group`` joins.

    Args:
        catalogue: The data set.
        scan: Its scan.
        threshold: Of near-duplicates.
        cache_dir: Where near-duplicates are kept; ``None``: nowhere.
    """
    ids = [record.id for record in catalogue.records]
    joined = _Joined(ids)
    own: dict[str, list[str]] = defaultdict(list)
    for record in catalogue.records:
        if value := record.attributes.get(GROUP):
            own[value].append(record.id)
    for value, names in own.items():
        joined.join(names, dict.fromkeys(names, f"group {value} of labels.csv"))
    decoded = np.flatnonzero(scan.image_sizes[:, 0] > 0)
    pairs = stored_near_duplicates(scan.thumbnails[decoded], threshold, cache_dir)
    for first, second, correlation in zip(
        decoded[pairs.first].tolist(), decoded[pairs.second].tolist(), pairs.correlation.tolist(), strict=True
    ):
        one, other = scan.ids[first], scan.ids[second]
        joined.join([one, other], {one: f"like {other} ({correlation:.3f})", other: f"like {one} ({correlation:.3f})"})
    not_taken = _join_names(ids, joined)
    moments = {record.id: taken(record.image) for record in catalogue.records}
    for burst in bursts(moments, BURST_S):
        joined.join(burst, {name: f"taken in one go, {moments[name].date}" for name in burst})
    groups = {name: joined.top(name) for name in ids}
    reasons = {name: joined.reasons.get(name, "alone") for name in ids}
    return FoundGroups(groups, reasons, not_taken)


def _join_names(ids: list[str], joined: "_Joined") -> dict[str, int]:
    by_prefix: dict[str, list[str]] = defaultdict(list)
    for name, prefix in shared_prefixes(ids).items():
        by_prefix[prefix].append(name)
    most = max(_FEW, MOST_OF_ALL * len(ids))
    not_taken = {prefix: len(names) for prefix, names in by_prefix.items() if len(names) > most}
    for prefix, names in by_prefix.items():
        if prefix not in not_taken:
            numbers = [number for name in names if (number := number_of(name)) is not None]
            joined.join(names, dict.fromkeys(names, f"name {prefix}, {min(numbers)} to {max(numbers)}"))
    return not_taken


class _Joined:
    """Connected components by union and find; the name of one is its first id, the reason the first that was given."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.above = {name: name for name in ids}
        self.reasons: dict[str, str] = {}

    def top(self, name: str) -> str:
        while self.above[name] != name:
            self.above[name] = self.above[self.above[name]]
            name = self.above[name]
        return name

    def join(self, names: Iterable[str], reasons: Mapping[str, str]) -> None:
        tops = {self.top(name) for name in names}
        if len(reasons) < 2:
            return
        first = min(tops)
        for top in tops:
            self.above[top] = first
        for name, reason in reasons.items():
            self.reasons.setdefault(name, reason)


def labels_rows(catalogue: Catalogue, found: FoundGroups) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a ``labels.csv`` with the groups: what was known of each picture stays.

    Args:
        catalogue: The data set.
        found: Its groups.
    """
    known = list(dict.fromkeys(name for record in catalogue.records for name in record.attributes))
    others = [name for name in known if name not in (GROUP, "group_reason")]
    rows = [
        [one.id, found.group[one.id], found.reason[one.id], *(one.attributes.get(name, "") for name in others)]
        for one in catalogue.records
    ]
    return ["id", GROUP, "group_reason", *others], rows
