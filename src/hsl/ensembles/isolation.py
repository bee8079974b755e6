"""The isolation audit: whether a score could know what it is a score of. Each function is one check, or one a side."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from hsl.ensembles.nested import Trail
from hsl.errors import DataError

Status = Literal["passed", "warning", "violation", "not checked"]

GAP_WARNS, GAP_STOPS, STEP_WARNS = 0.05, 0.10, 0.02
"""In points of a score in [0, 1]."""


@dataclass(frozen=True)
class Check:
    """A row of ``isolation.json``.

    Attributes:
        stage: or the variant of it.
        check: what should be so.
        status: ``violation``: no score of the stage may be written. ``not checked`` is not ``passed``.
        found: the finding, in words.
    """

    stage: str
    check: str
    status: Status
    found: str


def check_sides(
    stage: str, trails: Iterable[Trail], groups: Mapping[str, str], contents: Mapping[str, str]
) -> list[Check]:
    """No id, no image content and no group on both sides of any fit.

    Args:
        stage: its name.
        trails: of every fit of the stage.
        groups: id -> group, as the split of the members has them, whatever the fits were told.
        contents: id -> hash of the image.
    """
    trails, checks = list(trails), []
    keys: dict[str, Mapping[str, str] | None] = {"id": None, "content hash": contents, "group": groups}
    for what, key in keys.items():
        check = f"no {what} on both sides of a fit"
        read = {name for trail in trails for name in (*trail.fitted_ids, *trail.applied_ids)}
        if unknown := read - set(key) if key is not None else set():
            found = f"the {what} of {_some(unknown)} is not known"
            checks.append(Check(stage, check, "not checked", found))
            continue
        shared: set[str] = set()
        for trail in trails:
            fitted, applied = (
                {name if key is None else key[name] for name in side} for side in (trail.fitted_ids, trail.applied_ids)
            )
            shared |= fitted & applied
        found = f"{len(trails)} fits, {len(shared)} on both sides{': ' + _some(shared) if shared else ''}"
        checks.append(_judge(stage, check, not shared, found, checked=bool(trails)))
    return checks


def check_out_of_fold(
    stage: str,
    folds: Mapping[str, int],
    trained: Mapping[str, Mapping[int, Collection[str]]],
    groups: Mapping[str, str],
) -> Check:
    """Every row was predicted by a fold of its member that trained neither on it nor on another image of its group.

    Args:
        stage: its name.
        folds: id -> number of the fold that predicted it.
        trained: member -> number of the fold -> ids that it trained on or stopped by.
        groups: id -> group, of the trained ids too.
    """
    check, wrong = "every fitted row is an out-of-fold row of its member", set()
    for member, parts in trained.items():
        if missing := sorted(set(folds.values()) - set(parts)):
            found = f"what fold {missing[0]} of {member} trained on is not known"
            return Check(stage, check, "not checked", found)
        if unknown := {*folds, *(name for ids in parts.values() for name in ids)} - set(groups):
            return Check(stage, check, "not checked", f"the group of {_some(unknown)} is not known")
        seen = {number: {groups[name] for name in ids} for number, ids in parts.items()}
        wrong |= {f"{name} by fold {fold} of {member}" for name, fold in folds.items() if groups[name] in seen[fold]}
    found = f"{len(folds)} rows of {len(trained)} members, {len(wrong)} in fold{': ' + _some(wrong) if wrong else ''}"
    return _judge(stage, check, not wrong, found, checked=bool(trained) and bool(folds))


def check_complete(stage: str, ids: Collection[str], non_test: Collection[str]) -> Check:
    """There are exactly as many rows as images outside the test part, and they are these."""
    extra, missing = set(ids) - set(non_test), set(non_test) - set(ids)
    found = f"{len(ids)} rows, {len(non_test)} images outside the test part"
    for word, names in (("not among them", extra), ("without a row", missing)):
        found += f"; {word}: {_some(names)}" if names else ""
    right = not extra and not missing and len(ids) == len(non_test)
    return _judge(stage, "as many rows as images outside the test part", right, found)


def check_test_list(stage: str, test_ids: Collection[str], of_members: Mapping[str, Collection[str]]) -> Check:
    """The hash of the list of test images is that of every member's split."""
    own = list_hash(test_ids)
    wrong = {member for member, ids in of_members.items() if list_hash(ids) != own}
    found = f"{len(set(test_ids))} test images, {own[:12]}"
    found += f"; another list: {_some(wrong)}" if wrong else f" in the splits of {len(of_members)} members"
    return _judge(stage, "the test list is that of the members' splits", not wrong, found, checked=bool(of_members))


def check_test_unopened(stage: str, opened: Collection[str] | None, test_files: Collection[str]) -> Check:
    """No test file was opened before the end.

    Args:
        stage: its name.
        opened: every file that was opened until now; ``None``: nobody watched.
        test_files: images, masks and kept rows of the test part, written as in ``opened``.
    """
    early = set(opened or ()) & set(test_files)
    found = f"{len(test_files)} test files, {len(early)} opened{': ' + _some(early) if early else ''}"
    check = "no test file was opened before the end"
    return _judge(stage, check, not early, "nobody watched" if opened is None else found, checked=opened is not None)


def check_gap(stage: str, fitted: float, nested: float) -> Check:
    """The score of rows that were fitted on is at most 5 points above the nested one; above 10 the stage is stopped."""
    gap = round(fitted - nested, 9)
    status: Status = "violation" if gap > GAP_STOPS else "warning" if gap > GAP_WARNS else "passed"
    if gap != gap:
        status = "not checked"
    return Check(stage, "fitted and nested score agree", status, f"{fitted:.4f} fitted, {nested:.4f} nested")


def check_decline(stage: str, score: float, before: float | None) -> Check:
    """The score is at most 2 points below the one of the stage before; ``None``: this is the first."""
    check = "not below the stage before"
    if before is None or score != score or before != before:
        return Check(stage, check, "not checked", "the first stage" if before is None else "a score is not known")
    status: Status = "warning" if round(before - score, 9) > STEP_WARNS else "passed"
    return Check(stage, check, status, f"{score:.4f} after {before:.4f}")


def judged(checks: Iterable[Check]) -> None:
    """Nothing where no check is violated: the scores of the stage may be written.

    Raises:
        DataError: a check is violated; the message names all that are.
    """
    violated = [check for check in checks if check.status == "violation"]
    if violated:
        listed = "; ".join(f"{check.stage}: {check.check}: {check.found}" for check in violated)
        raise DataError(
            f"A stage of an ensemble should pass its isolation audit. Found {listed}. No score of it is written. Mend "
            "what the finding names, or leave the stage out with `stages=[...]`."
        )


def list_hash(ids: Iterable[str]) -> str:
    """SHA-256 of a set of ids, in whatever order they come."""
    return hashlib.sha256("\n".join(sorted(set(ids))).encode()).hexdigest()


def _judge(stage: str, check: str, right: bool, found: str, checked: bool = True) -> Check:
    status: Status = "not checked" if not checked else "passed" if right else "violation"
    return Check(stage, check, status, found)


def _some(names: Collection[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(sorted(names)[:limit]) + more
