import pytest
import torch

from hsl.callbacks.loss_parts import LossParts, part_values
from hsl.config import ConfigError


def test_shares_and_gradients_by_hand() -> None:
    encoder = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        encoder.weight.copy_(torch.tensor([[3.0, 4.0]]))
    objectives = {
        "linear": encoder.weight.sum(),  # 7, gradient (1, 1)
        "square": encoder.weight.square().sum() / 2,  # 12.5, gradient (3, 4)
        "apart": torch.ones(1, requires_grad=True).sum(),
    }
    found = part_values(objectives, {"linear": 2.0, "square": 0.4, "apart": 1.0}, encoder)
    assert found["parts/square"] == pytest.approx(12.5)
    assert found["parts/share/linear"] == pytest.approx(14 / 20)
    assert found["parts/gradient/linear"] == pytest.approx(2 * 2**0.5)
    assert found["parts/gradient/square"] == pytest.approx(0.4 * 5)
    assert found["parts/gradient/apart"] == 0
    sum(objectives.values()).backward()  # the graph is still there


def test_errors() -> None:
    with pytest.raises(ConfigError, match="every_n_steps = 0"):
        LossParts(0)
