import pytest
import torch

from hsl.errors import ConfigError
from hsl.losses.cross_entropy import CrossEntropy


def test_smoothing_reaches_the_formula() -> None:
    logits = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    target = torch.zeros(1, 1, 1, dtype=torch.int64)
    hard, soft = CrossEntropy()(logits, target), CrossEntropy(0.2)(logits, target)
    assert (soft - hard).item() == pytest.approx(0.1 * 2.0)  # a tenth of the mass moves over a distance of 2


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.0, float("nan")])
def test_range(label_smoothing: float) -> None:
    with pytest.raises(ConfigError, match="label_smoothing"):
        CrossEntropy(label_smoothing)
