import numpy as np
import pytest
from scipy import stats

from hsl.reports.statistics.power import groups_needed, smallest_difference, trainings_needed


@pytest.mark.parametrize(("num", "level"), [(6, 0.05), (10, 0.05), (20, 0.01), (50, 0.002)])
def test_the_smallest_difference_is_shown_in_four_of_five_studies(num, level):
    critical = stats.t.isf(level / 2, num - 1)
    shift = smallest_difference(1.0, critical, num)
    assert stats.nct.sf(critical, num - 1, shift) == pytest.approx(0.8, abs=0.03)
    assert smallest_difference(2.0, critical, num) == pytest.approx(2 * shift)


def test_it_is_infinite_where_nothing_can_be_shown():
    assert smallest_difference(1.0, np.inf, 20) == np.inf


@pytest.mark.parametrize(("difference", "level"), [(0.5, 0.05), (0.2, 0.05), (1.0, 0.001), (0.02, 0.05)])
def test_so_many_groups_are_needed_and_no_fewer(difference, level):
    num = groups_needed(difference, 1.0, level, 6)

    def shown(groups):
        return smallest_difference(1 / np.sqrt(groups), stats.t.isf(level / 2, groups - 1), groups)

    assert shown(num) <= difference < shown(num - 1)
    assert groups_needed(10 * difference, 10.0, level, 6) == num


def test_never_fewer_than_the_least_and_none_where_a_million_is_not_enough():
    assert groups_needed(100.0, 1.0, 0.05, 6) == 6
    assert groups_needed(0.0, 1.0, 0.05, 6) is None
    assert groups_needed(1e-6, 1.0, 0.05, 6) is None
    assert groups_needed(1.0, 1.0, 0.0, 6) is None


def test_what_t_is_held_to_is_wider_for_every_number_of_groups():
    num = groups_needed(0.5, 1.0, 0.05, 6, wider=1.5)

    def shown(groups):
        return smallest_difference(1 / np.sqrt(groups), 1.5 * stats.t.isf(0.025, groups - 1), groups)

    assert shown(num) <= 0.5 < shown(num - 1)
    assert num > groups_needed(0.5, 1.0, 0.05, 6)


@pytest.mark.parametrize(("difference", "share"), [(3.0, lambda k: 0.5), (1.0, lambda k: 1 / (k - 1))])
def test_so_many_trainings_show_it_by_the_corrected_test_and_no_fewer(difference, share):
    num = trainings_needed(difference, 1.0, share, 3)

    def power(k):
        error = np.sqrt(1 / k + share(k))
        return stats.nct.sf(stats.t.isf(0.025, k - 1), k - 1, difference / error)

    assert power(num) == pytest.approx(0.8, abs=0.05)
    assert power(num - 1) < 0.8


def test_where_the_training_parts_overlap_no_number_of_trainings_may_be_enough():
    assert trainings_needed(1.9, 1.0, lambda k: 0.5, 3) is None  # (1.96 + 0.84) sqrt(0.5) = 1.98
    assert trainings_needed(100.0, 1.0, lambda k: 0.5, 3) == 3
