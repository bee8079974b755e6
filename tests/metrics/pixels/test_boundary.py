import math
import pickle

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from torch import Tensor

from hsl.metrics.pixels.boundary import (
    boundary_counts,
    boundary_maps,
    contour_map,
    dilate,
)
from hsl.metrics.pixels.contours import boundary_width, contour_errors, dilated
from hsl.metrics.pixels.formulas import BOUNDARY_COUNTS, boundary_scores
from hsl.metrics.pixels.pixelwise import Pixelwise


def blobs(seed: int, num_classes: int, shape: tuple[int, int], ignored: float = 0.0) -> Tensor:
    """Random masks with regions, not noise."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, num_classes, (max(shape[0] // 4, 1), max(shape[1] // 4, 1)), dtype=np.uint8)
    mask = cv2.resize(small, shape[::-1], interpolation=cv2.INTER_NEAREST)
    mask[generator.random(shape) < ignored] = 255
    return torch.from_numpy(mask)


def brute_force(prediction: Tensor, target: Tensor, num_classes: int, width: int) -> dict[str, list[float]]:
    """By the definitions, pixel by pixel: no shared code and no shared idea."""
    height, breadth = target.shape
    t, p = target.numpy().astype(int), prediction.numpy().astype(int)
    p = np.where(t == 255, 255, p)

    def band(mask: np.ndarray) -> np.ndarray:
        result = np.zeros(mask.shape, bool)
        for y in range(height):
            for x in range(breadth):
                inside = y >= width and x >= width and y + width < height and x + width < breadth
                window = mask[max(y - width, 0) : y + width + 1, max(x - width, 0) : x + width + 1]
                result[y, x] = not inside or (window != mask[y, x]).any()
        return result & (mask != 255)

    def contour(mask: np.ndarray, index: int) -> np.ndarray:
        points = []
        for y, x in np.argwhere(mask == index):
            window = mask[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            if ((window != index) & (window != 255)).any():
                points.append((y, x))
        return np.array(points).reshape(-1, 2)

    band_t, band_p = band(t), band(p)
    iou, f1 = [], []
    for index in range(num_classes):
        one, two = band_t & (t == index), band_p & (p == index)
        union = (one | two).sum()
        iou.append((one & two).sum() / union if union else math.nan)
        a, b = contour(t, index), contour(p, index)
        if len(a) == 0 and len(b) == 0:
            f1.append(math.nan)
        elif len(a) == 0 or len(b) == 0:
            f1.append(0.0)
        else:
            distance = cdist(a, b, "chebyshev")
            recall, precision = (distance.min(1) <= width).mean(), (distance.min(0) <= width).mean()
            f1.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return {"iou": iou, "f1": f1}


def score(prediction: Tensor, target: Tensor, num_classes: int, width: int) -> dict[str, Tensor]:
    maps = boundary_maps(prediction, target, num_classes, width)
    found = boundary_scores(boundary_counts(maps, prediction, target, num_classes).numpy())
    return {name: torch.tensor(values) for name, values in found.items()}


@pytest.mark.parametrize("shape", [(17, 23), (8, 8), (1, 9), (1, 1), (12, 3)])
@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("ignored", [0.0, 0.1])
@pytest.mark.parametrize("num_classes", [1, 2, 4])
def test_equal_to_the_definition(shape: tuple[int, int], width: int, ignored: float, num_classes: int) -> None:
    target = blobs(1, num_classes, shape, ignored)
    prediction = blobs(2, num_classes, shape)
    prediction[: shape[0] // 2] = torch.where(target == 255, 0, target)[: shape[0] // 2]
    values = score(prediction, target, num_classes, width)
    expected = brute_force(prediction, target, num_classes, width)
    assert values["boundary_iou_per_class"].tolist() == pytest.approx(expected["iou"], nan_ok=True)
    assert values["boundary_f1_per_class"].tolist() == pytest.approx(expected["f1"], nan_ok=True)


def test_boundary_iou_equals_the_published_definition() -> None:
    # Cheng et al. 2021: mask minus its erosion, the picture's edge padded with zeros.
    target, prediction = blobs(3, 3, (40, 52)), blobs(4, 3, (40, 52))
    prediction[:20] = target[:20]
    width = boundary_width(40, 52, 0.05)

    def band(mask: np.ndarray) -> np.ndarray:
        padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        return mask - cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]

    values = score(prediction, target, 3, width)["boundary_iou_per_class"]
    for index in range(3):
        one, two = (band((mask == index).numpy().astype(np.uint8)) for mask in (target, prediction))
        assert values[index].item() == pytest.approx((one & two).sum() / (one | two).sum())


@pytest.mark.parametrize("num_classes", [8, 9, 16, 17, 32, 33, 64, 65, 130, 255])
def test_every_number_of_classes(num_classes: int) -> None:
    # One bit per class: the words are 8, 16, 32 and 64 bits wide.
    target, prediction = blobs(5, num_classes, (48, 48)), blobs(6, num_classes, (48, 48))
    prediction[:, :24] = target[:, :24]
    target[0, 0] = prediction[1, 1] = num_classes - 1
    values = score(prediction, target, num_classes, 2)
    expected = brute_force(prediction, target, num_classes, 2)
    assert values["boundary_iou_per_class"].tolist() == pytest.approx(expected["iou"], nan_ok=True)
    assert values["boundary_f1_per_class"].tolist() == pytest.approx(expected["f1"], nan_ok=True)


def test_shifted_square_by_hand() -> None:
    target = torch.zeros(20, 20, dtype=torch.uint8)
    target[5:11, 5:11] = 1
    prediction = target.roll(2, 1)
    values = score(prediction, target, 2, 1)
    # Bands of width 1: 20 pixels each. Common: rows 5 and 10, columns 7 to 10; no column.
    assert values["boundary_iou_per_class"][1].item() == pytest.approx(8 / 32)
    # Within 1 of the other contour: columns 6 to 10 of rows 5 and 10, rows 6 and 9 of column 10.
    maps = boundary_maps(prediction, target, 2, 1)
    assert int((maps.hit_true & (target == 1)).sum()) == 12
    assert score(prediction, target, 2, 2)["boundary_f1_per_class"][1].item() == 1


def test_identical_is_ideal() -> None:
    target = blobs(7, 4, (31, 17), 0.1)
    values = score(target, target, 4, 2)
    assert values["boundary_iou"].item() == 1
    assert values["boundary_f1"].item() == 1


def test_empty_and_ignored() -> None:
    nothing = torch.full((9, 9), 255, dtype=torch.uint8)
    values = score(torch.zeros_like(nothing), nothing, 3, 2)
    assert math.isnan(values["boundary_iou"])
    assert math.isnan(values["boundary_f1"])
    one_class = torch.zeros_like(nothing)
    values = score(one_class, one_class, 3, 2)
    assert values["boundary_iou_per_class"][0].item() == 1  # the picture's edge
    assert math.isnan(values["boundary_f1"])  # no contour


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_properties(seed: int, width: int) -> None:
    target, prediction = blobs(seed, 3, (13, 18), 0.1), blobs(seed + 1, 3, (13, 18))
    values = score(prediction, target, 3, width)
    other = torch.where(target == 255, (prediction + 1) % 3, prediction)
    padded = [torch.nn.functional.pad(mask, (0, 5, 0, 3), value=255) for mask in (prediction, target)]
    turned = [mask.rot90().contiguous() for mask in (prediction, target)]
    swapped = torch.where(target == 255, 255, prediction), torch.where(target == 255, 0, target)
    for pair in ((other, target), padded, turned, (swapped[1], swapped[0])):
        again = score(pair[0], pair[1], 3, width)
        for name, value in values.items():
            torch.testing.assert_close(again[name], value, equal_nan=True)


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 6, 15, 40])
def test_dilate_equals_a_maximum(radius: int) -> None:
    mask = torch.rand(23, 31, generator=torch.Generator().manual_seed(radius)) < 0.01
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    assert np.array_equal(dilate(mask, radius).numpy(), cv2.dilate(mask.numpy().astype(np.uint8), kernel) > 0)


def test_contours_by_hand() -> None:
    classes = torch.tensor([[0, 0, 0, 255], [0, 0, 1, 255], [0, 0, 0, 255]], dtype=torch.uint8)
    assert contour_map(classes).int().tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0]]


def update(metric: Pixelwise, prediction: Tensor, target: Tensor, size: Tensor | None = None) -> None:
    """With logits whose largest is that of the predicted class."""
    one_hot = torch.nn.functional.one_hot(prediction.clamp(max=metric.num_classes - 1), metric.num_classes)
    metric.update(one_hot.movedim(-1, 1).float(), target, size=size)


def test_metric_pools_counts_and_honours_the_size() -> None:
    pairs = [(blobs(seed, 3, shape), blobs(seed + 9, 3, shape)) for seed, shape in ((1, (20, 30)), (2, (40, 50)))]
    metric, single = Pixelwise(3, ratio=0.05), Pixelwise(3, ratio=0.05)
    pad = [(0, 50 - mask.shape[1], 0, 40 - mask.shape[0]) for mask, _ in pairs]
    batch = [
        torch.stack([torch.nn.functional.pad(pair[part], p, value=v) for pair, p in zip(pairs, pad, strict=True)])
        for part, v in ((0, 0), (1, 255))
    ]
    update(metric, batch[0].long(), batch[1].long(), size=torch.tensor([[20, 30], [40, 50]]))
    for prediction, target in pairs:
        update(single, prediction[None].long(), target[None].long())
    assert torch.equal(metric.boundaries, single.boundaries)
    assert torch.equal(pickle.loads(pickle.dumps(metric)).boundaries, metric.boundaries)
    assert metric.boundaries.shape == (len(BOUNDARY_COUNTS), 3)


def test_error_table() -> None:
    mask = blobs(1, 3, (9, 9))
    with pytest.raises(ValueError, match="width"):
        boundary_maps(mask, mask, 3, 0)
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        boundary_maps(mask, mask[:4], 3, 1)
    with pytest.raises(ValueError, match="`target = 2`"):
        Pixelwise(2).update(torch.zeros(1, 2, 9, 9), mask[None].long().clamp(min=2))


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
