import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from hsl.errors import ConfigError
from hsl.losses.dual_head import DualHeadLoss, weighted_dice_ce
from hsl.losses.functional import cross_entropy, soft_dice
from hsl.losses.image_loss import ImageCrossEntropy, MultilabelFocal, hardest

COUNTS = {"classification": torch.tensor([6, 3, 1])}
KNOWN = {"classification": torch.tensor([10, 10, 10])}
PIXEL_COUNTS = {"segmentation": torch.tensor([70, 20, 10]), "classification": torch.tensor([6, 4])}
WEIGHTS = {"segmentation": 0.4, "classification": 0.6}


def batch(labels: torch.Tensor) -> Any:
    return {"id": [], "image": None, "size": None, "labels": {"classification": labels}}


def loss_of(loss: Any, logits: torch.Tensor, labels: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
    return loss({"classification": logits}, batch(labels), *weights)["classification"]


def test_cross_entropy_is_that_of_torch() -> None:
    logits, labels = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    assert loss_of(ImageCrossEntropy(COUNTS), logits, labels).item() == pytest.approx(
        F.cross_entropy(logits, labels).item()
    )
    weighted = ImageCrossEntropy(COUNTS, class_weights=[1.0, 2.0, 3.0], label_smoothing=0.0)
    weights = weighted.class_weights
    assert weights is not None
    assert loss_of(weighted, logits, labels).item() == pytest.approx(F.cross_entropy(logits, labels, weights).item())


def test_unknown_labels_count_nowhere() -> None:
    loss = ImageCrossEntropy(COUNTS, class_weights="inverse_sqrt")
    logits = torch.randn(4, 3, requires_grad=True)
    some = loss_of(loss, logits, torch.tensor([0, -1, 2, -1]))
    assert some.item() == pytest.approx(loss_of(loss, logits[[0, 2]], torch.tensor([0, 2])).item())
    none = loss_of(loss, logits, torch.full((4,), -1))
    none.backward()
    assert none.item() == 0
    assert not logits.grad.any()  # type: ignore[union-attr]


def test_pictures_may_weigh_unlike() -> None:
    logits, labels = torch.randn(2, 3), torch.tensor([0, 1])
    one = [F.cross_entropy(logits[i : i + 1], labels[i : i + 1]).item() for i in range(2)]
    found = loss_of(ImageCrossEntropy(COUNTS), logits, labels, torch.tensor([1.5, 0.5]))
    assert found.item() == pytest.approx((1.5 * one[0] + 0.5 * one[1]) / 2)


def focal_by_hand(logits: torch.Tensor, labels: torch.Tensor, alpha: list[float] | None, gamma: float) -> float:
    total, number = 0.0, 0
    for row, truth in zip(logits.tolist(), labels.tolist(), strict=True):
        for k, (value, label) in enumerate(zip(row, truth, strict=True)):
            if math.isnan(label):
                continue
            p = 1 / (1 + math.exp(-value))
            p_t = p if label else 1 - p
            a_t = 1.0 if alpha is None else alpha[k] if label else 1 - alpha[k]
            total -= a_t * (1 - p_t) ** gamma * math.log(p_t)
            number += 1
    return total / number


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [("dynamic", [0.4, 0.7, 0.9]), (0.25, [0.25] * 3), ([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]), (None, None)],
)
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_focal_loss_against_a_loop(alpha: Any, expected: Any, gamma: float) -> None:
    logits = torch.randn(4, 3)
    labels = torch.tensor([[1.0, 0, 0], [1, 1, float("nan")], [0, 0, 0], [float("nan")] * 3])
    found = loss_of(MultilabelFocal(COUNTS, KNOWN, alpha, gamma), logits, labels)
    assert found.item() == pytest.approx(focal_by_hand(logits, labels, expected, gamma), rel=1e-5)


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_focal_loss_is_that_of_torchvision(gamma: float) -> None:
    logits, labels = torch.randn(6, 3), torch.randint(0, 2, (6, 3)).float()
    found = loss_of(MultilabelFocal(COUNTS, KNOWN, 0.25, gamma), logits, labels)
    torch.testing.assert_close(found, sigmoid_focal_loss(logits, labels, 0.25, gamma, "mean"))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_are_finite_at_both_ends(dtype: torch.dtype, gamma: float) -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype).requires_grad_()
    for labels in (torch.tensor([[1.0, 0, 1]]), torch.tensor([[0.0, 1, 0]])):
        loss_of(MultilabelFocal(COUNTS, KNOWN, gamma=gamma), logits, labels).backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


