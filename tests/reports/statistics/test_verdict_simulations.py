"""The rule by which a winner is named, simulated: how often it is wrong, and how often an interval holds the truth.

Models are equal when their scores on a picture differ by chance alone: a part that all pictures of a group share and
one of each picture, of the same size (an intraclass correlation of 0.5).
"""

import itertools

import numpy as np
import pytest

from hsl.metrics.images.image_counts import ImageCounts
from hsl.metrics.pixels.pixel_counts import PixelCounts
from hsl.reports.statistics.contrasts import Contrast, MeanOverPictures, PooledScore, Units
from hsl.reports.statistics.resampling import judge


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
def test_the_smallest_difference_is_shown_in_four_of_five_studies(num, num_models, tell):
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
