"""Every part beside loops over pictures and pixels in plain Python numbers."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from hsl.losses.eight_part import pixel_parts as maps
from hsl.losses.eight_part.weak_labels import Pixels, read_pixels, weak_targets

SHAPE = (2, 5, 6)
SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])


def make(seed: int, weak: bool) -> tuple[Pixels, torch.Tensor, np.ndarray, np.ndarray]:
    """Pixels in float64 with gradient, their logits, and mask (unlabelled objects taken out) and p as arrays."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.tensor([0, 0, 0, 1, 1, 1, 255])[torch.randint(0, 7, SHAPE, generator=generator)]
    unlabelled = torch.rand(SHAPE, generator=generator) < 0.5 if weak else None
    logits = torch.randn(SHAPE[0], 1, *SHAPE[1:], generator=generator, dtype=torch.float64) * 3
    pixels = read_pixels(logits.requires_grad_(), mask, unlabelled)
    read = mask.numpy().copy()
    if unlabelled is not None:
        read[unlabelled.numpy() & (read == 1)] = 0
    return pixels, logits, read, 1 / (1 + np.exp(-logits.detach().numpy()[:, 0]))


def places(mask: np.ndarray) -> list[tuple[int, int, int]]:
    return [place for place in np.ndindex(mask.shape) if mask[place] != 255]


def bce(p: float, target: int) -> float:
    return -math.log(p if target else 1 - p)


both = pytest.mark.parametrize(("seed", "weak"), list(itertools.product(range(3), (False, True))))


@both
def test_segmentation(seed: int, weak: bool) -> None:
    pixels, _, mask, p = make(seed, weak)
    target, weight = weak_targets(pixels, 0.8, 0.1, 0.3, 0.05)
    entropy = overlap = predicted = true = total = 0.0
    for place in places(mask):
        w, t = weight[place].item(), int(target[place])
        total, entropy = total + w, entropy + w * bce(p[place], t)
        overlap, predicted, true = overlap + w * p[place] * t, predicted + w * p[place], true + w * t
    wanted = entropy / total + 1 - (2 * overlap + 1) / (predicted + true + 1)
    assert maps.segmentation(pixels, target, weight).item() == pytest.approx(wanted)


def test_segmentation_with_full_labels_is_bce_plus_dice() -> None:
    pixels, logits, mask, _ = make(0, False)
    valid = torch.from_numpy(mask != 255)
    z, t = logits[:, 0][valid], torch.from_numpy(mask == 1)[valid].double()
    dice = 1 - (2 * (z.sigmoid() * t).sum() + 1) / (z.sigmoid().sum() + t.sum() + 1)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(z, t) + dice
    torch.testing.assert_close(maps.segmentation(pixels, pixels.positive, pixels.weight), wanted)


@both
def test_edge(seed: int, weak: bool) -> None:
    pixels, _, mask, p = make(seed, weak)
    losses = []
    for b, y, x in places(mask):
        window = np.pad(mask[b], 1, mode="edge")[y : y + 3, x : x + 3]
        if (window == 255).any():
            continue
        if math.hypot((SOBEL * window).sum(), (SOBEL.T * window).sum()) > 0:
            losses.append(bce(p[b, y, x], mask[b, y, x]))
    assert maps.edge(pixels).item() == pytest.approx(np.mean(losses) if losses else 0)


def test_edge_of_a_clean_mask() -> None:
    mask = torch.zeros(1, 12, 12, dtype=torch.int64)
    mask[0, 3:8, 2:9] = 1
    support = maps.sobel_support(mask == 1, mask != 255)[0].numpy()
    padded = np.pad(mask[0].numpy(), 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    magnitude = np.hypot((windows * SOBEL).sum((2, 3)), (windows * SOBEL.T).sum((2, 3)))
    assert np.array_equal(support, magnitude > 0)
    assert support.sum() == (7 * 9) - (3 * 5)  # a ring of two pixels


@both
def test_hv(seed: int, weak: bool) -> None:
    pixels, _, mask, _ = make(seed, weak)
    prediction, target = torch.rand(2, *SHAPE, dtype=torch.float64)
    errors = [(prediction[i] - target[i]).item() ** 2 for i in places(mask) if mask[i] == 1]
    assert maps.hv(prediction.unsqueeze(1), target, pixels).item() == pytest.approx(np.mean(errors))


@both
def test_reconstruction(seed: int, weak: bool) -> None:
    pixels, _, mask, _ = make(seed, weak)
    prediction, image = torch.rand(2, SHAPE[0], 3, *SHAPE[1:], dtype=torch.float64)
    errors = [(prediction[b, c, y, x] - image[b, c, y, x]).item() ** 2 for b, y, x in places(mask) for c in range(3)]
    assert maps.reconstruction(prediction, image, pixels).item() == pytest.approx(np.mean(errors))


@both
def test_total_variation(seed: int, weak: bool) -> None:
    pixels, _, mask, p = make(seed, weak)
    steps = []
    for b, y, x in places(mask):
        for other in ((b, y + 1, x), (b, y, x + 1)):
            if other in set(places(mask)):
                steps.append(abs(p[b, y, x] - p[other]))
    assert maps.total_variation(pixels).item() == pytest.approx(np.mean(steps))


@both
def test_small_hole(seed: int, weak: bool) -> None:
    pixels, _, mask, p = make(seed, weak)
    values = []
    for b, y, x in places(mask):
        around = itertools.product((b,), range(y - 1, y + 2), range(x - 1, x + 2))
        d = np.mean([p[place] for place in around if place in set(places(mask))])
        values.append(p[b, y, x] * (1 - d) + (1 - p[b, y, x]) * d)
    assert maps.small_hole(pixels).item() == pytest.approx(np.mean(values))


def test_a_hole_costs_more_than_a_full_disc() -> None:
    logits = torch.full((1, 1, 9, 9), 20.0)
    mask = torch.zeros(1, 9, 9, dtype=torch.int64)
    full = maps.small_hole(read_pixels(logits, mask)).item()
    logits[..., 4, 4] = -20
    assert full == pytest.approx(0, abs=1e-6)
    assert maps.small_hole(read_pixels(logits, mask)).item() == pytest.approx((8 / 9 + 8 / 9) / 81)


@pytest.mark.parametrize("part", [maps.edge, maps.total_variation, maps.small_hole, "segmentation"])
def test_gradients(part: object) -> None:
    _, logits, _, _ = make(0, True)
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([0, 0, 0, 1, 1, 1, 255])[torch.randint(0, 7, SHAPE, generator=generator)]
    weight = torch.rand(SHAPE, generator=generator, dtype=torch.float64) * (mask != 255)

    def compute(values: torch.Tensor) -> torch.Tensor:
        pixels = read_pixels(values, mask)
        return part(pixels) if callable(part) else maps.segmentation(pixels, pixels.positive, weight)

    assert gradcheck(compute, (logits,))


def test_one_pixel_has_no_neighbour() -> None:
    pixels = read_pixels(torch.zeros(1, 1, 1, 1, requires_grad=True), torch.ones(1, 1, 1).long())
    assert maps.total_variation(pixels).item() == 0
    assert maps.edge(pixels).item() == 0
    assert maps.small_hole(pixels).item() == 0.5
