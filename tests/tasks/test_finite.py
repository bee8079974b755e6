import pytest
import torch

from hsl.errors import NonFiniteLogitsError, UserError
from hsl.tasks.scoring import NonFiniteLossError, check_finite

PLACE = "training, epoch 2, step 12"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_names_the_component_the_pictures_and_the_step(value: float) -> None:
    with pytest.raises(NonFiniteLossError, match=r"`focal = .*img_7, img_9 .*step 12") as caught:
        check_finite({}, {"dice": torch.tensor(0.5), "focal": torch.tensor(value)}, ["img_7", "img_9"], PLACE)
    assert "dice" not in str(caught.value)
    assert isinstance(caught.value, ArithmeticError)
    assert isinstance(caught.value, UserError)


def test_finite_passes_and_keeps_the_graph() -> None:
    loss = torch.tensor(1.0, requires_grad=True) * 2
    outputs = {"a": torch.zeros(1, 2, 3, 3, requires_grad=True) * 2}
    check_finite(outputs, {"dice": loss, "focal": torch.tensor(3.0, dtype=torch.float64)}, ["a"], PLACE)
    assert loss.requires_grad
    assert outputs["a"].requires_grad


def test_every_broken_component_is_named() -> None:
    bad = torch.tensor(float("nan"))
    with pytest.raises(NonFiniteLossError, match=r"`dice = nan`, `focal = nan`"):
        check_finite({}, {"dice": bad, "focal": bad}, ["a"], PLACE)


def test_an_output_is_told_before_the_loss_that_was_made_from_it() -> None:
    outputs = {"maps": torch.zeros(2, 1, 3, 3), "labels": torch.zeros(2, 4, requires_grad=True)}
    outputs["maps"][1, 0, 2, 2] = float("-inf")
    with pytest.raises(NonFiniteLogitsError, match=r"`-inf` in `maps` for b \(training, epoch 2, step 12\)"):
        check_finite(outputs, {"dice": torch.tensor(float("nan"))}, ["a", "b"], PLACE)
