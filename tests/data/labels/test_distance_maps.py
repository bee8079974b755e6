import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hsl.data.labels.distance_maps import distance_map


def brute_force(instances: np.ndarray) -> np.ndarray:
    """Of every pixel the distance to each pixel of the padded picture that is not of its object."""
    padded = np.pad(instances, 1)
    depth = np.zeros(instances.shape)
    for y, x in np.ndindex(instances.shape):
        others = [
            math.dist((y + 1, x + 1), place) for place in np.ndindex(padded.shape) if padded[place] != instances[y, x]
        ]
        depth[y, x] = min(others) if instances[y, x] else 0
    for name in set(instances[instances > 0].tolist()):
        depth[instances == name] /= depth[instances == name].max()
    return depth


@settings(max_examples=60, deadline=None)
@given(arrays(np.int64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 0, 3, 3, 7])))
def test_equal_to_brute_force(noise: np.ndarray) -> None:
    instances = np.kron(noise, np.ones((2, 2), np.int64))
    found = distance_map(instances)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, brute_force(instances), rtol=1e-6)


def test_objects_that_touch_are_apart() -> None:
    instances = np.repeat([[1] * 5 + [2] * 5], 5, axis=0)
    found = distance_map(instances)
    assert found[2].tolist() == pytest.approx([1 / 3, 2 / 3, 1, 2 / 3, 1 / 3] * 2)


def test_no_object_and_only_objects() -> None:
    assert not distance_map(np.zeros((3, 4), np.uint8)).any()
    assert distance_map(np.full((3, 3), 255, np.uint8))[1, 1] == 1


def test_ids_may_be_anything() -> None:
    small = np.array([[1, 1, 0, 2, 2]] * 3)
    large = np.array([0, 2**31, 5])[small]
    np.testing.assert_array_equal(distance_map(large), distance_map(small))


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 2)), np.zeros((1, 2, 2), np.int64), np.zeros((0, 4), np.int64), np.full((2, 2), -1)]
)
def test_no_instance_map(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="integer image"):
        distance_map(wrong)
