import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hsl.data.files.run_lengths import decode_runs, encode_classes, encode_runs, read_runs

# the first four runs of the first row of Severstal's train.csv, on a picture of 256 x 1600
SEVERSTAL = "29102 12 29346 24 29602 24 29858 24"


def test_the_first_row_of_severstal() -> None:
    mask = decode_runs(SEVERSTAL, 256, 1600)
    assert mask.shape == (256, 1600)
    assert mask.sum() == 12 + 3 * 24
    assert np.flatnonzero(mask.any(axis=0)).tolist() == [113, 114, 115, 116]
    assert np.flatnonzero(mask[:, 113]).tolist() == list(range(173, 185))
    for column in (114, 115, 116):
        assert np.flatnonzero(mask[:, column]).tolist() == list(range(161, 185))
    assert encode_runs(mask) == SEVERSTAL


def test_pixels_count_down_the_columns_from_one() -> None:
    by_hand = np.zeros((3, 4), bool)
    for number in (1, 2, 3, 10, 11):
        by_hand[(number - 1) % 3, (number - 1) // 3] = True
    np.testing.assert_array_equal(decode_runs("1 3 10 2", 3, 4), by_hand)


@given(arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)))
@settings(max_examples=200, deadline=None)
def test_there_and_back(mask: np.ndarray) -> None:
    text = encode_runs(mask)
    np.testing.assert_array_equal(decode_runs(text, *mask.shape), mask)
    runs = read_runs(text, mask.size)
    assert (runs[1:, 0] > runs[:-1, 1]).all()  # none that could be joined
    by_hand = [x * mask.shape[0] + y for x in range(mask.shape[1]) for y in range(mask.shape[0]) if mask[y, x]]
    assert [pixel for first, last in runs.tolist() for pixel in range(first, last)] == by_hand


@given(arrays.arrays(np.uint8, (4, 5), elements=st.integers(0, 3)))
@settings(max_examples=50, deadline=None)
def test_classes_there_and_back(mask: np.ndarray) -> None:
    found = np.zeros_like(mask)
    for index, text in encode_classes(mask).items():
        assert text
        found[decode_runs(text, 4, 5)] = index
    np.testing.assert_array_equal(found, mask)


@pytest.mark.parametrize(
    ("text", "pixels"),
    [("", []), ("   ", []), ("6 1", [5]), ("1 6", [0, 1, 2, 3, 4, 5]), ("1 2 3 1", [0, 1, 2]), (" 2\t1\n", [1])],
)
def test_edges(text: str, pixels: list[int]) -> None:
    """Nothing, the last pixel, all of them, runs that touch, other white space."""
    assert np.flatnonzero(decode_runs(text, 2, 3).T.ravel()).tolist() == pixels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1", "odd count, 1 numbers"),
        ("1 2 3", "odd count, 3 numbers"),
        ("1 x", "whole numbers from 1.* Found 'x'"),
        ("1 2.0", "Found '2.0'"),
        ("-1 2", "Found '-1'"),
        ("0 2", "Found '0'"),
        ("1 0", "Found '0'"),
        ("1 ²", "Found '²'"),
        ("1 1000000000000000000000", "Found '1000000000000000000000'"),
        ("4 1 1 2", "sorted by start. Found 1 after 4"),
        ("1 3 3 1", "not overlap. Found start 3 in a run to 3"),
        ("2 1 2 1", "not overlap. Found start 2 in a run to 2"),
        ("6 2", "at pixel 6 or before. Found the end 7"),
        ("7 1", "at pixel 6 or before. Found the end 7"),
    ],
)
def test_what_is_no_run_length(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_runs(text, 2, 3)
