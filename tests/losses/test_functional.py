"""Losses of one map as functions, and those of overlap."""

import itertools
import math

import pytest
import segmentation_models_pytorch as smp
import torch
from monai.losses import DiceLoss, FocalLoss
from segmentation_models_pytorch.losses import JaccardLoss, LovaszLoss, TverskyLoss
from torch import Tensor

from hsl.errors import ConfigError
from hsl.losses import functional
from hsl.losses.cross_entropy import CrossEntropy, Focal
from hsl.losses.overlap import Dice, ForegroundDice, Jaccard, Lovasz, Tversky

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


def test_smoothing_reaches_the_formula() -> None:
    logits = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    target = torch.zeros(1, 1, 1, dtype=torch.int64)
    hard, soft = CrossEntropy()(logits, target), CrossEntropy(0.2)(logits, target)
    assert (soft - hard).item() == pytest.approx(0.1 * 2.0)  # a tenth of the mass moves over a distance of 2


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.0, float("nan")])
def test_range(label_smoothing: float) -> None:
    with pytest.raises(ConfigError, match="label_smoothing"):
        CrossEntropy(label_smoothing)


def test_gamma_reaches_the_formula() -> None:
    logits, target = torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64)
    assert Focal(gamma=3.0)(logits, target).item() == pytest.approx(math.log(2) / 8)


@pytest.mark.parametrize("gamma", [-1.0, float("nan")])
def test_range_of_gamma(gamma: float) -> None:
    with pytest.raises(ConfigError, match="gamma"):
        Focal(gamma)


def random_case() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (2, 4, 5), generator=generator)
    target[0, 0] = 255
    return torch.randn(2, 3, 4, 5, generator=generator), target


@pytest.mark.parametrize("alpha", [0.25, 1, [0.1, 0.5, 1.0]])
@pytest.mark.parametrize("weighted", [False, True])
def test_alpha_against_a_loop_over_the_pixels(alpha: float | list[float], weighted: bool) -> None:
    logits, target = random_case()
    weights = torch.tensor([0.5, 1.0, 1.5]) if weighted else None
    factors = alpha if isinstance(alpha, list) else [alpha] * 3
    losses = []
    for b, y, x in itertools.product(range(2), range(4), range(5)):
        if (t := int(target[b, y, x])) != 255:
            p = logits[b, :, y, x].double().softmax(0)[t].item()
            losses.append(-factors[t] * (float(weights[t]) if weights is not None else 1) * (1 - p) ** 2 * math.log(p))
    found = Focal(alpha=alpha)(logits, target, weights)
    assert found.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_one_alpha_scales_and_none_is_one() -> None:
    logits, target = random_case()
    assert Focal(alpha=0.25)(logits, target).item() == pytest.approx(0.25 * Focal()(logits, target).item())
    assert Focal(alpha=None)(logits, target).item() == Focal(alpha=1.0)(logits, target).item()
    assert not list(Focal(alpha=0.25).state_dict())  # so that older checkpoints fit


@pytest.mark.parametrize("alpha", [-0.1, 1.1, 0.0, float("nan"), [0.0, 0.0], [0.5, 2.0], []])
def test_alpha_out_of_its_range(alpha: float | list[float]) -> None:
    with pytest.raises(ConfigError, match=r"`alpha` should be one number or one for each class, in \[0, 1\]"):
        Focal(alpha=alpha)


def test_as_many_alphas_as_classes() -> None:
    with pytest.raises(ConfigError, match=r"`alpha` should be one number or 3 of them.*Found 2"):
        Focal(alpha=[0.5, 0.5])(*random_case())


# Overlap.


GENERATOR_FLAT = torch.Generator().manual_seed(5)
LOGITS_FLAT = torch.randn(2, 3, 6, 4, generator=GENERATOR_FLAT)
TARGET_FLAT = torch.randint(0, 3, (2, 6, 4), generator=GENERATOR_FLAT)
WEIGHTS_FLAT = torch.tensor([0.5, 1.0, 1.5])


def test_equal_to_smp_where_every_class_is_present() -> None:
    tversky = TverskyLoss("multiclass", alpha=0.2, beta=0.6, smooth=2.0)
    torch.testing.assert_close(
        Tversky(0.2, 0.6, smooth=2.0)(LOGITS_FLAT, TARGET_FLAT), tversky(LOGITS_FLAT, TARGET_FLAT)
    )
    torch.testing.assert_close(
        Jaccard(smooth=0.5)(LOGITS_FLAT, TARGET_FLAT),
        JaccardLoss("multiclass", smooth=0.5)(LOGITS_FLAT, TARGET_FLAT),
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS_FLAT])
@pytest.mark.parametrize("top", [2, 3])
def test_half_and_half_is_dice_whatever_is_present(weights: torch.Tensor | None, top: int) -> None:
    # soft Dice has 2 TP + s, Tversky TP + s: twice the smoothing.
    target = torch.where(top > TARGET_FLAT, TARGET_FLAT, 255)
    torch.testing.assert_close(
        Tversky(0.5, 0.5, smooth=1.0)(LOGITS_FLAT, target, weights),
        functional.soft_dice(LOGITS_FLAT, target, weights, smooth=2.0),
    )


def test_tversky_and_jaccard_by_hand() -> None:
    # p = 1/2 on two pixels of class 0, class 1 is absent: TP = 1, FN = 1, FP = 0.
    logits, target = torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 2, dtype=torch.int64)
    assert Tversky(0.3, 0.7, smooth=0.0)(logits, target).item() == pytest.approx(1 - 1 / 1.7)
    assert Tversky(0.3, 0.7, gamma=2.0, smooth=0.0)(logits, target).item() == pytest.approx((1 - 1 / 1.7) ** 2)
    assert Jaccard(smooth=1.0)(logits, target).item() == pytest.approx(1 - 2 / 3)


