"""From run folders to the members of an ensemble: which runs are one member, whether all fit together, their rows."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.ensembles.rows import Rows
from hsl.errors import DataError
from hsl.run_folder.member_rows import read_features, read_map
from hsl.run_folder.run import Run, ScoredOn, gather
from hsl.verbs.ensemble.members import (
    Kind,
    Member,
    head_classes,
    members_of,
    not_predicted_once,
    not_whole,
    unlabelled,
    unlike_data,
    unlike_heads,
)
from hsl.verbs.ensemble.planning.planned import STAGES, Planned, sorted_out, trained_for

EPOCHS_CHOSEN = "epochs were chosen on these rows"
"""What every table says of members without a part ``stop``."""


@dataclass(frozen=True, eq=False)
class Members:
    """What fits together.

    Attributes:
        members: two or more, sorted by name.
        kind: of the head at which they meet: ``image``, or ``dense``, whose classes are those of the global space.
        inference: the predictor of their rows, by the name of its scores.
        left_out: what matched and is no member, a sentence each.
        students: of plans, trained on every fold; they are no members.
    """

    members: tuple[Member, ...]
    kind: Kind
    inference: str
    left_out: tuple[str, ...]
    students: tuple[Planned, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Of the head."""
        return tuple(head_classes(self._any, self.kind))

    @property
    def several(self) -> bool:
        """Whether an image, or of overlapping channels a pixel, may show several classes."""
        return self._any.several if self.kind == "image" else self._any.overlapping

    @property
    def folds(self) -> dict[str, int]:
        """Id of every image outside the test part to the number of the fold that predicted it."""
        return {name: number for number, fold in enumerate(self.members[0].split.folds) for name in fold.val}

    @property
    def test(self) -> tuple[str, ...]:
        """Ids of the test part."""
        return self.members[0].split.test

    @property
    def epochs_chosen_on_rows(self) -> list[str]:
        """Names of the members whose epochs the rows themselves chose, for want of a part ``stop``."""
        return [one.name for one in self.members if not one.split.has_stop_part]

    @property
    def notes(self) -> list[str]:
        """What every table says."""
        chosen = self.epochs_chosen_on_rows
        of = "" if len(chosen) == len(self.members) else f" ({', '.join(chosen)})"
        return [EPOCHS_CHOSEN + of] * bool(chosen) + list(self.left_out)

    @cached_property
    def _any(self) -> Run:
        return next(iter(self.members[0].runs.values()))


def gather_members(
    patterns: Sequence[str],
    ignore: Sequence[str],
    name_key: str,
    kind: Kind | None = None,
    inference: str = "plain",
    plan: str | None = None,
    stages: Collection[str] = STAGES,
    alone: bool = False,
) -> Members:
    """The members of an ensemble, or what else is made of predictions out of fold.

    A member is a model as a report knows it, with one seed. Runs that did not finish, and members without such a head,
    are left out, which is said. What `hsl ensemble plan` had trained is called as the plan calls it.

    Args:
        patterns: globs of run folders or of folders above them.
        ignore: patterns of config keys in which runs of one member may differ.
        name_key: the key of the encoder's name.
        kind: of the head at which they meet; none: ``image`` where a run has such a head, else ``dense``.
        inference: the predictor of the rows.
        plan: name of the plan whose members count; none: the one there is.
        stages: that may read members of a plan.
        alone: whether one member is enough.

    Raises:
        DataError: no run matches, or they do not fit together; every finding at once, with the runs.
    """
    runs = gather(patterns)
    finished = [run for run in runs if run.status == "finished"]
    kind = kind or ("image" if any(run.image_head for run in finished) else "dense")
    left_out = [f"left out: `{run.folder}`: {run.status}: {run.reason.rstrip('.')}" for run in runs
                if run.status != "finished"]  # fmt: skip
    told = sorted_out(runs, ignore, name_key, plan)
    left_out += told.left_out
    members: list[Member] = []
    findings = list(told.findings)
    for model in told.models:
        for member in members_of(model):
            stage = trained_for(member.name)
            if not all(head_classes(run, kind) for run in member.runs.values()):
                left_out.append(f"left out: {member.name}, which has no {kind} head")
            elif stage and (kind == "dense" or stage not in stages):
                left_out.append(f"left out: {member.name}, which the stage {stage} of image heads alone reads")
            else:
                members.append(member)
                findings += not_whole(member, model)
    least, number = (1, "one member") if alone else (2, "two members")
    if len(members) < least:
        named = "".join(f": {member.name}" for member in members)
        findings.append(f"{len(members)} of at least {number} with {kind} heads{named}")
    findings = findings or [*unlike_data(members), *unlike_heads(members, kind)]
    findings = findings or [one for member in members for one in not_predicted_once(member, kind, inference)]
    findings = findings or (unlabelled(members, inference) if kind == "image" else [])
    if findings:
        listed = "".join(f"\n{sentence}" for sentence in (*findings, *left_out))
        raise DataError(
            f"`runs` should be at least {number}, each trained on every fold of the same split of the same data and "
            f"scored as `{inference}`. Found:{listed}\nTrain what is missing, or let `runs` match fewer."
        )
    members.sort(key=lambda member: member.name)
    return Members(tuple(members), kind, inference, tuple(left_out), tuple(told.students))


