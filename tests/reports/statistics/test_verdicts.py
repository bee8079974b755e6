import math

import numpy as np
import pytest
from scipy import stats

from hsl.files.split_file import Fold, Split
from hsl.reports.statistics.paired_tests import Interval, corrected_resampled_t
from hsl.reports.statistics.power import groups_needed, smallest_difference, trainings_needed
from hsl.reports.statistics.resampling import Estimate
from hsl.reports.statistics.verdicts import Trainings, share_scored, trainings_of, verdict

CLEAR = Estimate(0.1, 20, Interval(0.1, 0.05, 0.15), Interval(0.1, 0.02, 0.18), 0.001, 0.004, 0.06, 12)
UNCLEAR = Estimate(0.1, 20, Interval(0.1, 0.01, 0.19), Interval(0.1, -0.02, 0.22), 0.03, 0.09, 0.2, 60)


def said(score=CLEAR, trainings=None, higher_is_better=True, beside=None):
    return verdict(("a", "b"), score, trainings or Trainings(), higher_is_better, beside or {})


def test_two_sentences_and_never_one():
    found = said(trainings=Trainings(3, 0.1, 0.012))
    assert found.winner == "a"
    assert found.pictures == "a is better on these pictures"
    assert found.training == "a new training would likely show it too (p = 0.012)"
    assert found.text == f"{found.pictures}, and {found.training}"
    assert said(trainings=Trainings(5, 0.1, 0.21)).training == "another training may undo this (p = 0.21)"
    assert said(trainings=Trainings(1, 0.1)).training == "nothing is known of the spread of training"
    assert said().training == "nothing is known of the spread of training"
    assert said(trainings=Trainings(2, 0.1)).training.startswith("2 trainings each say too little")
    assert "every training shows the same difference" in said(trainings=Trainings(3, 0.1)).training


def test_trainings_that_point_the_other_way_confirm_nothing():
    found = said(trainings=Trainings(4, -0.1, 0.001))
    assert found.training.startswith("another training may undo this: over trainings the other is ahead")


def test_where_lower_is_better_the_other_one_wins():
    assert said(higher_is_better=False).winner == "b"


@pytest.mark.parametrize("num", [1, 2, 5])
def test_too_few_groups(num):
    found = said(Estimate(0.5, num))
    assert found.text == f"too few independent groups to say ({num}; at least 6)"
    assert not found.winner


def test_no_winner_has_no_second_sentence():
    found = said(UNCLEAR, Trainings(3, 0.1, 0.001))
    assert (found.text, found.training, found.winner) == ("no difference shown", "", "")
    assert said(Estimate(0.0, 20)).text == "no difference shown: alike in every group"
    assert said(Estimate(0.1, 20)).text.startswith("no difference shown: every group moves the score alike")
    assert said(Estimate(0.1, 20, rests_on_one=True)).text.startswith("no difference shown: one group alone shows")


def test_what_stands_beside_decides_nothing_unless_it_clearly_says_the_reverse():
    reverse = Estimate(-0.1, 20, Interval(-0.1, -0.2, -0.01))
    assert said(beside={"macro F1": reverse}).text == "no difference shown: the macro F1 says the reverse"
    for other in (Estimate(-0.1, 20, Interval(-0.1, -0.3, 0.1)), Estimate(-0.1, 20), UNCLEAR):
        assert said(beside={"macro F1": other}).winner == "a"


def test_folds_are_the_trainings_where_there_are_three():
    ours, theirs = {0: [0.6, 0.8], 1: [0.5], 2: [0.6]}, {0: [0.6], 1: [0.45], 2: [0.4], 3: [0.1]}
    found = trainings_of(ours, theirs, 0.5)
    assert (found.num, found.mean) == (3, pytest.approx(0.35 / 3))
    assert found.p == pytest.approx(corrected_resampled_t([0.1, 0.05, 0.2], 0.5)[1])


def test_with_fewer_folds_every_seed_is_a_training():
    found = trainings_of({0: [0.6, 0.7, 0.65]}, {0: [0.5, 0.55, 0.6]}, 0.5)
    assert found.p == pytest.approx(corrected_resampled_t([0.1, 0.15, 0.05], 0.5)[1])
    two = trainings_of({0: [0.6, 0.7], 1: [0.5, 0.6]}, {0: [0.5, 0.5], 1: [0.5, 0.5]}, 0.5)
    assert (two.num, two.p) == (4, pytest.approx(corrected_resampled_t([0.1, 0.2, 0.0, 0.1], 0.5)[1]))
    unlike = trainings_of({0: [0.6, 0.7, 0.8]}, {0: [0.5, 0.6]}, 0.5)
    assert (unlike.num, unlike.mean) == (2, pytest.approx((0.65 - 0.5 + 0.8 - 0.6) / 2))


def test_so_many_more_folds_have_a_smaller_share_and_so_many_more_seeds_the_same():
    values = [0.10, 0.02, 0.14]
    by_fold = trainings_of({i: [value] for i, value in enumerate(values)}, {i: [0.0] for i in range(3)}, 0.5)
    mean, spread = np.mean(values), np.std(values, ddof=1)
    assert by_fold.needed == trainings_needed(mean, spread, lambda k: 1 / (k - 1), 3)
    assert by_fold.p > 0.05
    assert by_fold.needed > 3
    assert by_fold.by_fold
    by_seed = trainings_of({0: values}, {0: [0.0] * 3}, 0.2)
    assert by_seed.needed == trainings_needed(mean, spread, lambda k: 0.2, 3)
    assert not by_seed.by_fold
    tested = trainings_of({i: [value] for i, value in enumerate(values)}, {i: [0.0] for i in range(3)}, 0.2, "test")
    assert tested.needed == by_seed.needed  # the test part stays the same pictures


def test_too_few_trainings_or_no_spread_have_no_p():
    assert math.isnan(trainings_of({0: [0.6], 1: [0.7]}, {0: [0.5], 1: [0.6]}, 0.5).p)
    assert math.isnan(trainings_of({f: [0.6] for f in range(3)}, {f: [0.5] for f in range(3)}, 0.5).p)
    assert trainings_of({0: [np.nan]}, {0: [0.5]}, 0.5) == trainings_of({}, {0: [0.5]}, 0.5) == Trainings()


def test_the_share_scored_is_that_of_the_part():
    folds = tuple(Fold(("a",) * 8, ("b",) * 4, str(i)) for i in range(2))
    split = Split("kfold", 0, None, folds, ("t",) * 2, "")
    assert (share_scored(split, [0, 1], "val"), share_scored(split, [0], "test")) == (0.5, 0.25)
    assert share_scored(None, [0], "val") == share_scored(split, [], "val") == 0


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
