import pytest
import torch

from hsl.losses.finite import NonFiniteLossError, check_finite


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_names_the_component_the_pictures_and_the_step(value: float) -> None:
    with pytest.raises(NonFiniteLossError, match=r"`focal = .*step 12 .*img_7, img_9") as caught:
        check_finite({"dice": torch.tensor(0.5), "focal": torch.tensor(value)}, ["img_7", "img_9"], 12)
    assert "dice" not in str(caught.value)
    assert isinstance(caught.value, ArithmeticError)


def test_finite_passes_and_keeps_the_graph() -> None:
    loss = torch.tensor(1.0, requires_grad=True) * 2
    check_finite({"dice": loss, "focal": torch.tensor(3.0, dtype=torch.float64)}, ["a"], 0)
    assert loss.requires_grad


def test_every_broken_component_is_named() -> None:
    bad = torch.tensor(float("nan"))
    with pytest.raises(NonFiniteLossError, match=r"`dice = nan`, `focal = nan`"):
        check_finite({"dice": bad, "focal": bad}, ["a"], 0)
