from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from hsl.data.patches import centres as patch_centres
from hsl.data.patches.centres import poisson_disk


def check(mask: NDArray[np.bool_], radius: float, centres: NDArray[np.int64]) -> None:
    """Inside, apart and maximal, each pixel against each centre."""
    assert centres.shape == (len(centres), 2)
    assert centres.dtype == np.int64
    assert mask[tuple(centres.T)].all()
    apart = ((centres[:, None] - centres) ** 2).sum(-1)
    assert (apart[~np.eye(len(centres), dtype=bool)] >= radius**2).all()
    pixels = np.argwhere(mask)
    if len(pixels):
        nearest = ((pixels[:, None] - centres) ** 2).sum(-1).min(axis=1, initial=10**9)
        assert (nearest < radius**2).all(), "there is room for another centre"


@settings(max_examples=100, deadline=None)
@given(
    mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)),
    radius=st.floats(1, 60),
    seed=st.integers(0, 2**32),
)
def test_inside_apart_and_maximal(mask: NDArray[np.bool_], radius: float, seed: int) -> None:
    check(mask, radius, poisson_disk(mask, radius, seed))


@pytest.mark.parametrize("density", [0.003, 0.03, 0.5, 1.0])
@pytest.mark.parametrize("radius", [1, 1.4, 2, 5, 17.3, 60, 95.5])
def test_dense_and_scattered_foreground(density: float, radius: float) -> None:
    mask = np.random.default_rng(0).random((37, 53)) < density
    check(mask, radius, poisson_disk(mask, radius, 1))


def test_squares_larger_than_are_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_centres, "GATHERED", 2)
    monkeypatch.setattr(patch_centres, "CHUNK", 7)
    mask = np.random.default_rng(0).random((97, 130)) < 0.02
    check(mask, 20, poisson_disk(mask, 20, 1))


def test_components_that_growth_cannot_reach() -> None:
    mask = np.zeros((300, 300), bool)
    mask[::150, ::150] = True
    mask[-1, -1] = True
    centres = poisson_disk(mask, 10)
    assert sorted(map(tuple, centres.tolist())) == [(0, 0), (0, 150), (150, 0), (150, 150), (299, 299)]


def test_packing_is_that_of_a_maximal_sample() -> None:
    """Discs of diameter r dropped at random until none fits cover 0.547 of the plane (random sequential addition)."""
    counts = [len(poisson_disk(np.ones((1200, 1200), bool), 20, seed)) for seed in range(3)]
    covered = np.array(counts) * np.pi * 10**2 / 1210**2
    np.testing.assert_allclose(covered, 0.547, atol=0.02)


def test_radius_of_one_takes_every_pixel() -> None:
    assert len(poisson_disk(np.ones((7, 9), bool), 1)) == 63


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 5)])
def test_no_foreground(shape: tuple[int, int]) -> None:
    assert poisson_disk(np.zeros(shape, bool), 3).shape == (0, 2)


def test_single_pixel() -> None:
    assert poisson_disk(np.ones((1, 1), bool), 300).tolist() == [[0, 0]]


def test_seed_decides() -> None:
    mask = np.ones((200, 200), bool)
    same = [poisson_disk(mask, 20, (3, 5)) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert not np.array_equal(same[0], poisson_disk(mask, 20, (3, 6)))


def test_centres_do_not_keep_to_a_grid() -> None:
    rows = [tuple(poisson_disk(np.ones((9, 9), bool), 100, seed)[0].tolist()) for seed in range(400)]
    assert len(set(rows)) > 60, "every pixel should be drawn as the only centre"


@pytest.mark.parametrize("radius", [0.5, 0, -1, float("nan"), float("inf")])
def test_wrong_radius(radius: float) -> None:
    with pytest.raises(ValueError, match=r"`radius` should be at least 1\. Found"):
        poisson_disk(np.ones((3, 3), bool), radius)


@pytest.mark.parametrize("mask", [np.ones((3, 3), np.uint8), np.ones(3, bool)])
def test_wrong_mask(mask: Any) -> None:
    with pytest.raises(ValueError, match="`mask` should be bool"):
        poisson_disk(mask, 3)
