import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor

from hsl.errors import ConfigError
from hsl.losses.cross_entropy import CrossEntropy
from hsl.losses.foreground_dice import ForegroundDice


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
