"""Which runs were made on the same data: the identity of a model never stands in for that of its data."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from hsl.reports.naming import flatten
from hsl.run_folder.run import Run

UNNAMED = "unnamed data set"


@dataclass(frozen=True)
class DataSet:
    """Runs on the same pictures, test pictures and annotations; ``name`` is its own within a report."""

    name: str
    runs: Sequence[Run]


@dataclass(frozen=True)
class _Identity:
    """What provenance.json and splits.json tell; none: they do not."""

    name: str | None = None
    split: str | None = None
    test: str | None = None

    @classmethod
    def of(cls, run: Run) -> "_Identity":
        name, split = run.provenance.get("data"), run.provenance.get("split_sha256")
        test = None if run.split is None else hashlib.sha256(json.dumps(sorted(run.split.test)).encode()).hexdigest()
        return cls(None if name is None else str(name), None if split is None else str(split), test)

    @property
    def parts(self) -> tuple[str | None, str | None, str | None]:
        return self.name, self.split, self.test

    def agrees(self, other: "_Identity") -> bool:
        return all(a == b or None in (a, b) for a, b in zip(self.parts, other.parts, strict=True))

    def filled(self, other: "_Identity") -> "_Identity":
        return _Identity(*[a if a is not None else b for a, b in zip(self.parts, other.parts, strict=True)])


@dataclass
class _Group:
    identity: _Identity
    runs: list[Run] = field(default_factory=list)


def data_sets(runs: Sequence[Run]) -> tuple[list[DataSet], list[Run]]:
    """Sort runs by their data, in the order in which the data sets appear.

    Two runs are on the same data where the name of the data set, the hash over its pictures, the test pictures and the
    hashes of what was scored agree; what a run does not tell disagrees with nothing. Where masks or labels of a fold
    changed between runs, the runs before and after are two data sets.

    Returns:
        The data sets, and the runs of which it cannot be told which data they are on.
    """
    groups: list[_Group] = []
    unknown: list[Run] = []
    for run in sorted(runs, key=lambda run: sum(part is None for part in _Identity.of(run).parts)):
        identity = _Identity.of(run)
        fitting = [group for group in groups if identity.agrees(group.identity)]
        if identity.split is None and len(fitting) != 1:
            fitting = [group for group in fitting if _same_settings(run, group.runs)]
        if identity.split is None and not fitting and groups:
            unknown.append(run)
        elif fitting:
            fitting[0].runs.append(run)
            fitting[0].identity = fitting[0].identity.filled(identity)
        else:
            groups.append(_Group(identity, [run]))
    place = {run.folder: i for i, run in enumerate(runs)}
    found = []
    for group in groups:
        versions = _versions(sorted(group.runs, key=lambda run: place[run.folder]))
        found += [(group.identity, begin, version) for begin, version in versions]
    found.sort(key=lambda one: place[one[2][0].folder])
    return _named(found), unknown


def _same_settings(run: Run, others: Sequence[Run]) -> bool:
    """Whether a run that ended before it had read its data was asked for the data of one of the others."""
    node = run.config.get("data")
    return bool(node) and any(
        flatten({"data": node}) == flatten({"data": other.config.get("data")}) for other in others
    )


def _versions(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Runs of each state of the annotations, with when its first one started; the oldest state first.

    The k-th state of a fold belongs to the k-th of the data set. A run that does not tell, or whose fold has one state,
    belongs to the last state that had begun when it started.
    """
    states: dict[int, dict[tuple[str, str], str]] = {}
    for run in sorted(runs, key=_started):
        if (told := _annotations(run)) is not None:
            states.setdefault(run.fold, {}).setdefault(told, _started(run))
    number = max((len(each) for each in states.values()), default=1)
    if number == 1:
        return [("", list(runs))]
    begins = [min(list(each.values())[k] for each in states.values() if len(each) > k) for k in range(number)]
    versions: list[list[Run]] = [[] for _ in range(number)]
    for run in runs:
        told = _annotations(run)
        own = list(states.get(run.fold, {})) if run.config else []
        if told is not None and len(own) > 1:
            versions[own.index(told)].append(run)
        else:
            versions[max(sum(begin <= _started(run) for begin in begins) - 1, 0)].append(run)
    return [(begin, version) for begin, version in zip(begins, versions, strict=True) if version]


def _annotations(run: Run) -> tuple[str, str] | None:
    hashes = run.provenance.get("annotations_sha256") if run.config else None
    return (str(hashes["val"]), str(hashes["test"])) if hashes else None


def _started(run: Run) -> str:
    return str(run.provenance.get("started", ""))


def _named(found: Sequence[tuple[_Identity, str, Sequence[Run]]]) -> list[DataSet]:
    """Names with what sets data sets of one name apart."""
    names = [identity.name or UNNAMED for identity, _, _ in found]
    marks = [
        [f"split {(identity.split or 'unknown')[:8]}" for identity, _, _ in found],
        [f"test part {(identity.test or 'unknown')[:8]}" for identity, _, _ in found],
        [f"annotations from {begin[:16].replace('_', ' ')} on" for _, begin, _ in found],
    ]
    for told in marks:
        alike = {name: {told[i] for i, other in enumerate(names) if other == name} for name in names}
        names = [f"{name} ({told[i]})" if len(alike[name]) > 1 else name for i, name in enumerate(names)]
    times = Counter(names)
    names = [f"{name} ({i})" if times[name] > 1 else name for i, name in enumerate(names, start=1)]
    return [DataSet(name, runs) for name, (_, _, runs) in zip(names, found, strict=True)]
