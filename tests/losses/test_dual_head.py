from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hsl.errors import ConfigError
from hsl.losses.dual_head import DualHeadLoss, weighted_dice_ce
from hsl.losses.functional import cross_entropy, soft_dice
from hsl.losses.image_loss import ImageCrossEntropy

COUNTS = {"segmentation": torch.tensor([70, 20, 10]), "classification": torch.tensor([6, 4])}
WEIGHTS = {"segmentation": 0.4, "classification": 0.6}


def make(**changed: Any) -> DualHeadLoss:
    return DualHeadLoss(partial(ImageCrossEntropy, class_weights=None), COUNTS, COUNTS, WEIGHTS, **changed)


def case() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    target = torch.randint(0, 3, (2, 4, 5), generator=generator)
    target[0, 0] = 255
    return logits, target


def test_weights_of_one_give_the_plain_losses() -> None:
    logits, target = case()
    plain = 0.5 * cross_entropy(logits, target) + 0.5 * soft_dice(logits, target)
    torch.testing.assert_close(weighted_dice_ce(logits, target), plain)
    torch.testing.assert_close(weighted_dice_ce(logits, target, torch.ones(2, 1, 1)), plain)


def test_weights_of_a_half_give_half() -> None:
    logits, target = case()
    half = weighted_dice_ce(logits, target, torch.full((2, 1, 1), 0.5), smooth=0.0)
    torch.testing.assert_close(half, weighted_dice_ce(logits, target, smooth=0.0) / 2)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_weight_of_zero_is_a_pixel_that_is_ignored(activation: str) -> None:
    logits, target = case()
    weights = torch.ones(2, 4, 5)
    weights[1] = 0
    logits.requires_grad_()
    weighted_dice_ce(logits, target, weights, activation=activation).backward()
    assert logits.grad is not None
    assert not logits.grad[1].any()
    assert not logits.grad[0, :, 0].any()  # 255
    assert logits.grad[0, :, 1:].any()


def test_sigmoid_channels_against_a_loop() -> None:
    logits, target = case()
    valid = target != 255
    bce, overlap, total = 0.0, [0.0] * 3, [0.0] * 3
    for c in range(3):
        p = logits[:, c][valid].sigmoid()
        t = (target[valid] == c).float()
        bce += F.binary_cross_entropy(p, t, reduction="sum").item() / 3
        overlap[c], total[c] = (p * t).sum().item(), (p + t).sum().item()
    dice = sum(1 - (2 * o + 1) / (s + 1) for o, s in zip(overlap, total, strict=True)) / 3
    found = weighted_dice_ce(logits, target, activation="sigmoid")
    assert found.item() == pytest.approx(0.5 * bce / valid.sum().item() + 0.5 * dice, rel=1e-5)


def test_both_objectives_and_the_focus_on_foreground() -> None:
    logits, target = case()
    outputs = {"segmentation": logits, "classification": torch.randn(2, 2)}
    batch: Any = {"masks": {"segmentation": target}, "labels": {"classification": torch.tensor([0, 1])}}
    plain = make()(outputs, batch)
    assert plain.keys() == WEIGHTS.keys()
    foreground = 1 - logits.softmax(1)[:, 0].mean(dim=(1, 2))
    one = F.cross_entropy(outputs["classification"], torch.tensor([0, 1]), reduction="none")
    expected = (one * foreground / foreground.mean()).mean()
    torch.testing.assert_close(make(focus="foreground")(outputs, batch)["classification"], expected)
    torch.testing.assert_close(plain["classification"], one.mean())
    batch["weights"] = {"segmentation": torch.zeros(2, 1, 1)}
    assert make()(outputs, batch)["segmentation"].item() == 0


def test_all_ignored_is_zero_with_a_gradient_path() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    for activation in ("softmax", "sigmoid"):
        found = weighted_dice_ce(logits, torch.full((1, 2, 2), 255), activation=activation)
        found.backward()
        assert found.item() == 0
        assert logits.grad is not None
        assert not logits.grad.any()


def test_errors() -> None:
    with pytest.raises(ConfigError, match="softmax or sigmoid"):
        make(activation="tanh")
    with pytest.raises(ConfigError, match="independent channels"):
        make(activation="sigmoid", class_weights="inverse")
