"""What is said of two models; the rule by which a winner is named, simulated.

How often is it wrong, and how often does an interval hold the truth? Models are equal when their scores on an image
differ by chance alone: a part that all images of a group share and one of each image, of the same size (an intraclass
correlation of 0.5).
"""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from hsl.files.split_file import Fold, Split
from hsl.metrics.images.image_counts import ImageCounts
from hsl.metrics.pixels.pixel_counts import PixelCounts
from hsl.reports.statistics.contrasts import Contrast, MeanOverPictures, PooledScore, Units
from hsl.reports.statistics.paired_tests import Interval, corrected_resampled_t
from hsl.reports.statistics.power import groups_needed, smallest_difference, trainings_needed
from hsl.reports.statistics.resampling import Estimate, judge
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


def groups_of(rng, num, grouped):
    """Units of ``num`` groups of one to five pictures, or of one each."""
    index = np.repeat(np.arange(num), rng.integers(1, 6, num) if grouped else 1)
    return Units(tuple(f"{i:03d}" for i in range(num)), index)


def noise(rng, units, columns=1):
    """Variance 1, half of it shared by the pictures of a group."""
    shape = (len(units.index), columns)
    return np.sqrt(0.5) * (rng.normal(size=(units.num, columns))[units.index] + rng.normal(size=shape))


def means(rng, units, num_models):
    scores = noise(rng, units) + noise(rng, units, num_models)
    pairs = itertools.combinations(scores.T, 2)
    return [Contrast(units, MeanOverPictures.of(first - second, units)) for first, second in pairs]


def skewed_means(rng, units, num_models):
    """Few hard groups make nearly all of the difference."""
    scores = np.exp(noise(rng, units)) * noise(rng, units, num_models)
    pairs = itertools.combinations(scores.T, 2)
    return [Contrast(units, MeanOverPictures.of(first - second, units)) for first, second in pairs]


def every_two(pooled, units):
    return [Contrast(units, first, second, (-1, 1)) for first, second in itertools.combinations(pooled, 2)]


def pooled_miou(rng, units, num_models):
    """Three classes, one of them in a fifth of the groups, and a score of pixels summed over pictures."""
    num = len(units.index)
    rare = (rng.random(units.num) < 0.2)[units.index]
    pixels = [rng.integers(3000, 6000, num), rng.integers(200, 2000, num) * (rng.random(num) < 0.8)]
    pixels = np.stack([*pixels, rng.integers(50, 800, num) * rare], axis=1)
    difficulty, found = noise(rng, units), []
    for _ in range(num_models):
        recall = 1 / (1 + np.exp(-np.array([4.0, 1.5, 0.3]) - difficulty - noise(rng, units)))
        right = rng.binomial(pixels, recall)
        near = rng.binomial(pixels - right, 0.8)
        matrices = np.zeros((num, 2, 3, 3))
        for true in range(3):
            others = [each for each in range(3) if each != true]
            counts = (right[:, true], near[:, true], (pixels - right - near)[:, true])
            for predicted, count in zip((true, *others), counts, strict=True):
                matrices[:, 0, true, predicted] = count
        absent = np.zeros((num, 7, 3)), np.zeros((num, 2, 15)), np.zeros((num, 15)), np.zeros(num), np.zeros(num)
        found.append(PooledScore(PixelCounts(matrices, *absent).by_unit(units.index, units.num), "miou"))
    return every_two(found, units)


def accuracy(rng, units, num_models):
    """Two classes, three pictures of four right: many ties."""
    num, found = len(units.index), []
    target = rng.integers(0, 2, num)
    for _ in range(num_models):
        shown = np.where(noise(rng, units)[:, 0] < 0.67, target, 1 - target)
        counts = ImageCounts.of(np.eye(2)[target], np.eye(2, dtype=bool)[shown], False)
        found.append(PooledScore(counts.by_unit(units.index, units.num), "accuracy"))
    return every_two(found, units)


def wrong_verdicts(world, num, num_models, grouped, studies, resamples):
    """Share of studies of equal models in which a winner is named, and of first intervals that hold no 0."""
    rng, named, without_zero = np.random.default_rng(2026), 0, 0
    for study in range(studies):
        found = judge(world(rng, groups_of(rng, num, grouped), num_models), resamples, study)
        named += any(one.is_shown for one in found)
        without_zero += found[0].is_clear
    return named / studies, without_zero / studies


