import pytest
import torch

from hsl.config import ConfigError
from hsl.weighting.scalar import Fixed


def test_total_by_hand() -> None:
    total = Fixed({"a": 0.25, "b": 3.0, "c": 1.0})(
        {"c": torch.tensor(5.0), "a": torch.tensor(8.0), "b": torch.tensor(1.0)}
    )
    assert total.item() == 10


def test_gradient_is_the_weight_and_nothing_is_changed_in_place() -> None:
    a, b = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    objectives = {"a": a * 1, "b": b * 1}
    Fixed({"a": 0.5, "b": 4.0})(objectives).backward()
    assert (a.grad, b.grad) == (torch.tensor(0.5), torch.tensor(4.0))
    assert objectives["a"].item() == 2


def test_weight_zero_leaves_an_objective_out() -> None:
    a, b = torch.tensor(2.0, requires_grad=True), torch.tensor(float("inf"), requires_grad=True)
    total = Fixed({"a": 1.0, "b": 0.0})({"a": a, "b": b})
    total.backward()
    assert total.item() == 2
    assert b.grad is None


@pytest.mark.parametrize("objectives", [{"a": torch.ones(())}, {"a": torch.ones(()), "c": torch.ones(())}, {}])
def test_names_must_match(objectives: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ConfigError) as caught:
        Fixed({"a": 1.0, "b": 1.0})(objectives)
    assert str(["a", "b"]) in str(caught.value)
    assert str(sorted(objectives)) in str(caught.value)


@pytest.mark.parametrize("weights", [{"a": -1.0}, {"a": float("nan")}, {"a": 0.0, "b": 0.0}, {}, {"a": float("inf")}])
def test_range(weights: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"loss\.weights"):
        Fixed(weights)
