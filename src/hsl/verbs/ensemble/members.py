"""A member of an ensemble, and why runs are none or do not fit together: a sentence a finding, with the runs."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hsl.files.split_file import Split
from hsl.reports.data_sets import data_sets
from hsl.reports.models import Model
from hsl.run_folder.pictures import ImagePictures
from hsl.run_folder.run import Run, ScoredOn

Kind = Literal["image", "dense"]
SHOWN = 3


@dataclass(frozen=True, eq=False)
class Member:
    """A model trained on every fold of a split, with one seed: ``runs`` by the number of the fold."""

    name: str
    runs: Mapping[int, Run]

    @property
    def split(self) -> Split:
        """Of all its runs; `gather_members` refuses those without one."""
        return next(run.split for run in self.runs.values() if run.split is not None)

    @property
    def folders(self) -> list[Path]:
        """The run folders, by fold."""
        return [self.runs[fold].folder for fold in sorted(self.runs)]

    @property
    def trained(self) -> dict[int, frozenset[str]]:
        """Fold to the ids that it was trained with or stopped by."""
        split = self.split
        return {fold: frozenset(split.folds[fold].train + split.folds[fold].stop) for fold in self.runs}


def members_of(model: Model) -> list[Member]:
    """The members of a model: one a seed."""
    seeds = sorted({seed for _, seed in model.finished})
    return [
        Member(
            model.label if len(seeds) == 1 else f"{model.label} · seed={seed}",
            {fold: run for (fold, other), run in sorted(model.finished.items()) if other == seed},
        )
        for seed in seeds
    ]


def head_classes(run: Run, kind: Kind) -> Sequence[str]:
    """Of the head; empty without one."""
    if run.metrics is None:
        return []
    return run.metrics.image_classes.get(run.image_head, []) if kind == "image" else run.metrics.classes


def not_whole(member: Member, model: Model) -> Iterator[str]:
    """Why a member is not whole."""
    if model.refused:
        yield f"{member.name}: {model.refused} ({_named(model.finished.values())})"
        return
    if bare := [run for run in member.runs.values() if run.split is None]:
        yield f"{member.name}: no fold assignment in {_named(bare)}"
        return
    for fold in sorted(set(range(len(member.split.folds))) - set(member.runs)):
        why = model.missing.get(fold, "no finished run of this seed")
        yield f"{member.name}: fold {fold} is missing ({why}); there is {_named(member.runs.values())}"


def unlike_data(members: Sequence[Member]) -> Iterator[str]:
    """Where members are on unlike data."""
    runs = [run for member in members for run in member.runs.values()]
    sets, unknown = data_sets(runs)
    if len(sets) > 1 or unknown:
        each = [f"{one.name}: {_named(one.runs)}" for one in sets]
        each += [f"unknown data: {_named(unknown)}"] * bool(unknown)
        yield f"unlike data, test parts or annotations: {'; '.join(each)}"
        return
    held_out = {member: ([fold.val for fold in member.split.folds], member.split.test) for member in members}
    for member in members[1:]:
        if held_out[member] != held_out[members[0]]:
            yield (
                f"unlike folds: {_named(member.runs.values())} of {member.name} predicted other images than "
                f"{_named(members[0].runs.values())} of {members[0].name}"
            )


def unlike_heads(members: Sequence[Member], kind: Kind) -> Iterator[str]:
    """Where their heads have unlike classes."""
    heads = {
        member: (list(head_classes(run, kind)), run.several if kind == "image" else run.overlapping)
        for member in members
        for run in member.runs.values()
    }
    for member in members[1:]:
        if heads[member] != heads[members[0]]:
            both = [
                f"{', '.join(heads[one][0])}{' (several at once)' * heads[one][1]} in {_named(one.runs.values())}"
                for one in (members[0], member)
            ]
            yield f"unlike classes: {both[0]}, and {both[1]}"


def not_predicted_once(member: Member, kind: Kind, inference: str) -> Iterator[str]:
    """Images that are not predicted exactly once."""
    split = member.split
    times = Counter(name for fold in split.folds for name in fold.val)
    everything = {name for fold in split.folds for name in (*fold.train, *fold.stop, *fold.val)}
    for word, names in (
        ("two folds", sorted(name for name, number in times.items() if number > 1)),
        ("no fold", sorted(everything - set(times))),
    ):
        if names:
            yield f"{member.name}: {_some(names)} predicted by {word} of {_named(member.runs.values())}"
    for fold, run in member.runs.items():
        for part, ids in (("val", split.folds[fold].val), ("test", split.test)):
            on = ScoredOn(part, inference)
            table: ImagePictures | Any = (run.image_pictures if kind == "image" else run.pictures).get(on)
            if table is None and ids:
                yield f"{member.name}: no predictions of {on} in {_named([run])}{_because(run)}"
            elif table is not None and (unlike := sorted(set(table.ids) ^ set(ids))):
                yield f"{member.name}: {_some(unlike)} in only one of split and predictions of {_named([run])}"


def unlabelled(members: Sequence[Member], inference: str) -> list[str]:
    """Images of which no label is known, or of which members were told unlike ones."""
    found: list[str] = []
    first: dict[str, Any] = {}
    for member in members:
        for run in member.runs.values():
            pictures = run.image_pictures[ScoredOn("val", inference)]
            unknown = [name for name, row in zip(pictures.ids, pictures.target, strict=True) if np.isnan(row).all()]
            if unknown:
                found.append(f"{_some(sorted(unknown))} without a label in {_named([run])}")
            told = {name: row.tolist() for name, row in zip(pictures.ids, pictures.target, strict=True)}
            unlike = [
                name for name, row in told.items() if not np.array_equal(first.get(name, row), row, equal_nan=True)
            ]
            if unlike:
                found.append(f"{_some(sorted(unlike))} with another label in {_named([run])}")
            first = told | first
    return found


def _because(run: Run) -> str:
    return f" ({run.problems[0].rstrip('.')})" if run.problems else ""


def _named(runs: Iterable[Run]) -> str:
    names = [f"`{run.folder}`" for run in runs]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} image{'s' * (len(names) > 1)} ({', '.join(names[:SHOWN])}{more})"
