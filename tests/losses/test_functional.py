import math

import pytest
import torch
from monai.losses import DiceLoss, FocalLoss

from hsl.losses import functional

GENERATOR = torch.Generator().manual_seed(3)
LOGITS = torch.randn(2, 5, 9, 6, generator=GENERATOR)
TARGET = torch.randint(0, 5, (2, 9, 6), generator=GENERATOR)
HOLED = torch.where(torch.rand(2, 9, 6, generator=GENERATOR) < 0.3, 255, TARGET)
WEIGHTS = torch.tensor([0.2, 1.0, 3.0, 0.0, 0.8])

# Two pixels, two classes, p = (3/4, 1/4) on both; the first pixel is class 0, the second class 1.
HAND = torch.tensor([[math.log(3.0), math.log(3.0)], [0.0, 0.0]]).view(1, 2, 1, 2)
HAND_TARGET = torch.tensor([[[0, 1]]])


def test_cross_entropy_by_hand() -> None:
    assert functional.cross_entropy(HAND, HAND_TARGET).item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    weighted = functional.cross_entropy(HAND, HAND_TARGET, torch.tensor([3.0, 1.0])).item()
    assert weighted == pytest.approx((3 * math.log(4 / 3) + math.log(4)) / 4)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_equals_torch(weights: torch.Tensor | None, smoothing: float) -> None:
    expected = torch.nn.functional.cross_entropy(LOGITS, HOLED, weights, ignore_index=255, label_smoothing=smoothing)
    torch.testing.assert_close(functional.cross_entropy(LOGITS, HOLED, weights, smoothing), expected)


def test_cross_entropy_of_weightless_classes_only_is_zero() -> None:
    assert functional.cross_entropy(LOGITS, torch.full_like(TARGET, 3), WEIGHTS).item() == 0


def test_focal_by_hand() -> None:
    right, wrong = math.log(4 / 3) / 16, 9 / 16 * math.log(4)
    assert functional.focal(HAND, HAND_TARGET).item() == pytest.approx((right + wrong) / 2)
    # The divisor is the number of valid pixels, not the sum of their weights.
    weighted = functional.focal(HAND, HAND_TARGET, torch.tensor([3.0, 1.0])).item()
    assert weighted == pytest.approx((3 * right + wrong) / 2)


def test_focal_with_gamma_zero_is_cross_entropy() -> None:
    torch.testing.assert_close(functional.focal(LOGITS, HOLED, gamma=0.0), functional.cross_entropy(LOGITS, HOLED))


def test_focal_equals_monai() -> None:
    # MONAI takes the mean over pixels and classes; C times that is the sum over classes, ours.
    peer = FocalLoss(use_softmax=True, to_onehot_y=True, gamma=2.0)
    torch.testing.assert_close(functional.focal(LOGITS, TARGET), 5 * peer(LOGITS, TARGET.unsqueeze(1)))


def test_focal_gradient_is_finite_at_certainty() -> None:
    logits = torch.tensor([200.0, 0.0]).view(1, 2, 1, 1).requires_grad_()
    functional.focal(logits, torch.zeros(1, 1, 1, dtype=torch.int64), gamma=0.5).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_soft_dice_by_hand() -> None:
    first = 1 - (2 * 0.75 + 1) / (1.5 + 1 + 1)
    second = 1 - (2 * 0.25 + 1) / (0.5 + 1 + 1)
    assert functional.soft_dice(HAND, HAND_TARGET).item() == pytest.approx((first + second) / 2)
    weighted = functional.soft_dice(HAND, HAND_TARGET, torch.tensor([3.0, 1.0])).item()
    assert weighted == pytest.approx((3 * first + second) / 4)


def test_soft_dice_leaves_absent_classes_out_of_the_mean() -> None:
    target = torch.tensor([[[0, 255]]])
    present = 1 - (2 * 0.75 + 1) / (0.75 + 1 + 1)
    absent = 1 - 1 / (0.25 + 1)
    assert functional.soft_dice(HAND, target).item() == pytest.approx(present)
    assert functional.soft_dice(HAND, target, classes="all").item() == pytest.approx((present + absent) / 2)


def test_soft_dice_of_weightless_classes_only_is_zero() -> None:
    assert functional.soft_dice(LOGITS, torch.full_like(TARGET, 3), WEIGHTS).item() == 0


def test_soft_dice_equals_monai() -> None:
    peer = DiceLoss(softmax=True, to_onehot_y=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
    torch.testing.assert_close(functional.soft_dice(LOGITS, TARGET, classes="all"), peer(LOGITS, TARGET.unsqueeze(1)))


@pytest.mark.parametrize("loss", [functional.cross_entropy, functional.focal])
def test_a_target_outside_the_classes_is_refused(loss: object) -> None:
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        loss(LOGITS, torch.full_like(TARGET, 5))  # type: ignore[operator]
