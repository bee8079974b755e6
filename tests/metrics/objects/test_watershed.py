import numpy as np
import pytest
from scipy import ndimage

from hsl.data.labels.object_labels import distance_map
from hsl.metrics.objects.watershed import split_objects


def discs(*centres: tuple[int, int], radius: int = 8, size: int = 48) -> np.ndarray:
    """Ids of the nearest centre, within the radius."""
    rows, columns = np.indices((size, size))
    distances = np.stack([np.hypot(rows - y, columns - x) for y, x in centres])
    return np.where(distances.min(0) <= radius, distances.argmin(0) + 1, 0)


def same_objects(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


def test_two_discs_that_touch_are_split() -> None:
    truth = discs((20, 14), (20, 29))
    assert ndimage.label(truth > 0)[1] == 1  # they touch
    found = split_objects((truth > 0) * 0.9, distance_map(truth))
    assert found.dtype == np.int32
    assert same_objects(found, truth)


@pytest.mark.parametrize("scale", [1.0, 0.5])  # a network that never dares to say 1
def test_a_noisy_distance_map_still_gives_two(scale: float) -> None:
    truth = discs((20, 14), (20, 29))
    noisy = scale * distance_map(truth) + np.random.default_rng(0).normal(0, 0.05, truth.shape)
    found = split_objects((truth > 0).astype(float), noisy)
    assert found.max() == 2
    assert ((found > 0) == (truth > 0)).all()


@pytest.mark.parametrize("level", [0.2, 0.5, 0.9])
def test_a_network_that_has_learned_no_distance_cuts_nothing(level: float) -> None:
    truth = discs((20, 14), (20, 29))
    flat = level + np.random.default_rng(0).normal(0, 0.05, truth.shape)
    assert split_objects((truth > 0).astype(float), flat).max() == 1


def test_an_empty_mask_gives_none() -> None:
    assert not split_objects(np.zeros((5, 6)), np.ones((5, 6))).any()


def test_an_object_without_a_marker_is_kept() -> None:
    truth = discs((12, 12), (34, 34))
    distances = np.where(truth == 1, distance_map(truth), 0.1)
    found = split_objects((truth > 0).astype(float), distances)
    assert same_objects(found, truth)
    assert sorted(set(found.ravel().tolist())) == [0, 1, 2]


def test_markers_outside_the_mask_make_nothing() -> None:
    truth = discs((12, 12))
    distances = distance_map(truth)
    distances[40:] = 1
    assert same_objects(split_objects((truth > 0).astype(float), distances), truth)


def test_sizes_must_be_equal() -> None:
    with pytest.raises(ValueError, match="of one size"):
        split_objects(np.zeros((2, 3)), np.zeros((3, 2)))
