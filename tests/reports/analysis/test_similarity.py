"""Linear CKA against its definition, and what it has to be where the answer is known."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ortho_group

from hsl.reports.analysis.similarity import feature_similarity


def drawn(seed: int, pictures: int, size: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(pictures, size))


def hsic(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The U-statistic by its definition: a mean over all ordered choices of four pictures."""
    k, m = first @ first.T, second @ second.T
    chosen = itertools.permutations(range(len(first)), 4)
    return float(np.mean([k[a, b] * (m[a, b] + m[c, d] - 2 * m[a, c]) for a, b, c, d in chosen]))


def test_against_the_sum_over_all_choices_of_four_pictures() -> None:
    features = [drawn(0, 8, 3), drawn(1, 8, 5), drawn(0, 8, 3) ** 2]
    crossed = np.array([[hsic(a, b) for b in features] for a in features])
    own = np.diag(crossed)
    assert feature_similarity(features) == pytest.approx(crossed / np.sqrt(np.outer(own, own)))


def test_rotation_shift_and_scale_change_nothing() -> None:
    first, second = drawn(0, 30, 6), drawn(1, 30, 4)
    turned = 1e6 * first @ ortho_group.rvs(6, random_state=0) + 5
    found = feature_similarity([first, turned, second])
    assert found[0, 1] == pytest.approx(1)
    assert found[1, 2] == pytest.approx(found[0, 2])
    assert found == pytest.approx(found.T)


def test_unrelated_features_are_unlike_though_they_outnumber_the_pictures() -> None:
    found = [feature_similarity([drawn(i, 20, 500), drawn(100 + i, 20, 500)])[0, 1] for i in range(50)]
    assert abs(np.mean(found)) < 0.03  # the plain estimate is above 0.9 here
    assert np.max(np.abs(found)) < 0.3


@pytest.mark.parametrize("pictures", [0, 1, 3])
def test_too_few_pictures_give_none(pictures: int) -> None:
    assert np.isnan(feature_similarity([drawn(0, pictures, 4), drawn(1, pictures, 4)])).all()


def test_a_model_that_gives_the_same_for_every_picture_is_like_none() -> None:
    found = feature_similarity([np.ones((6, 3)), drawn(0, 6, 3)])
    assert np.isnan(found[0]).all()
    assert np.isnan(found[:, 0]).all()
    assert found[1, 1] == pytest.approx(1)