def covered(num, studies, resamples, truth=0.3):
    rng, held = np.random.default_rng(2026), 0
    for study in range(studies):
        units = groups_of(rng, num, True)
        values = truth + noise(rng, units)[:, 0]
        (found,) = judge([Contrast(units, MeanOverPictures.of(values, units))], resamples, study)
        held += found.interval.low <= truth <= found.interval.high
    return held / studies


@pytest.fixture
def tell(capsys):
    """Prints a line whether or not the output is captured."""

    def say(text):
        with capsys.disabled():
            print(f"\n  {text}", end="")

    return say


def test_equal_models_rarely_have_a_winner_in_a_few_studies():
    """The slow tests below, as small as can be: with 30 studies a rule that is wrong half of the time still shows."""
    for world in (means, skewed_means, pooled_miou, accuracy):
        assert wrong_verdicts(world, 8, 3, True, 30, 400)[0] <= 5 / 30, world
    assert covered(10, 60, 400) >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("num_models", [2, 3, 5, 10])
@pytest.mark.parametrize("num", [6, 9, 10, 20])
@pytest.mark.parametrize("grouped", [True, False], ids=["grouped", "single"])
def test_equal_models_have_a_winner_in_one_table_of_twenty_means(num_models, num, grouped, tell):
    studies, resamples = {2: (3000, 1000), 3: (3000, 1500), 5: (1000, 2000), 10: (300, 4000)}[num_models]
    named, _ = wrong_verdicts(means, num, num_models, grouped, studies, resamples)
    tell(f"mean over pictures, {num} groups, {num_models} models: a winner in {named:.1%} of {studies} tables")
    assert named <= (0.07 if num < 10 else 0.06)


@pytest.mark.slow
@pytest.mark.parametrize("num_models", [2, 3, 5, 10])
@pytest.mark.parametrize(("num", "grouped"), [(6, True), (10, True), (10, False), (20, True)])
@pytest.mark.parametrize("world", [pooled_miou, accuracy])
def test_equal_models_have_a_winner_in_one_table_of_twenty_pooled(world, num_models, num, grouped, tell):
    studies, resamples = {2: (800, 800), 3: (400, 1000), 5: (200, 2000), 10: (100, 4000)}[num_models]
    named, clear = wrong_verdicts(world, num, num_models, grouped, studies, resamples)
    where = f"{world.__name__}, {num} groups{'' if grouped else ' of one'}, {num_models} models"
    tell(f"{where}: a winner in {named:.1%} of {studies} tables, 0 outside the first interval in {clear:.1%}")
    assert named <= (0.07 if num < 10 else 0.06)


@pytest.mark.slow
@pytest.mark.parametrize("num", [6, 10, 20])
def test_equal_models_whose_difference_rests_on_few_groups(num, tell):
    named, _ = wrong_verdicts(skewed_means, num, 3, True, 800, 1500)
    tell(f"skewed differences, {num} groups, 3 models: a winner in {named:.1%} of 800 tables")
    assert named <= (0.07 if num < 10 else 0.06)


@pytest.mark.slow
@pytest.mark.parametrize(("num", "studies"), [(6, 3000), (10, 3000), (20, 3000), (50, 2000)])
def test_the_interval_holds_the_truth_in_19_of_20_studies(num, studies, tell):
    held = covered(num, studies, 2000)
    tell(f"95 % interval, {num} groups of 1 to 5 pictures, intraclass correlation 0.5: {held:.1%} of {studies} hold it")
    assert held >= 0.92 if num == 6 else 0.93 <= held <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(("num", "num_models"), [(12, 2), (30, 2), (30, 4)])
def test_the_smallest_difference_is_shown_in_four_of_five_simulations(num, num_models, tell):
    rng, studies, shown = np.random.default_rng(2026), 300, 0
    units = groups_of(rng, num, False)
    for study in range(studies):
        scores = noise(rng, units, num_models)
        pairs = list(itertools.combinations(range(num_models), 2))

        def judged(shift, scores=scores, pairs=pairs, study=study):
            moved = scores + shift * (np.arange(num_models) == 0)
            values = [moved[:, i] - moved[:, j] for i, j in pairs]
            return judge([Contrast(units, MeanOverPictures.of(each, units)) for each in values], 2000, study)[0]

        first = judged(0.0)
        spread = np.sqrt(2) / np.std(scores[:, 0] - scores[:, 1], ddof=1)  # of all groups over that of these
        shown += judged(first.smallest * spread).is_shown
    tell(f"a difference of that size, {num} groups, {num_models} models: shown in {shown / studies:.1%} of {studies}")
    assert 0.7 <= shown / studies <= 0.9