def test_nothing_known_gives_zero() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    found = loss_of(MultilabelFocal(COUNTS, KNOWN), logits, torch.full((2, 3), float("nan")))
    found.backward()
    assert found.item() == 0
    assert not logits.grad.any()  # type: ignore[union-attr]


def test_errors() -> None:
    with pytest.raises(ConfigError, match=r"`loss.alpha`.*3 of them. Found `loss.alpha = \[0.5\]`"):
        MultilabelFocal(COUNTS, KNOWN, [0.5])
    with pytest.raises(ConfigError, match="dynamc"):
        MultilabelFocal(COUNTS, KNOWN, "dynamc")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"`loss\.gamma`"):
        MultilabelFocal(COUNTS, KNOWN, gamma=-1)
    with pytest.raises(ConfigError, match=r"data\.image_labels"):
        ImageCrossEntropy({"segmentation": torch.ones(2)})
    with pytest.raises(ConfigError, match="loss=dual_head_multilabel"):
        loss_of(ImageCrossEntropy(COUNTS), torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ConfigError, match=r"loss=image_ce.*loss=dual_head"):
        loss_of(MultilabelFocal(COUNTS, KNOWN), torch.zeros(2, 3), torch.zeros(2))


def test_hard_examples_are_those_of_the_largest_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        losses, known = torch.rand(7, generator=generator), torch.rand(7, generator=generator) > 0.3
        for share in (0.1, 0.5, 0.75, 1.0):
            kept = hardest(losses, known, share)
            number = math.ceil(share * int(known.sum()))
            wanted = sorted(losses[known].tolist(), reverse=True)[:number]
            assert sorted(losses[kept].tolist(), reverse=True) == wanted
            assert not (kept & ~known).any()


def test_a_loss_of_hard_examples_is_that_of_those_alone() -> None:
    logits, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 2, 1, -1, 0, 1])
    each = F.cross_entropy(logits, labels.clamp_min(0), reduction="none")
    each[labels < 0] = -1
    hard = each.argsort(descending=True)[:3]  # half of five known ones, rounded up
    found = loss_of(ImageCrossEntropy(COUNTS, hard_share=0.5), logits, labels)
    assert found.item() == pytest.approx(each[hard].mean().item())
    several = torch.tensor([[1.0, 0, 0], [0, 1, 1], [math.nan, 0, 1], [math.nan] * 3, [0, 0, 1], [1, 1, 1]])
    plain = MultilabelFocal(COUNTS, KNOWN, alpha=None, gamma=0.0)
    alone = torch.stack([loss_of(plain, logits[i : i + 1], several[i : i + 1]) for i in range(6)])
    kept = alone.argsort(descending=True)[:3]
    mined = MultilabelFocal(COUNTS, KNOWN, alpha=None, gamma=0.0, hard_share=0.5)
    assert loss_of(mined, logits, several).item() == pytest.approx(loss_of(plain, logits[kept], several[kept]).item())
    for share in (0.0, 1.5, math.nan):
        with pytest.raises(ConfigError, match="hard_share"):
            ImageCrossEntropy(COUNTS, hard_share=share)


def make(**changed: Any) -> DualHeadLoss:
    return DualHeadLoss(partial(ImageCrossEntropy, class_weights=None), PIXEL_COUNTS, PIXEL_COUNTS, WEIGHTS, **changed)


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


def test_errors_of_dual_head() -> None:
    with pytest.raises(ConfigError, match="softmax or sigmoid"):
        make(activation="tanh")
    with pytest.raises(ConfigError, match="independent channels"):
        make(activation="sigmoid", class_weights="inverse")
