"""What `hsl ensemble plan` had trained: members that a stage of their own reads, and students, told by their names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from hsl.ensembles.nested import score_of
from hsl.ensembles.rows import Rows
from hsl.errors import ConfigError
from hsl.reports.models import Model, models_of
from hsl.run_folder.run import Run

STAGES = ("cascade", "boosting", "referee")
"""Stages that train members of their own."""
STUDENTS = ("student", "control")
_MEMBER = re.compile(rf"({'|'.join(STAGES)})_[1-9]\d*")
_NAME = re.compile(rf"(.+)/({_MEMBER.pattern}|(?:{'|'.join(STUDENTS)})_[1-9]\d*)")


class Planned(NamedTuple):
    """The name of a plan, and what it calls one of its members or students: ``cascade_2``."""

    plan: str
    name: str

    @property
    def is_student(self) -> bool:
        """Whether it learns from the members and is none."""
        return self.name.startswith(STUDENTS)


@dataclass(frozen=True)
class SortedRuns:
    """Models of ordinary runs and of planned members, called as their plan calls them.

    ``students`` were trained on every fold. ``left_out`` and ``findings`` are sentences: what is no member, and why
    there is no ensemble.
    """

    models: Sequence[Model]
    students: Sequence[Planned]
    left_out: Sequence[str]
    findings: Sequence[str]


def sorted_out(runs: Sequence[Run], ignore: Sequence[str], name_key: str, plan: str | None) -> SortedRuns:
    """Tell ordinary runs from those of a plan.

    Args:
        runs: all that match.
        ignore: patterns of config keys in which runs of one model may differ.
        name_key: the key of the encoder's name.
        plan: name of the plan that counts; none: the one there is.
    """
    planned = {run.folder: planned_as(run) for run in runs}
    models = models_of([run for run in runs if planned[run.folder] is None], ignore, name_key)
    named = sorted({one for one in planned.values() if one})
    plans = sorted({one.plan for one in named if not one.is_student})
    findings = [f"members of the plans {', '.join(plans)}, of one at most"] if plan is None and len(plans) > 1 else []
    students, left_out = [], []
    for one in named:
        own = models_of([run for run in runs if planned[run.folder] == one], ignore, name_key)
        ready = [model for model in own if model.finished]
        if one.is_student:
            left_out.append(f"left out: {'/'.join(one)}, which learns from the members")
            students += [one for model in ready if not model.missing]
        elif plan not in (None, one.plan):
            left_out.append(f"left out: {'/'.join(one)}, which is of another plan")
        elif len(ready) > 1 or any(len({seed for _, seed in model.finished}) > 1 for model in ready):
            findings.append(f"{'/'.join(one)} trained in more than one way")
        else:
            models += [replace(model, label=one.name) for model in ready]
    return SortedRuns(models, students, left_out, findings)


def planned_as(run: Run) -> Planned | None:
    """What a run was planned as; none of an ordinary one."""
    found = _NAME.fullmatch(str(run.config.get("name", "")))
    return Planned(found[1], found[2]) if found else None


def trained_for(member: str) -> str:
    """The stage that a member was trained for; empty of an ordinary one.

    >>> trained_for("cascade_2"), trained_for("resnet10t")
    ('cascade', '')
    """
    found = _MEMBER.fullmatch(member)
    return found[1] if found else ""


def read_by(stage: str, members: Iterable[str]) -> tuple[str, ...]:
    """The members that a stage reads: all but those that were trained for another.

    >>> read_by("boosting", ["a", "boosting_2", "cascade_2"])
    ('a', 'boosting_2')
    """
    return tuple(name for name in members if trained_for(name) in ("", stage))


def first_member(rows: Rows, members: Sequence[str]) -> str:
    """With which cascade and boosting begin: the best out-of-fold score, of equals the first name."""
    return max(sorted(members), key=lambda name: score_of(rows.of_members([name]).probabilities[0], rows))


def with_planned(calls: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
    """The calls of the stages, with the members that were trained for each where the user named none.

    Args:
        calls: by stage, as plain values: ``order`` empty, or ``member``.
        rows: of all members.
    """
    made = {}
    for stage, call in calls.items():
        own = [name for name in rows.members if trained_for(name) == stage]
        own.sort(key=lambda name: int(name.rpartition("_")[2]))
        made[stage] = call
        if own and call.get("order") == []:
            made[stage] = {**call, "order": [first_member(rows, read_by("", rows.members)), *own]}
        elif own and call.get("member") == "":
            made[stage] = {**call, "member": own[0]}
    return made


def check_trained(calls: Mapping[str, Any]) -> None:
    """Refuse stages whose own members are not known, before any stage runs.

    Args:
        calls: what `with_planned` gave.

    Raises:
        ConfigError: such a stage has none.
    """
    bare = [stage for stage, call in calls.items() if call.get("order") == [] or call.get("member") == ""]
    if bare:
        named, keys = ", ".join(bare), " and ".join(f"`settings.{stage}`" for stage in bare)
        raise ConfigError(
            f"`stages` should name {', '.join(STAGES)} where `runs` match members trained for them. Found none for "
            f"{named}. Train them with `hsl ensemble plan stages=[{','.join(bare)}]`, name members of yours in {keys}, "
            f"or leave out {named}."
        )
