"""What so many independent groups can show, and how many groups or trainings a difference would need."""

import math
from collections.abc import Callable

from scipy.special import stdtrit

POWER = 0.8
MOST = 1_000_000  # groups; beyond it no number is given
MOST_TRAININGS = 100


def smallest_difference(standard_error: float, critical: float, num: int) -> float:
    """The true difference that a t-test over ``num`` groups shows in about 80 % of studies: ``(critical + t_0.8) se``.

    ``t_0.8`` is the 80 % quantile of Student's t with ``num - 1`` degrees of freedom (Cohen 1988, chapter 2, with the
    noncentral t shifted; at 6 groups and the level 0.05 it is 0.7 % too small).

    Args:
        standard_error: of the difference over these groups.
        critical: what t has to be above.
        num: groups, at least 2.

    >>> round(smallest_difference(1.0, 2.0930, 20), 3)  # one pair of models: the level is 0.05
    2.954
    """
    return standard_error * (critical + float(stdtrit(num - 1, POWER)))


def groups_needed(difference: float, spread: float, level: float, least: int, wider: float = 1.0) -> int | None:
    """The smallest number of groups, at least ``least``, that shows a difference in about 80 % of studies.

    Args:
        difference: at least 0, in the unit of ``spread``.
        spread: standard deviation of the difference between groups, above 0.
        level: what the two-sided p has to be below.
        least: never fewer.
        wider: how many times the critical value of Student's t is exceeded by that which t is held to.

    Returns:
        None where a million groups are not enough.

    >>> groups_needed(0.5, 1.0, 0.05, 6), groups_needed(0.0, 1.0, 0.05, 6)
    (34, None)
    """

    def shows(num: int) -> bool:
        critical = -wider * float(stdtrit(num - 1, level / 2))
        return smallest_difference(spread / math.sqrt(num), critical, num) <= difference

    if not level > 0 or not shows(MOST):
        return None
    low, high = least - 1, least
    while not shows(high):
        low, high = high, min(2 * high, MOST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    return high


def trainings_needed(difference: float, spread: float, share: Callable[[int], float], least: int) -> int | None:
    """The smallest number of trainings, at least ``least``, whose corrected resampled t-test shows a difference.

    In about 80 % of studies: ``(t_0.975 + t_0.8) spread sqrt(1 / k + share(k))``, both of k - 1 degrees of freedom, is
    at most the difference.

    Args:
        difference: at least 0, in the unit of ``spread``.
        spread: standard deviation of the difference between trainings.
        share: pictures scored over pictures trained on, of so many trainings.
        least: never fewer.

    Returns:
        None where a hundred trainings are not enough.

    >>> trainings_needed(1.0, 1.0, lambda num: 0.02, 3), trainings_needed(1.0, 1.0, lambda num: 0.5, 3)
    (12, None)
    """

    def smallest(num: int) -> float:
        critical = -float(stdtrit(num - 1, 0.025))
        return smallest_difference(spread * math.sqrt(1 / num + share(num)), critical, num)

    return next((num for num in range(least, MOST_TRAININGS + 1) if smallest(num) <= difference), None)
