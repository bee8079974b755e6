import numpy as np
import pytest
import torch

from hsl.metrics.pixels.boundary import boundary_maps
from hsl.metrics.pixels.contours import boundary_width, contour_errors, dilated


def masks():
    truth = np.zeros((60, 80), dtype=np.uint8)
    truth[10:20, 10:30] = 1
    prediction = truth.copy()
    prediction[40:50, 60:70] = 1
    return prediction, truth


def test_contours_are_found_missed_or_spurious():
    prediction, truth = masks()
    errors = contour_errors(prediction, truth, 2)
    assert set(np.unique(errors[:30])) == {0, 1}
    assert set(np.unique(errors[35:])) == {0, 2}
    mirrored = contour_errors(truth, prediction, 2)
    assert (mirrored == np.array([0, 1, 3, 2])[errors]).all()
    assert not contour_errors(truth * 0, truth * 0, 2).any()


def test_the_counts_are_those_of_boundary_f1():
    rng = np.random.default_rng(0)
    truth, prediction = (np.repeat(np.repeat(rng.integers(0, 3, (6, 8)), 10, 0), 10, 1) for _ in range(2))
    truth, prediction = truth.astype(np.uint8), prediction.astype(np.uint8)
    errors = contour_errors(prediction, truth, 3)

    def contour(mask):
        edge = np.zeros(mask.shape, dtype=bool)
        padded = np.pad(mask, 1, mode="edge")
        for down in range(3):
            for right in range(3):
                edge |= padded[down : down + mask.shape[0], right : right + mask.shape[1]] != mask
        return edge

    d = 2  # 2 % of the diagonal of 60 x 80
    true, predicted = contour(truth), contour(prediction)
    for y, x in np.argwhere(true & ~predicted):
        window = slice(max(0, y - d), y + d + 1), slice(max(0, x - d), x + d + 1)
        hit = (predicted[window] & (prediction[window] == truth[y, x])).any()
        assert errors[y, x] == (1 if hit else 3)


@pytest.mark.parametrize("shape", [(60, 80), (1, 9), (1, 1), (130, 40)])
def test_contours_are_those_of_the_device(shape):
    rng = np.random.default_rng(0)
    blocks = [np.kron(rng.integers(0, 4, (shape[0], shape[1])), np.ones((5, 5), int)) for _ in range(2)]
    prediction, truth = (block[: shape[0], : shape[1]].astype(np.uint8) for block in blocks)
    truth[rng.random(shape) < 0.05] = 255
    maps = boundary_maps(torch.from_numpy(prediction), torch.from_numpy(truth), 4, boundary_width(*shape))
    expected = (maps.hit_true | maps.hit_predicted).to(torch.uint8)
    expected[maps.contour_predicted & ~maps.hit_predicted] = 2
    expected[maps.contour_true & ~maps.hit_true] = 3
    np.testing.assert_array_equal(contour_errors(prediction, truth, 4), expected.numpy())


def test_dilated_is_a_chessboard_distance():
    flags = np.zeros((9, 9), bool)
    flags[4, 4] = True
    grown = dilated(flags, 2)
    assert grown[2:7, 2:7].all()
    assert grown.sum() == 25
    assert dilated(flags, 0).sum() == 1
    assert not dilated(flags & False, 3).any()


@pytest.mark.parametrize(("height", "width", "expected"), [(512, 512, 14), (1, 1, 1), (1024, 2048, 46)])
def test_boundary_width(height: int, width: int, expected: int) -> None:
    assert boundary_width(height, width) == expected
