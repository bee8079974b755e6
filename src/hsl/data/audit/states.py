"""What each rule of the audit came to, and what it could not look at: "not checked" is never "passed"."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hsl.data.audit.near_duplicates import is_blank
from hsl.data.audit.rules import STOP, Finding, Subject

PASSED, WARNED, STOPPED = "passed", "warned", "stopped"
OFF, NOT_CHECKED, PARTLY_CHECKED = "off", "not checked", "partly checked"
_KEYS = {"c": "near_duplicates", "f": "missing_classes", "g": "conflicts"}


@dataclass(frozen=True)
class RuleState:
    """What a rule came to.

    Attributes:
        state: ``"passed"`` (all was looked at), ``"warned"``, ``"stopped"``, ``"off"``, ``"not checked"`` or
            ``"partly checked"`` (nothing was found in what was looked at).
        reason: What was not looked at, and why; empty where nothing is to be said.
    """

    state: str
    reason: str = ""


def rule_states(
    subject: Subject, findings: Sequence[Finding], modes: Mapping[str, str], unchecked: Mapping[str, str] | None = None
) -> dict[str, RuleState]:
    """The state of every rule.

    Args:
        subject: What was audited.
        findings: What was found.
        modes: Of the rules (c), (f) and (g): ``"off"`` where they were switched off.
        unchecked: Rule -> why it was not looked at.
    """
    found: dict[str, RuleState] = {}
    for rule, gap in _GAPS.items():
        state = gap(subject)
        severities = {finding.severity for finding in findings if finding.rule == rule}
        if severities:
            found[rule] = RuleState(STOPPED if STOP in severities else WARNED, state.reason)
        elif modes.get(rule) == "off":
            found[rule] = RuleState(OFF, f"switched off by `data.audit.{_KEYS[rule]}`")
        elif unchecked and rule in unchecked:
            found[rule] = RuleState(NOT_CHECKED, unchecked[rule])
        else:
            found[rule] = state
    return found


def _contents(subject: Subject) -> RuleState:
    """(a) and (g): every file that can be read has a hash."""
    return _one_part(subject) or _unread(subject, [not content for content in subject.scan.content])


def _duplicates(subject: Subject) -> RuleState:
    decoded = subject.scan.image_sizes[:, 0] > 0
    blank = int(is_blank(subject.scan.thumbnails[decoded]).sum())
    state = _one_part(subject) or _unread(subject, ~decoded)
    if not blank or state.state != PASSED:
        return state
    return RuleState(PARTLY_CHECKED, f"{_pictures(blank)} without contrast, which have nothing to be compared by")


def _numbers(subject: Subject) -> RuleState:
    return _unread(subject, subject.scan.image_sizes[:, 0] == 0)


def _copies(subject: Subject) -> RuleState:
    return _unread(subject, [not content for content in subject.scan.content])


def _groups(subject: Subject) -> RuleState:
    """(b) is empty where no two pictures are known to belong together."""
    if alone := _one_part(subject):
        return alone
    attribute = subject.split.groups or "group"
    values = [record.attributes.get(attribute) for record in subject.records.values()]
    known = Counter(value for value in values if value is not None)
    if not known:
        return RuleState(NOT_CHECKED, f"no groups known{_alike_names(list(subject.records))}")
    if max(known.values()) == 1:
        return RuleState(NOT_CHECKED, f"no groups known: each picture is its own{_alike_names(list(subject.records))}")
    missing = values.count(None)
    return (
        RuleState(PARTLY_CHECKED, f"{_pictures(missing)} without a value of `{attribute}`")
        if missing
        else RuleState(PASSED)
    )


def _mask_values(subject: Subject) -> RuleState:
    masked, read = _masks(subject)
    if not masked:
        return RuleState(NOT_CHECKED, "no picture has a mask")
    total = len(subject.scan.ids)
    if read == masked < total:
        return RuleState(PASSED, f"{masked} of {total} pictures have a mask")
    return _unread_masks(masked, read)


def _files(subject: Subject) -> RuleState:
    masked, _ = _masks(subject)
    if not masked:
        return RuleState(PARTLY_CHECKED, "no picture has a mask to fit it; that pictures can be read was looked at")
    without = len(subject.scan.ids) - masked
    return RuleState(PASSED, f"{_pictures(without)} may go without a mask (`masks_optional`)" if without else "")


def _classes(subject: Subject) -> RuleState:
    masked, read = _masks(subject)
    if not masked:
        return RuleState(NOT_CHECKED, "no picture has a mask")
    return _unread_masks(masked, read)


def _one_part(subject: Subject) -> RuleState | None:
    return (
        RuleState(NOT_CHECKED, "all pictures are in one part") if sum(map(bool, subject.parts.values())) < 2 else None
    )


def _unread(subject: Subject, unread: Sequence[bool] | np.ndarray) -> RuleState:
    number, total = int(np.sum(unread)), len(subject.scan.ids)
    if not number:
        return RuleState(PASSED)
    return RuleState(NOT_CHECKED if number == total else PARTLY_CHECKED, f"{_pictures(number)} that cannot be read")


def _unread_masks(masked: int, read: int) -> RuleState:
    if read < masked:
        return RuleState(PARTLY_CHECKED if read else NOT_CHECKED, f"{masked - read} of {masked} masks cannot be read")
    return RuleState(PASSED)


def _masks(subject: Subject) -> tuple[int, int]:
    """Pictures with a mask, and with one that could be read."""
    masked = sum(record.mask is not None for record in subject.records.values())
    return masked, int((subject.scan.mask_sizes[:, 0] > 0).sum())


def _alike_names(ids: Sequence[str]) -> str:
    """Ids alike but for a number at the end may be views of one thing; one stem for all says nothing."""
    stems = Counter(re.sub(r"[\W_]*\d+$", "", id_) for id_ in ids)
    number = sum(count for stem, count in stems.items() if stem and count > 1)
    if len(stems) < 2 or not number:
        return ""
    return f"; {number} ids differ from another only in a number at the end: views of one thing should share a group"


def _pictures(number: int) -> str:
    return f"{number} picture{'' if number == 1 else 's'}"


_GAPS: dict[str, Callable[[Subject], RuleState]] = {
    "a": _contents,
    "b": _groups,
    "c": _duplicates,
    "d": _mask_values,
    "e": _files,
    "f": _classes,
    "g": _copies,
    "h": _numbers,
}
