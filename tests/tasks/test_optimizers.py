"""Optimizers over the parameters of a module, and schedules stepped once per step."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from timm.scheduler import CosineLRScheduler, PolyLRScheduler
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from hsl.errors import ConfigError
from hsl.tasks.optimizers import adamw, parameter_groups, scale_learning_rate, sgd
from hsl.tasks.schedulers import constant, cosine, onecycle, poly

ADAMW = {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.01, "batch_size": 8}
SGD_DEFAULTS = {"lr": 1e-2, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 8}
Make = Callable[[torch.optim.Optimizer, int], LRScheduler]


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
    optimizer = sgd(module, **SGD_DEFAULTS | {"lr": 0.1, "weight_decay": 0.0})  # type: ignore[arg-type]
    for expected in (1 - 0.1 * 1.9, 1 - 0.1 * 1.9 - 0.1 * (1 + 0.9 * 1.9)):  # Nesterov: g + 0.9 v, v = 1, 1.9
        module.weight.grad = torch.ones_like(module.weight)
        optimizer.step()
        assert module.weight.item() == pytest.approx(expected)


@pytest.mark.parametrize(("reference", "factor"), [(None, 1), (8, 1), (16, 0.5), (2, 4)])
def test_learning_rate_scales_with_the_batch(reference: int | None, factor: float) -> None:
    for make, arguments in ((adamw, ADAMW), (sgd, SGD_DEFAULTS)):
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
        sgd(make_module(), **SGD_DEFAULTS | arguments)  # type: ignore[arg-type]
    assert sgd(make_module(), **SGD_DEFAULTS | {"momentum": 0.0, "nesterov": False})  # type: ignore[arg-type]


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
    arguments = ADAMW if make is adamw else SGD_DEFAULTS
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


MAKERS: dict[str, Make] = {
    "onecycle": lambda optimizer, steps: onecycle(optimizer, steps, fifth(steps), pct_start=0.3),
    "poly": lambda optimizer, steps: poly(optimizer, steps, fifth(steps), power=0.9, warmup_epochs=1),
    "cosine": lambda optimizer, steps: cosine(optimizer, steps, fifth(steps), warmup_epochs=1),
    "constant": lambda optimizer, steps: constant(optimizer, steps, fifth(steps), warmup_epochs=1),
}


def fifth(steps: int) -> int:
    """Steps of an epoch in a run of five epochs."""
    return max(steps // 5, 1)


def make_optimizer(lr: float = 1.0) -> SGD:
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def curve(make: Make, steps: int, optimizer: torch.optim.Optimizer | None = None) -> list[float]:
    """Learning rates that the optimizer steps of a run see."""
    optimizer = optimizer or make_optimizer()
    scheduler = make(optimizer, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("steps", "pct_start"), [(100, 0.3), (7, 0.3), (50, 0.5), (20, 0.07), (13, 0.9)])
def test_onecycle_equals_torch(steps: int, pct_start: float) -> None:
    ours = curve(lambda optimizer, total: onecycle(optimizer, total, 1, pct_start), steps, make_optimizer(0.02))
    peer = curve(
        lambda optimizer, total: OneCycleLR(optimizer, 0.02, total, pct_start=pct_start, cycle_momentum=False),
        steps,
        make_optimizer(0.02),
    )
    assert ours == pytest.approx(peer, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_onecycle_of_few_steps_begins_at_the_top(steps: int) -> None:
    rates = curve(MAKERS["onecycle"], steps)
    assert rates[0] == 1
    assert rates == sorted(rates, reverse=True)


def test_onecycle_leaves_the_betas_alone() -> None:
    optimizer = AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    curve(MAKERS["onecycle"], 10, optimizer)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)


def test_poly_by_hand() -> None:
    rates = curve(lambda optimizer, steps: poly(optimizer, steps, 1, power=2.0), 4)
    assert rates == pytest.approx([1, 9 / 16, 4 / 16, 1 / 16])


def test_cosine_by_hand() -> None:
    rates = curve(lambda optimizer, steps: cosine(optimizer, steps, 1, final_factor=0.2), 4)
    assert rates == pytest.approx([0.2 + 0.8 * (1 + math.cos(math.pi * t)) / 2 for t in (0, 0.25, 0.5, 0.75)])


@pytest.mark.parametrize("warmup", [0, 1, 5, 19])
def test_poly_and_cosine_equal_timm(warmup: int) -> None:
    shared = {"t_initial": 20 - warmup, "warmup_t": warmup, "warmup_lr_init": 1 / (warmup + 1), "warmup_prefix": True}
    pairs = (
        (partial(poly, power=0.9), partial(PolyLRScheduler, power=0.9, lr_min=0.0)),
        (cosine, partial(CosineLRScheduler, lr_min=0.0)),
    )
    for ours, timms in pairs:
        peer = timms(make_optimizer(), t_in_epochs=False, **shared)
        expected = [peer._get_lr(step)[0] for step in range(20)]
        assert curve(lambda o, n, make=ours: make(o, n, 1, warmup_epochs=warmup), 20) == pytest.approx(expected)


def test_warm_up_is_linear() -> None:
    rates = curve(MAKERS["constant"], 20)
    assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


@pytest.mark.parametrize("total", [20, 200])
def test_warm_up_is_counted_in_epochs_whatever_the_length_of_the_run(total: int) -> None:
    rates = curve(lambda optimizer, steps: cosine(optimizer, steps, steps_per_epoch=4, warmup_epochs=1.5), total)
    assert rates[:7] == pytest.approx([1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7, 1])


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 64])
def test_every_step_of_every_run_trains(name: str, steps: int) -> None:
    rates = curve(MAKERS[name], steps)
    assert all(0 < rate <= 1 for rate in rates)
    if steps > 1:
        assert max(rates) > 0.95  # a cycle's top may fall between two steps


@pytest.mark.parametrize("name", MAKERS)
def test_groups_keep_their_ratio(name: str) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = SGD([{"params": parameters[:1], "lr": 0.1}, {"params": parameters[1:], "lr": 0.4}])
    scheduler = MAKERS[name](optimizer, 10)
    for _ in range(10):
        optimizer.step()
        scheduler.step()
        first, second = scheduler.get_last_lr()
        assert second == pytest.approx(4 * first)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("stop", [1, 6, 19])
def test_resumed_is_uninterrupted(name: str, stop: int) -> None:
    whole = curve(MAKERS[name], 20)
    first_optimizer = make_optimizer()
    first = MAKERS[name](first_optimizer, 20)
    for _ in range(stop):
        first_optimizer.step()
        first.step()
    optimizer = make_optimizer()
    scheduler = MAKERS[name](optimizer, 20)
    optimizer.load_state_dict(first_optimizer.state_dict())
    scheduler.load_state_dict(first.state_dict())
    rates = []
    for _ in range(20 - stop):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == whole[stop:]


@pytest.mark.parametrize("name", MAKERS)
def test_steps_past_the_end_are_harmless(name: str) -> None:
    optimizer = make_optimizer()
    scheduler = MAKERS[name](optimizer, 3)
    for _ in range(6):
        optimizer.step()
        scheduler.step()
    assert 0 <= scheduler.get_last_lr()[0] <= 1


@pytest.mark.parametrize("make", [poly, cosine, constant])
def test_warm_up_of_the_whole_run(make: Callable[..., LRScheduler]) -> None:
    extra = {"power": 0.9} if make is poly else {}
    rates = curve(lambda optimizer, steps: make(optimizer, steps, 2, warmup_epochs=2, **extra), 4)
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda o: onecycle(o, 0, 1, 0.3), "total_steps"),
        (lambda o: onecycle(o, math.inf, 1, 0.3), "total_steps"),
        (lambda o: onecycle(o, 10, 1, 1.5), "pct_start"),
        (lambda o: onecycle(o, 10, 1, 0.3, div_factor=0), "div_factor"),
        (lambda o: poly(o, 10, 1, power=0), "power"),
        (lambda o: poly(o, 10, 5, power=1, warmup_epochs=3), r"in \[0, 2\].*Found `scheduler.warmup_epochs = 3`"),
        (lambda o: cosine(o, 10, 5, warmup_epochs=-1), "warmup_epochs = -1"),
        (lambda o: constant(o, 10, 5, warmup_epochs=5), "warmup_epochs = 5"),
        (lambda o: cosine(o, 10, 1, final_factor=-0.1), "final_factor"),
        (lambda o: constant(o, -1, 1), "total_steps"),
    ],
)
def test_error_table(make: Callable[[SGD], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(make_optimizer())


@pytest.mark.parametrize("total", [10, 100, 1000])
def test_a_warm_up_can_be_a_share_of_the_run(total: int) -> None:
    """By hand: a tenth of the steps rise by equal amounts, then the rate falls in a straight line to 0."""
    rates = curve(lambda o, n: poly(o, n, 7, power=1.0, warmup_epochs=3, warmup_ratio=0.1), total)
    warmup = total // 10
    rising = [(step + 1) / (warmup + 1) for step in range(warmup)]
    falling = [1 - step / (total - warmup) for step in range(total - warmup)]
    assert rates == pytest.approx(rising + falling)


@pytest.mark.parametrize("make", [partial(poly, power=1.0), cosine, constant])
def test_a_share_of_the_run_is_one(make: Callable[..., LRScheduler]) -> None:
    for ratio in (-0.1, 1.1):
        with pytest.raises(ConfigError, match=r"`scheduler.warmup_ratio` should be in \[0, 1\]"):
            make(make_optimizer(), 10, 1, warmup_ratio=ratio)
    assert curve(lambda o, n: make(o, n, 1, warmup_ratio=1.0), 10)[-1] == pytest.approx(10 / 11)
    assert curve(lambda o, n: make(o, n, 1, warmup_ratio=0.0), 10)[0] == 1.0
