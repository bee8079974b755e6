import pytest
import torch
from segmentation_models_pytorch.losses import JaccardLoss, TverskyLoss

from hsl.errors import ConfigError
from hsl.losses import functional
from hsl.losses.overlap import Jaccard, Tversky

GENERATOR = torch.Generator().manual_seed(5)
LOGITS = torch.randn(2, 3, 6, 4, generator=GENERATOR)
TARGET = torch.randint(0, 3, (2, 6, 4), generator=GENERATOR)
WEIGHTS = torch.tensor([0.5, 1.0, 1.5])


def test_equal_to_smp_where_every_class_is_present() -> None:
    tversky = TverskyLoss("multiclass", alpha=0.2, beta=0.6, smooth=2.0)
    torch.testing.assert_close(Tversky(0.2, 0.6, smooth=2.0)(LOGITS, TARGET), tversky(LOGITS, TARGET))
    torch.testing.assert_close(
        Jaccard(smooth=0.5)(LOGITS, TARGET), JaccardLoss("multiclass", smooth=0.5)(LOGITS, TARGET)
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("top", [2, 3])
def test_half_and_half_is_dice_whatever_is_present(weights: torch.Tensor | None, top: int) -> None:
    # soft Dice has 2 TP + s, Tversky TP + s: twice the smoothing.
    target = torch.where(top > TARGET, TARGET, 255)
    torch.testing.assert_close(
        Tversky(0.5, 0.5, smooth=1.0)(LOGITS, target, weights),
        functional.soft_dice(LOGITS, target, weights, smooth=2.0),
    )


def test_by_hand() -> None:
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
def test_range(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        Tversky(**arguments)


def test_range_of_jaccard() -> None:
    with pytest.raises(ConfigError, match="smooth"):
        Jaccard(-1.0)
