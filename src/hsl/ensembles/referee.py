"""Stage 11, referee: a member that was trained for images on which the others disagree decides these."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from hsl.config.ranges import FractionBelowOne
from hsl.ensembles.nested import Combined, Fit
from hsl.ensembles.rows import Floats, Rows
from hsl.inference.combining import soft_vote
from hsl.metrics.images.image_scores import predicted_labels

LIMIT = 0.4


def referee(member: str, limit: FractionBelowOne = LIMIT) -> dict[str, Fit]:
    """The one variant of the stage.

    Args:
        member: the one that decides.
        limit: share of the other members off their majority above which it does, in [0, 1).

    Raises:
        ValueError: the limit is outside.
    """
    if not 0 <= limit < 1:
        raise ValueError(f"`limit` should be in [0, 1). Found `limit = {limit}`. Set it to {LIMIT}.")
    return {"referee/disputed": partial(with_referee, member, limit)}


def with_referee(member: str, limit: float, rows: Rows) -> Combined:
    """The soft vote of the other members, but the referee's probabilities where they dispute. Nothing is fitted.

    Raises:
        ValueError: there is no other member.
    """
    others = [name for name in rows.members if name != member]
    if not others or member not in rows.members:
        raise ValueError(
            f"A referee should be a member beside others. Found `member = {member}` among "
            f"{', '.join(rows.members)}. Name one of two or more members."
        )

    def combine(new: Rows) -> Floats:
        rest = new.of_members(others)
        decides = disputed(rest, limit)[:, None]
        return np.where(decides, new.probabilities[new.members.index(member)], soft_vote(rest.probabilities))

    notes = {"referee": member, "consulted": float(disputed(rows.of_members(others), limit).mean())}
    return Combined(rows.members, rows.classes, combine, notes)


def disputed(rows: Rows, limit: float = LIMIT) -> NDArray[np.bool_]:
    """``(N,)``: whether the share of members off the majority is above the limit; see `off_majority`."""
    return off_majority(rows) > limit + 1e-12


def off_majority(rows: Rows) -> Floats:
    """``(N,)``: share of the members that do not predict the class that most predict.

    Where several classes may be shown, a member predicts each or not; then the greatest such share over the classes.
    """
    cast = np.mean([predicted_labels(values, rows.several) for values in rows.probabilities], axis=0)
    if rows.several:
        return np.asarray(np.minimum(cast, 1 - cast).max(axis=1))
    return np.asarray(1 - cast.max(axis=1))
