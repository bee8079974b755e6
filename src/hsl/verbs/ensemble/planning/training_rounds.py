"""What the next member of a cascade, a boosting series or a referee is trained on, fold by fold."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hsl.ensembles.boosting import samme
from hsl.ensembles.cascade import LONGEST, still_wrong
from hsl.ensembles.referee import LIMIT, disputed
from hsl.ensembles.rows import Rows
from hsl.files.split_file import Split

Table = Mapping[str, float]
"""Id -> weight of a training picture; pictures that are not there are left out."""

MOST_BOOSTED = 10
ENDS = {
    "cascade": "it gets no training picture wrong",
    "boosting": "its last member is never wrong, or no better than chance,",
    "referee": "the members dispute no training picture",
}


@dataclass(frozen=True)
class Round:
    """A member that a stage trains.

    Attributes:
        name: ``cascade_2``: of the stage, and the place in its order.
        tables: fold -> what it is trained on.
        weighed: whether the weights differ; else it is a list of pictures.
    """

    name: str
    tables: Mapping[int, Table]
    weighed: bool


@dataclass(frozen=True)
class Series:
    """The members of a stage that are trained one after the other.

    Attributes:
        rounds: those that are trained, and the next one.
        ended: why there is no next one; empty: there is.
    """

    rounds: Sequence[Round]
    ended: str = ""


def cascade_series(rows: Rows, split: Split, first: str, trained: Collection[str], most: int = LONGEST) -> Series:
    """Each member is trained on what the cascade of those before got wrong out of fold.

    A fold's pictures are chosen by the rows of its training part alone, so its validation part has no say in the
    thresholds of the cascade either. The rows themselves come from runs of other folds, which learned from it.

    Args:
        rows: out-of-fold rows of all members, those of the cascade too.
        split: by which they were trained.
        first: the member that the cascade begins with.
        trained: names of the members that were trained: ``cascade_2`` and so on.
        most: members of the cascade.
    """

    def tables(order: Sequence[str], part: Rows) -> tuple[Table, bool]:
        wrong = dict.fromkeys(still_wrong(order, part), 1.0)
        return wrong, bool(wrong)

    return _series("cascade", rows, split, [first], trained, most, tables)


def boosting_series(rows: Rows, split: Split, first: str, trained: Collection[str], most: int = MOST_BOOSTED) -> Series:
    """Each member is trained with the weights of SAMME over those before; see `cascade_series` for the arguments."""

    def tables(order: Sequence[str], part: Rows) -> tuple[Table, bool]:
        boosted = samme(order, part)
        goes_on = bool(boosted.alphas[-1] not in (0.0, 1.0))  # of a member at chance, or of one that is never wrong
        return dict(zip(part.ids, boosted.row_weights.tolist(), strict=True)), goes_on

    return _series("boosting", rows, split, [first], trained, most, tables)


def referee_series(
    rows: Rows, split: Split, members: Sequence[str], trained: Collection[str], limit: float = LIMIT
) -> Series:
    """The one member that is trained on the pictures on which more than ``limit`` of the others dispute.

    Args:
        rows: out-of-fold rows.
        split: by which the members were trained.
        members: the others.
        trained: ``referee_1`` where it was trained.
        limit: see `hsl.ensembles.referee`.
    """
    base = rows.of_members(members)

    def tables(order: Sequence[str], part: Rows) -> tuple[Table, bool]:
        del order
        chosen = np.flatnonzero(disputed(part, limit)).tolist()
        return {part.ids[place]: 1.0 for place in chosen}, bool(chosen)

    return _series("referee", base, split, [], trained, 1, tables)


def _series(
    stage: str,
    rows: Rows,
    split: Split,
    order: list[str],
    trained: Collection[str],
    most: int,
    tables: Callable[[Sequence[str], Rows], tuple[Table, bool]],
) -> Series:
    rounds: list[Round] = []
    while len(order) < most:
        made = {number: tables(order, _training_rows(rows, split, number)) for number in range(len(split.folds))}
        if stopped := [number for number, (_, goes_on) in made.items() if not goes_on]:
            listed = ", ".join(map(str, stopped))
            return Series(rounds, f"no further member, since {ENDS[stage]} in fold {listed}")
        name = f"{stage}_{len(order) + 1}"
        rounds.append(Round(name, {number: table for number, (table, _) in made.items()}, stage == "boosting"))
        if name not in trained:
            return Series(rounds)
        order = [*order, name]
    return Series(rounds, f"complete with {len(order)} trained one after the other")


def _training_rows(rows: Rows, split: Split, number: int) -> Rows:
    training = set(split.folds[number].train)
    return rows.take(np.array([name in training for name in rows.ids]))