def test_beta_is_the_price_of_a_miss() -> None:
    target = torch.zeros(1, 1, 4, dtype=torch.int64)
    target[..., 0] = 1
    missed = torch.tensor([9.0, -9.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4)  # class 1 is never predicted
    only_one = torch.tensor([0.0, 1.0])
    dear = Tversky(0.1, 0.9)(missed, target, only_one)
    assert dear > Tversky(0.9, 0.1)(missed, target, only_one)


@pytest.mark.parametrize("arguments", [{"alpha": -0.1}, {"beta": -1.0}, {"gamma": 0.5}, {"smooth": -1.0}])
def test_range_of_tversky(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        Tversky(**arguments)


def test_range_of_jaccard() -> None:
    with pytest.raises(ConfigError, match="smooth"):
        Jaccard(-1.0)


def test_smooth_and_classes_reach_the_formula() -> None:
    logits, target = torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 2, dtype=torch.int64)
    assert Dice(smooth=3.0)(logits, target).item() == pytest.approx(1 - 5 / 6)
    assert Dice(smooth=0.0)(logits, target).item() == pytest.approx(1 - 2 / 3)
    assert Dice(smooth=0.0, classes="all")(logits, target).item() == pytest.approx((1 - 2 / 3 + 1) / 2)


@pytest.mark.parametrize("arguments", [{"smooth": -1.0}, {"smooth": float("nan")}, {"classes": "some"}])
def test_range_of_dice(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        Dice(**arguments)  # type: ignore[arg-type]


def make(share: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 6, 7, generator=generator, dtype=torch.float64)
    return logits, (torch.rand(2, 6, 7, generator=generator) < share).long()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_two_logits_are_the_sigmoid_mask_of_their_difference(share: float) -> None:
    logits, target = make(share)
    one = (logits[:, 1] - logits[:, 0])[:, None]
    dice = smp.losses.DiceLoss("binary", smooth=0.5)(one, target[:, None])  # (2 I + 2 s) / (S + 2 s)
    if share:  # theirs gives 0 where the batch does not show the class
        assert ForegroundDice(smooth=1.0)(logits, target).item() == pytest.approx(dice.item(), rel=1e-6)
    p = one.sigmoid()[:, 0]
    expected = 1 - (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)
    assert ForegroundDice(smooth=1.0)(logits, target).item() == pytest.approx(expected.item(), rel=1e-6)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(one[:, 0], target.double())
    assert CrossEntropy(label_smoothing=0.0)(logits, target).item() == pytest.approx(entropy.item(), rel=1e-9)


def test_ignored_pixels_count_nowhere_and_perfect_is_nothing() -> None:
    logits, target = make(0.4)
    torch.manual_seed(1)
    ignored = torch.rand(target.shape) < 0.5
    hidden = target.masked_fill(ignored, 255)
    loss = ForegroundDice(smooth=1.0)(logits, hidden)
    p = (logits[:, 1] - logits[:, 0]).sigmoid()[~ignored]
    true = target[~ignored]
    assert loss.item() == pytest.approx((1 - (2 * (p * true).sum() + 1) / (p.sum() + true.sum() + 1)).item(), rel=1e-6)
    sure = torch.stack([1 - 2 * target, 2 * target - 1], dim=1).double() * 50
    assert ForegroundDice()(sure, target).item() == pytest.approx(0, abs=1e-9)
    logits.requires_grad_()
    nothing = ForegroundDice()(logits, torch.full_like(target, 255))
    nothing.backward()
    assert nothing.item() == 0
    assert not logits.grad.any()


def test_what_does_not_fit_is_refused() -> None:
    logits, target = make(0.5)
    with pytest.raises(ConfigError, match="`smooth` should be above 0"):
        ForegroundDice(smooth=0.0)
    with pytest.raises(ValueError, match="two classes"):
        ForegroundDice()(torch.zeros(2, 3, 6, 7), target)
    with pytest.raises(ValueError, match="`class_weights` should be None"):
        ForegroundDice()(logits, target, torch.ones(2))


def test_lovasz_by_hand() -> None:
    # Errors of class 0: (1/4 at its pixel, 3/4 at the other). Sorted: 3/4 (background), 1/4 (foreground).
    # Jaccard loss after the first error 1/2, after both 1: steps 1/2, 1/2, so 1/2 in all.
    # Class 1: errors 3/4 (foreground), 1/4 (background); Jaccard loss 1 at once, so 3/4.
    logits = torch.tensor([[3.0, 3.0], [1.0, 1.0]]).log().view(1, 2, 1, 2)
    assert Lovasz()(logits, torch.tensor([[[0, 1]]])).item() == pytest.approx(0.625)


def test_lovasz_equals_smp() -> None:
    logits, target = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    target[0, 0] = 255
    peer = LovaszLoss("multiclass", ignore_index=255)
    torch.testing.assert_close(Lovasz()(logits, target), peer(logits, target))


def test_certain_prediction_is_one_minus_mean_iou() -> None:
    target, prediction = torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, 1]]])
    logits = 60.0 * torch.nn.functional.one_hot(prediction, 2).movedim(-1, 1).float()
    assert Lovasz()(logits, target).item() == pytest.approx(1 - (1 / 2 + 2 / 3) / 2)
