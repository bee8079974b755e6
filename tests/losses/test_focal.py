import math

import pytest
import torch

from hsl.config import ConfigError
from hsl.losses.focal import Focal


def test_gamma_reaches_the_formula() -> None:
    logits, target = torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64)
    assert Focal(gamma=3.0)(logits, target).item() == pytest.approx(math.log(2) / 8)


@pytest.mark.parametrize("gamma", [-1.0, float("nan")])
def test_range(gamma: float) -> None:
    with pytest.raises(ConfigError, match="gamma"):
        Focal(gamma)
