"""What the members of an ensemble say of the pictures that they held out, as targets of a student."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsl.batch import ATTENTION
from hsl.ensembles.rows import Floats, Rows
from hsl.errors import DataError
from hsl.files.split_file import Split
from hsl.files.teacher_file import TeacherTargets, write_teachers
from hsl.verbs.ensemble.gathering import Members, probability_map
from hsl.verbs.ensemble.members import Member, head_classes

DENSE = "segmentation"


def write_targets(
    folder: Path,
    rows: Rows | None,
    found: Members,
    teachers: Sequence[str],
    *,
    maps: bool,
    attention: Mapping[str, NDArray[np.float32]] | None = None,
) -> None:
    """Write the targets of the image head and, with ``maps``, those of the dense head.

    Args:
        folder: where they are written.
        rows: out-of-fold rows; ``None``: the members have masks alone.
        found: the members of these rows.
        teachers: names of those that teach.
        maps: whether masks are taught; by `mask_teachers`, whose maps were kept.
        attention: id -> where the teachers look, ``(h, w)``; ``None``: that is not taught.

    Raises:
        DataError: there is no such teacher, maps were not kept, or a fold trained on what it predicted.
    """
    members = [one for one in found.members if one.name in teachers]
    if rows is None:
        targets = _of_masks_alone(found, members)
    else:
        head = next(iter(members[0].runs.values())).image_head
        targets = image_targets(rows, members[0].split, head, teachers)
    dense = mask_teachers(members) if maps else []
    kinds = (*([DENSE] if maps else []), *([ATTENTION] if attention is not None else []))
    of_masks = {DENSE: tuple(head_classes(next(iter(dense[0].runs.values())), "dense"))} if maps else {}
    targets = replace(targets, classes={**targets.classes, **of_masks}, maps=kinds)

    def maps_of(name: str) -> dict[str, Floats]:
        made = {DENSE: _mean_map(found, dense, name)} if maps else {}
        return made if attention is None else made | {ATTENTION: np.asarray(attention[name], np.float64)}

    write_teachers(folder, targets, ((name, maps_of(name)) for name in (targets.ids if kinds else ())))


def mask_teachers(members: Sequence[Member]) -> list[Member]:
    """The members that can teach masks.

    Raises:
        DataError: none has a dense head, or their classes differ or may overlap in a pixel.
    """
    dense = [one for one in members if all(head_classes(run, "dense") for run in one.runs.values())]
    runs = [run for one in dense for run in one.runs.values()]
    names = {tuple(head_classes(run, "dense")) for run in runs}
    if len(names) != 1 or any(run.overlapping for run in runs):
        told = "classes that overlap" if len(names) == 1 else sorted(names) or "none"
        raise DataError(
            f"Teachers of masks should have a dense head of the same classes, which exclude each other. Found {told}. "
            "Let `runs` match others, or teach an image head alone with `maps=false`."
        )
    return dense


def _of_masks_alone(found: Members, members: Sequence[Member]) -> TeacherTargets:
    """The page of targets without an image head; each picture is predicted by the fold that held it out."""
    folds, split = dict(sorted(found.folds.items())), members[0].split
    return TeacherTargets(
        classes={},
        split_sha256=split.sha256,
        assignment=split.assignment,
        members=[one.name for one in members],
        ids=tuple(folds),
        folds=np.array(list(folds.values()), np.int64),
        images={},
    )


def _mean_map(found: Members, dense: Sequence[Member], name: str) -> Floats:
    return np.asarray(sum(probability_map(found, one, name).astype(np.float64) for one in dense) / len(dense))


def image_targets(rows: Rows, split: Split, head: str, members: Sequence[str]) -> TeacherTargets:
    """The mean of the members' out-of-fold probabilities, for `hsl.files.teacher_file.write_teachers`.

    Args:
        rows: out-of-fold rows; a row predicted by no fold is no target.
        split: by which the members were trained.
        head: the image head.
        members: the teachers.

    Raises:
        DataError: a fold trained on what it is said to have held out.
    """
    chosen = rows.of_members(members).take(rows.folds >= 0)
    held_out = [set(fold.val) for fold in split.folds]
    pairs = zip(chosen.ids, chosen.folds.tolist(), strict=True)
    seen = [name for name, fold in pairs if fold >= len(held_out) or name not in held_out[fold]]
    if seen:
        raise DataError(
            f"Teachers should not have trained on what they teach. Found `{seen[0]}` in the training part of its fold. "
            "Gather rows of the fold that held it out."
        )
    return TeacherTargets(
        classes={head: chosen.classes},
        split_sha256=split.sha256,
        assignment=split.assignment,
        members=chosen.members,
        ids=chosen.ids,
        folds=chosen.folds,
        images={head: np.asarray(chosen.probabilities.mean(axis=0), np.float32).clip(0, 1)},
    )