def out_of_fold_rows(found: Members, contents: Mapping[str, str], features: bool = False) -> Rows:
    """One prediction of every member for every image outside the test part, by the fold that did not train on it.

    Args:
        found: members that meet at an image head.
        contents: id -> hash of the image.
        features: whether the pooled features are taken along; `hsl.verbs.ensemble.member_rows` makes them.

    Raises:
        DataError: features were not kept, or a probability is none.
    """
    return _rows(found, contents, features, "val", {name: [fold] for name, fold in found.folds.items()})


def rows_of_test(found: Members, contents: Mapping[str, str], features: bool = False) -> Rows:
    """The images of the test part: of every member the mean over its folds. To be called once, at the very end.

    The arguments and errors are those of `out_of_fold_rows`. The foreground is not known of these rows: it needs masks.
    """
    folds = sorted(found.members[0].runs)
    return _rows(found, contents, features, "test", dict.fromkeys(found.test, folds))


def probability_map(found: Members, member: Member, name: str) -> NDArray[np.float32]:
    """``(C, H, W)`` of one image at the size of its source, as `hsl.verbs.ensemble.member_rows` kept it.

    Outside the test part it is that of the fold that did not train on the image, of a test image the mean over all.

    Raises:
        DataError: it was not kept, or the file is damaged.
    """
    fold = found.folds.get(name)
    part, runs = ("test", list(member.runs.values())) if fold is None else ("val", [member.runs[fold]])
    total = sum(read_map(run.folder, part, name).astype(np.float32) for run in runs)
    return np.asarray(total / np.float32(255 * len(runs)))


def _rows(
    found: Members, contents: Mapping[str, str], features: bool, part: str, folds: Mapping[str, Sequence[int]]
) -> Rows:
    """Rows of the images of ``folds``, id -> the folds whose mean is taken."""
    on, of_fold = ScoredOn(part, found.inference), part == "val"
    told = _labels(found.members[0], on, folds)
    try:
        return Rows.sorted(
            ids=list(folds),
            groups=[told[name][0] for name in folds],
            contents=[contents[name] for name in folds],
            labels=[told[name][1] for name in folds],
            classes=found.classes,
            several=found.several,
            members=[member.name for member in found.members],
            probabilities=[_means(member, folds, lambda run: _probabilities(run, on)) for member in found.members],
            folds=[folds[name][0] if of_fold else -1 for name in folds],
            features={
                member.name: _means(member, folds, lambda run: read_features(run.folder, part))
                for member in (found.members if features else ())
            },
            foreground=_foreground(found, folds) if of_fold else None,
        )
    except ValueError as error:
        raise DataError(f"The rows of the part {part} cannot be used: {error}") from error


def _means(
    member: Member, folds: Mapping[str, Sequence[int]], read: Callable[[Run], Mapping[str, NDArray[Any]]]
) -> NDArray[np.float64]:
    """``(N, ...)``: of every image the mean over its folds of what is read of their runs."""
    sums: dict[str, NDArray[np.float64]] = {}
    for fold, run in sorted(member.runs.items()):
        values = read(run)
        for name in (name for name, of in folds.items() if fold in of):
            value = np.asarray(values[name], dtype=np.float64)
            sums[name] = sums[name] + value if name in sums else value
    return np.stack([sums[name] / len(of) for name, of in folds.items()])


def _labels(member: Member, on: ScoredOn, folds: Mapping[str, Sequence[int]]) -> dict[str, tuple[str, Any]]:
    """Id to group and label."""
    told: dict[str, tuple[str, Any]] = {}
    for run in member.runs.values():
        pictures = run.image_pictures[on]
        each = zip(pictures.ids, pictures.groups, pictures.labels, strict=True)
        told |= {name: (group, label) for name, group, label in each if name in folds}
    return told


def _probabilities(run: Run, on: ScoredOn) -> dict[str, NDArray[np.float64]]:
    pictures = run.image_pictures[on]
    return dict(zip(pictures.ids, pictures.probabilities, strict=True))


def foreground_of(found: Members, name: str, fold: int) -> NDArray[np.float64]:
    """``(M,)``: mean IoU of the classes but the first of each member's mask of an image, NaN unknown.

    Args:
        found: the members.
        name: id of the image.
        fold: that predicted it; -1: an image of the test part, of which nothing is known.
    """
    on = ScoredOn("val", found.inference)
    rows = [member.runs[fold].images.get(on, {}).get(name) if fold >= 0 else None for member in found.members]
    return np.array([np.nan if row is None else row.scores.get("foreground_iou", np.nan) for row in rows])


def _foreground(found: Members, folds: Mapping[str, Sequence[int]]) -> NDArray[np.float64] | None:
    """``(M, N)``: `foreground_of` every image; none where nothing is known of any."""
    values = np.stack([foreground_of(found, name, fold) for name, (fold,) in folds.items()], axis=1)
    return None if np.isnan(values).all() else values
