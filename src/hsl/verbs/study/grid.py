"""Every point of a space that has only so many: the grid, and when a study has nothing left to try."""

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from hsl.errors import ConfigError
from hsl.verbs.study.spaces import Dimension, Value, drawn_points, fits, point_key, varies
from hsl.verbs.study.trials import is_counted

MOST_POINTS = 100_000
"""Of more a grid is none that anybody trains."""


def values_of(dimension: Dimension) -> list[Value] | None:
    """All values of a dimension in their order; ``None``: any number of its range.

    Example:
        >>> values_of(Dimension("lr", low=0.0, high=0.3, step=0.1)), values_of(Dimension("lr", low=0.0, high=0.3))
        ([0.0, 0.1, 0.2, 0.3], None)
    """
    if dimension.choices:
        return list(dimension.choices)
    if not dimension.is_whole and dimension.step is None:
        return None
    low, high, step = (Decimal(str(number)) for number in (dimension.low, dimension.high, dimension.step or 1))
    numbers = [low + place * step for place in range(int((high - low) / step) + 1)]
    return [int(number) if dimension.is_whole else float(number) for number in numbers]


def endless(space: Mapping[str, Dimension]) -> list[str]:
    """Keys of a space that may be any number of a range."""
    return [key for key, dimension in space.items() if values_of(dimension) is None]


def points_of(space: Mapping[str, Dimension]) -> Iterator[dict[str, Value]]:
    """Every point of a space without an endless key; the last key changes first."""

    def further(point: dict[str, Value], left: tuple[Dimension, ...]) -> Iterator[dict[str, Value]]:
        if not left:
            yield point
            return
        first, rest = left[0], left[1:]
        if not varies(first, point):
            yield from further(point, rest)
            return
        for value in values_of(first) or ():
            yield from further({**point, first.key: value}, rest)

    return further({}, tuple(space.values()))


def most_trials(study: optuna.Study, space: Mapping[str, Dimension]) -> float:
    """How many trials a study can have: those that it has, be they outside of a narrowed space, and all inside.

    ``inf`` where a key is endless, or there are more than `MOST_POINTS`.
    """
    if endless(space) or math.prod(len(values_of(one) or ()) for one in space.values()) > MOST_POINTS:
        return math.inf
    inside = {point_key(point) for point in points_of(space)}
    return len(inside | {point_key(one.params) for one in study.get_trials(deepcopy=False) if is_counted(one)})


class Grid(BaseSampler):
    """Point after point, in their order; none that was drawn before, by whichever sampler.

    Args:
        whole: what Optuna draws from.
        allowed: the part of it that the study may still try.

    Raises:
        ConfigError: a key is endless, or there are more than `MOST_POINTS`.
    """

    def __init__(self, whole: Mapping[str, Dimension], allowed: Mapping[str, Dimension]) -> None:
        if keys := endless(whole):
            raise ConfigError(
                f"A grid should have keys of only so many values. Found any number for {', '.join(keys)}. Give "
                f"`study.space.{keys[0]}` a `step` or `choices`, or take another `sampler`."
            )
        number = math.prod(len(values_of(one) or ()) for one in whole.values())
        if number > MOST_POINTS:
            raise ConfigError(
                f"A grid should have {MOST_POINTS} points at most. Found {number}. Take fewer values, or another "
                "`sampler`."
            )
        self._whole, self._allowed = whole, allowed
        self._any = RandomSampler(seed=0)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All keys."""
        del study, trial
        return {key: dimension.distribution for key, dimension in self._whole.items()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The first point that was not drawn; nothing where none is left."""
        del trial, search_space
        drawn = drawn_points(study)
        left = (one for one in points_of(self._whole) if fits(one, self._allowed) and point_key(one) not in drawn)
        return next(left, {})

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Of a study that has no point left; whoever asked passes it over."""
        return self._any.sample_independent(study, trial, param_name, param_distribution)
