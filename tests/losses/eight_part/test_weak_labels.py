import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.morphology import opening

from hsl.losses.eight_part.weak_labels import Pixels, opened, read_pixels, resize_labels, weak_targets

RULES = {"t_pos": 0.8, "t_neg": 0.1, "pseudo_weight": 0.3, "rest_weight": 0.05}


def random_pixels(seed: int, shape: tuple[int, int, int] = (3, 7, 6)) -> tuple[Pixels, torch.Tensor, torch.Tensor]:
    """Pixels with all kinds of labels, the mask and what is unlabelled."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.tensor([0, 0, 1, 255])[torch.randint(0, 4, shape, generator=generator)]
    unlabelled = torch.rand(shape, generator=generator) < 0.5
    logits = 4 * torch.randn(shape[0], 1, *shape[1:], generator=generator)
    return read_pixels(logits, mask, unlabelled), mask, unlabelled


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0, 3]))
def test_pseudo_labels_never_touch_annotated_pixels(seed: int, size: int) -> None:
    pixels, mask, unlabelled = random_pixels(seed)
    target, weight = weak_targets(pixels, **RULES, opening=size)
    annotated = (mask != 255) & ~unlabelled
    assert torch.equal(target[annotated], mask[annotated] == 1)
    assert (weight[annotated] == 1).all()
    assert (weight[mask == 255] == 0).all()
    assert not target[mask == 255].any()


@pytest.mark.parametrize("seed", range(4))
def test_every_pixel_by_the_table(seed: int) -> None:
    pixels, mask, unlabelled = random_pixels(seed)
    target, weight = weak_targets(pixels, **RULES)
    for b, y, x in np.ndindex(*mask.shape):
        valid = mask[b] != 255
        share = (valid & (mask[b] == 1) & ~unlabelled[b]).sum().item() / valid.sum().item()
        p = torch.sigmoid(pixels.logits[b, y, x]).item()
        if mask[b, y, x] == 255:
            wanted = (0, 0.0)
        elif not unlabelled[b, y, x]:
            wanted = (int(mask[b, y, x]), 1.0)
        elif p > 0.8 or p < 0.1:
            wanted = (int(p > 0.8), 0.3)
        else:
            wanted = (0, 0.05 * (1 - share))
        assert (int(target[b, y, x]), weight[b, y, x].item()) == pytest.approx(wanted)


def test_full_labels_weigh_one() -> None:
    mask = torch.tensor([[[1, 0, 255]]])
    target, weight = weak_targets(read_pixels(torch.full((1, 1, 1, 3), 9.0), mask), **RULES)
    assert target.tolist() == [[[True, False, False]]]
    assert weight.tolist() == [[[1, 1, 0]]]


def test_a_picture_without_a_valid_pixel() -> None:
    mask = torch.full((1, 2, 2), 255)
    target, weight = weak_targets(read_pixels(torch.zeros(1, 1, 2, 2), mask, torch.ones(1, 2, 2).bool()), **RULES)
    assert not target.any()
    assert weight.tolist() == [[[0, 0], [0, 0]]]


@pytest.mark.parametrize("size", [0, 1, 3, 5])
def test_opening_equals_scikit_image(size: int) -> None:
    mask = np.random.default_rng(size).random((2, 20, 23)) < 0.8
    mask[0] = ndimage.binary_closing(mask[0])
    side = max(size, 1)
    for found, picture in zip(opened(torch.from_numpy(mask), size), mask, strict=True):
        assert np.array_equal(found.numpy(), opening(picture, np.ones((side, side))))


def test_opening_reaches_the_targets() -> None:
    logits = torch.full((1, 1, 9, 9), 0.0)
    logits[..., 1:4, 1:4], logits[..., 7, 7] = 5.0, 5.0  # a square of 3 and a speck
    pixels = read_pixels(logits, torch.zeros(1, 9, 9).long(), torch.ones(1, 9, 9).bool())
    assert weak_targets(pixels, **RULES)[0].sum() == 10
    assert weak_targets(pixels, **RULES, opening=3)[0].sum() == 9


def test_resized_reads_the_pixel_below_the_centre() -> None:
    mask = torch.rand(2, 12, 9)
    peer = torch.nn.functional.interpolate(mask[:, None], (5, 4), mode="nearest-exact")[:, 0]
    assert torch.equal(resize_labels(mask, (5, 4)), peer)
    assert resize_labels(mask, (24, 18)).shape == (2, 24, 18)
    assert resize_labels(mask, (12, 9)) is mask


def test_shapes_and_types_are_checked() -> None:
    mask = torch.zeros(1, 2, 2).long()
    with pytest.raises(ValueError, match="one channel"):
        read_pixels(torch.zeros(1, 2, 2, 2), mask)
    with pytest.raises(ValueError, match="`logits` should be"):
        read_pixels(torch.zeros(1, 1, 3, 2), mask)
    with pytest.raises(ValueError, match="`unlabelled` should be bool"):
        read_pixels(torch.zeros(1, 1, 2, 2), mask, mask)
