from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from hsl.errors import ConfigError
from hsl.tasks.optimizers import adamw, parameter_groups, scale_learning_rate, sgd
from hsl.tasks.schedulers import onecycle

ADAMW = {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.01, "batch_size": 8}
SGD = {"lr": 1e-2, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 8}


def make_module() -> nn.Module:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2, bias=False))
    module.register_parameter("scale", nn.Parameter(torch.ones(())))
    module.register_parameter("bias", nn.Parameter(torch.ones(2, 3)))  # a bias of two dimensions (attention tables)
    return module


def test_norms_and_biases_are_not_decayed() -> None:
    module = make_module()
    decayed, plain = parameter_groups(module, 0.01)
    assert decayed["weight_decay"] == 0.01
    assert plain["weight_decay"] == 0
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3, 3, 3), (2, 4)]
    assert len(plain["params"]) == 5
    assert sum(p.numel() for group in (decayed, plain) for p in group["params"]) == sum(
        p.numel() for p in module.parameters()
    )


def test_frozen_parameters_are_left_out() -> None:
    module = make_module()
    module[0].requires_grad_(False)  # type: ignore[index]
    assert sum(len(group["params"]) for group in parameter_groups(module, 0.01)) == 5


def test_empty_groups_are_left_out() -> None:
    assert len(parameter_groups(nn.BatchNorm2d(3), 0.01)) == 1
    assert len(parameter_groups(nn.Linear(2, 2, bias=False), 0.01)) == 1


def test_decay_acts_as_written() -> None:
    module = nn.Linear(1, 1)
    nn.init.ones_(module.weight)
    nn.init.ones_(module.bias)
    optimizer = adamw(module, **ADAMW | {"lr": 0.1, "weight_decay": 0.5})  # type: ignore[arg-type]
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert module.weight.item() == pytest.approx(1 - 0.1 * 0.5)
    assert module.bias.item() == 1


def test_sgd_by_hand() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    optimizer = sgd(module, **SGD | {"lr": 0.1, "weight_decay": 0.0})  # type: ignore[arg-type]
    for expected in (1 - 0.1 * 1.9, 1 - 0.1 * 1.9 - 0.1 * (1 + 0.9 * 1.9)):  # Nesterov: g + 0.9 v, v = 1, 1.9
        module.weight.grad = torch.ones_like(module.weight)
        optimizer.step()
        assert module.weight.item() == pytest.approx(expected)


@pytest.mark.parametrize(("reference", "factor"), [(None, 1), (8, 1), (16, 0.5), (2, 4)])
def test_learning_rate_scales_with_the_batch(reference: int | None, factor: float) -> None:
    for make, arguments in ((adamw, ADAMW), (sgd, SGD)):
        optimizer = make(make_module(), **arguments, reference_batch_size=reference)  # type: ignore[operator]
        assert {group["lr"] for group in optimizer.param_groups} == {arguments["lr"] * factor}


def test_betas_reach_the_optimizer() -> None:
    optimizer = adamw(make_module(), **ADAMW | {"betas": [0.8, 0.95]})  # type: ignore[arg-type]
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.95)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lr": 0.0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"reference_batch_size": 0}, "reference_batch_size"),
        ({"batch_size": 0, "reference_batch_size": 8}, "batch_size"),
    ],
)
def test_adamw_error_table(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        adamw(make_module(), **ADAMW | arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [{"momentum": 1.0}, {"momentum": 0.0}, {"momentum": -0.1}])
def test_sgd_error_table(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="momentum"):
        sgd(make_module(), **SGD | arguments)  # type: ignore[arg-type]
    assert sgd(make_module(), **SGD | {"momentum": 0.0, "nesterov": False})  # type: ignore[arg-type]


def test_scale() -> None:
    assert scale_learning_rate(0.1, 24, 16) == pytest.approx(0.15)


class Task(nn.Module):
    """A network like those of the runs, and a loss with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        heads = nn.ModuleDict({"a": nn.Linear(4, 2), "ab": nn.Linear(4, 2)})
        self.network = nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4)), "heads": heads})
        self.weighting = nn.ParameterDict({"variance": nn.Parameter(torch.zeros(2))})


def rates(module: nn.Module, groups: list[dict[str, Any]]) -> dict[str, float | None]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {names[id(parameter)]: group.get("lr") for group in groups for parameter in group["params"]}


def test_each_module_has_its_rate_and_its_decay() -> None:
    module = Task()
    groups = parameter_groups(module, 0.01, {"encoder": 1e-5, "encoder.1": 1e-4, "heads.a": 1e-2})
    assert rates(module, groups) == {
        "network.heads.ab.weight": None, "network.heads.ab.bias": None, "weighting.variance": None,
        "network.encoder.0.weight": 1e-5, "network.encoder.0.bias": 1e-5,
        "network.encoder.1.weight": 1e-4, "network.encoder.1.bias": 1e-4,
        "network.heads.a.weight": 1e-2, "network.heads.a.bias": 1e-2,
    }  # fmt: skip
    assert all((group["weight_decay"] > 0) == (one.ndim > 1) for group in groups for one in group["params"])
    assert "lr" not in groups[0]  # the rate that history.csv shows is that of the rest


@pytest.mark.parametrize("make", [adamw, sgd])
def test_modules_keep_their_ratio_over_the_schedule(make: Callable[..., Optimizer]) -> None:
    arguments = ADAMW if make is adamw else SGD
    optimizer = make(Task(), **arguments, reference_batch_size=4, lr_by_module={"encoder": 1e-5})
    assert {group["lr"] for group in optimizer.param_groups} == {2 * float(arguments["lr"]), 2e-5}  # type: ignore[arg-type]
    scheduler = onecycle(optimizer, total_steps=10, steps_per_epoch=10, pct_start=0.3)
    top = 0.0
    for _ in range(10):
        first, *_, last = (group["lr"] for group in optimizer.param_groups)
        assert last / first == pytest.approx(2e-5 / (2 * float(arguments["lr"])))  # type: ignore[arg-type]
        top = max(top, last)
        optimizer.step()
        scheduler.step()
    assert top == pytest.approx(2e-5)


def test_an_empty_map_is_none() -> None:
    module = Task()
    plain, mapped = parameter_groups(module, 0.01), parameter_groups(module, 0.01, {})
    assert [[id(one) for one in group["params"]] for group in plain] == [
        [id(one) for one in group["params"]] for group in mapped
    ]


@pytest.mark.parametrize("path", ["encode", "network.encoder", "", "heads.b", "heads.a"])
def test_a_module_without_anything_to_train_is_an_error(path: str) -> None:
    module = Task()
    module.network["heads"]["a"].requires_grad_(False)  # type: ignore[index, operator]
    with pytest.raises(ConfigError, match=rf"encoder, heads.*Found `{path}`"):
        adamw(module, **ADAMW, lr_by_module={path: 1e-5})  # type: ignore[arg-type]


def test_a_rate_of_a_module_is_above_0() -> None:
    with pytest.raises(ConfigError, match="lr"):
        adamw(Task(), **ADAMW, lr_by_module={"encoder": 0.0})  # type: ignore[arg-type]
