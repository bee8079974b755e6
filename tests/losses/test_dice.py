import pytest
import torch

from hsl.errors import ConfigError
from hsl.losses.dice import Dice


def test_smooth_and_classes_reach_the_formula() -> None:
    logits, target = torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 2, dtype=torch.int64)
    assert Dice(smooth=3.0)(logits, target).item() == pytest.approx(1 - 5 / 6)
    assert Dice(smooth=0.0)(logits, target).item() == pytest.approx(1 - 2 / 3)
    assert Dice(smooth=0.0, classes="all")(logits, target).item() == pytest.approx((1 - 2 / 3 + 1) / 2)


@pytest.mark.parametrize("arguments", [{"smooth": -1.0}, {"smooth": float("nan")}, {"classes": "some"}])
def test_range(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        Dice(**arguments)  # type: ignore[arg-type]
