"""Gradients under aggregation against the sums they stand for, written out."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from tests.conftest import composed
from torch import Tensor, nn

from hsl.cli import conf_dir
from hsl.errors import ConfigError
from hsl.weighting.aggregation import Aggregation
from hsl.weighting.gramian import PCGrad, SolverError, mgda, nash_mtl
from hsl.weighting.scalar import Fixed

Make = Callable[..., Any]
GRANULARITIES = ("features", "parameters")


def same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        scale = expected[name].abs().max().clamp(min=1)
        assert (gradient - expected[name]).abs().max() <= tolerance * scale, name


def constant(*factors: float) -> Callable[[Tensor], Tensor]:
    """A method that gives these weights of a sum."""
    return lambda products: torch.tensor(factors, dtype=torch.float64)[: len(products)] / len(products)


def failing(products: Tensor) -> Tensor:
    raise SolverError("there is none")


def flat(row: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.flatten() for name, g in row.items() if name.startswith("encoder")])


@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("method", [constant(0.3, 2.0, -1.0), constant(0.0, 0.5, 2.0), mgda, nash_mtl, PCGrad(seed=1)])
def test_the_encoder_gets_the_weighted_sum_and_the_heads_their_own(
    problem: Make, method: Any, granularity: Any, crossed: bool
) -> None:
    case = problem(crossed=crossed)
    weighting = Aggregation(case.weights, method, granularity)
    found = case.step(weighting)
    assert weighting.factors != [1.0, 1.0, 1.0]
    same(found, case.expected(weighting.factors))


@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize("factors", [(0.3, 2.0, -1.0), (0.0, 1.0, 2.0)])
def test_between_two_solves_the_weights_stay(problem: Make, crossed: bool, factors: tuple[float, ...]) -> None:
    case = problem(crossed=crossed)
    solves = []

    def method(products: Tensor) -> Tensor:
        solves.append(products)
        return constant(*factors)(products)

    weighting = Aggregation(case.weights, method, update_every=3)
    for _ in range(7):
        same(case.step(weighting), case.expected(list(factors)))
    assert len(solves) == 3


@pytest.mark.parametrize("update_every", [1, 2])
def test_weights_of_one_are_the_plain_sum(problem: Make, update_every: int) -> None:
    case = problem()
    plain = case.step(Fixed(case.weights))
    weighting = Aggregation(case.weights, constant(1, 1, 1), update_every=update_every)
    for _ in range(2):
        same(case.step(weighting), plain, 1e-14)


@pytest.mark.parametrize("ratio", [1e-8, 1e8])
def test_every_option_solves_objectives_of_unlike_scale(problem: Make, ratio: float) -> None:
    """One objective weighs 1e8 times as much, or as little, as another: no step fails, and UPGrad never conflicts."""
    files = sorted((conf_dir() / "weighting").glob("[!_]*.yaml"))
    options = {file.stem: composed([f"weighting={file.stem}"]).weighting for file in files}
    options = {name: cfg for name, cfg in options.items() if "method" in cfg}
    assert len(options) >= 9
    case = problem()
    case.weights |= {"task1": ratio}
    for name, cfg in options.items():
        weighting = instantiate(cfg)(weights=case.weights)
        found = case.step(weighting)
        assert weighting.solver_failures == 0, name
        same(found, case.expected(weighting.factors), 1e-9)
        if name == "upgrad":
            products = weighting._gramian
            along = products @ torch.tensor(weighting.factors, dtype=torch.float64) / products.diagonal().sqrt()
            assert (along >= -1e-6 * along.abs().max()).all()


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_gramian(problem: Make, granularity: Any) -> None:
    case = problem()
    weighting = Aggregation(case.weights, mgda, granularity)
    case.step(weighting)
    diagnostics = weighting.diagnostics()
    if granularity == "parameters":
        rows = [flat(row) for row in case.separate()]
    else:
        _, *levels = (level.detach().requires_grad_() for level in case.network.encoder(case.image))
        values = case.objectives_of([case.image, *levels])
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(case.weights[n] * values[n], levels)]) for n in values
        ]
    for i, row in enumerate(rows):
        assert diagnostics[f"norm/task{i}"] == pytest.approx(row.norm().item(), rel=1e-12)
        for j, other in enumerate(rows[:i]):
            cosine = torch.nn.functional.cosine_similarity(row, other, dim=0).item()
            assert diagnostics[f"cosine/task{j}/task{i}"] == pytest.approx(cosine, abs=1e-12)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("update_every", [1, 2])
@pytest.mark.parametrize("crossed", [False, True])
def test_whatever_factor_reaches_the_total_reaches_the_encoder(
    problem: Make, granularity: Any, update_every: int, crossed: bool
) -> None:
    case = problem(crossed=crossed)
    weighting = Aggregation(case.weights, mgda, granularity, update_every)
    for factor in (1024.0, 1 / 3):
        found = {name: g / factor for name, g in case.step(weighting, factor).items()}
        same(found, case.expected(weighting.factors))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("crossed", [False, True])
def test_single_objectives_can_be_differentiated_before_the_total(
    problem: Make, granularity: Any, crossed: bool
) -> None:
    case = problem(crossed=crossed)
    weighting = Aggregation(case.weights, constant(0.3, 2.0, -1.0), granularity, update_every=2)
    encoder = dict(case.network.encoder.named_parameters())
    rows = [{name: row[f"encoder.{name}"] for name in encoder} for row in case.separate()]
    for _ in range(2):  # a solve, and a step that reuses it
        case.network.zero_grad()
        values = case.objectives(weighting.share)
        total = weighting(values)
        for name, row in zip(values, rows, strict=True):
            found = torch.autograd.grad(case.weights[name] * values[name], encoder.values(), retain_graph=True)
            same(dict(zip(encoder, found, strict=True)), row)
        total.backward()
        same(case.network.gradients(), case.expected([0.3, 2.0, -1.0]))


def test_accumulated_steps_add_up(problem: Make) -> None:
    case = problem()
    weighting = Aggregation(case.weights, mgda)
    first = case.step(weighting, 0.5)
    case.image = case.image.flip(0)
    second = case.step(weighting, 0.5)
    case.image = case.image.flip(0)
    case.network.zero_grad()
    (case.total(weighting) / 2).backward()
    case.image = case.image.flip(0)
    (case.total(weighting) / 2).backward()
    same(case.network.gradients(), {name: first[name] + second[name] for name in first})


@pytest.mark.parametrize("method", [mgda, nash_mtl, PCGrad(seed=0)])
def test_a_task_without_labels_does_not_touch_the_others(problem: Make, method: Any) -> None:
    case = problem()
    case.masks[:, 1] = 255
    weighting = Aggregation(case.weights, method)
    found = case.step(weighting)
    assert all(gradient.isfinite().all() for gradient in found.values())
    same(found, case.expected(weighting.factors))
    assert weighting.factors[1] == 1
    assert "cosine/task0/task1" not in weighting.diagnostics()


@pytest.mark.parametrize("method", [mgda, nash_mtl])
def test_the_others_weights_are_those_without_it(problem: Make, method: Any) -> None:
    case = problem()
    pair = Aggregation(case.weights | {"task1": 0.0}, method)
    case.step(pair)
    case.masks[:, 1] = 255
    weighting = Aggregation(case.weights, method)
    case.step(weighting)
    assert weighting.factors[::2] == pytest.approx(pair.factors, rel=1e-12)


def test_a_task_keeps_its_last_weight_while_it_has_no_labels(problem: Make) -> None:
    case = problem()
    weighting = Aggregation(case.weights, mgda)
    case.step(weighting)
    before = weighting.factors[2]
    case.masks[:, 2] = 255
    case.step(weighting)
    assert weighting.factors[2] == before
    case.masks[:] = 255
    assert not any(gradient.any() for gradient in case.step(weighting).values())
    assert weighting.solver_failures == 0


def test_an_objective_that_is_a_constant(problem: Make) -> None:
    case = problem()
    weighting = Aggregation(case.weights | {"fixed": 1.0}, mgda)
    values = case.objectives(weighting.share)
    weighting(values | {"fixed": torch.tensor(2.0, dtype=torch.float64)}).backward()
    assert weighting.factors[3] == 1
    same(case.network.gradients(), case.expected(weighting.factors[:3]))


def test_a_failed_solve_is_counted_and_tried_again(problem: Make) -> None:
    case = problem()
    plain = case.step(Fixed(case.weights))
    weighting = Aggregation(case.weights, failing, update_every=5)
    for _ in range(2):
        with pytest.warns(UserWarning, match="could not be solved: there is none"):
            same(case.step(weighting), plain, 1e-14)
    assert weighting.solver_failures == 2
    assert weighting.degraded
    assert weighting.diagnostics()["solver_failures"] == 2
    weighting.method = mgda
    case.step(weighting)
    assert weighting.factors != [1.0, 1.0, 1.0]


@pytest.mark.parametrize("answer", [float("nan"), 0.0])
def test_an_answer_that_is_none_is_a_failure(problem: Make, answer: float) -> None:
    case = problem()
    weighting = Aggregation(case.weights, constant(answer, answer, answer))
    with pytest.warns(UserWarning, match="the method gave"):
        case.step(weighting)
    assert weighting.solver_failures == 1


def test_opposed_gradients_make_nash_fail_by_itself() -> None:
    feature = torch.randn(5, dtype=torch.float64, requires_grad=True)
    weighting = Aggregation({"a": 1.0, "b": 2.0}, nash_mtl)
    (view,) = weighting.share([feature * 1])
    with pytest.warns(UserWarning, match="Nash-MTL"):
        weighting({"a": view.sum(), "b": -view.sum()}).backward()
    assert weighting.diagnostics()["solver_failures"] == 1


def test_degraded_past_one_percent() -> None:
    weighting = Aggregation({"a": 1.0}, mgda)
    weighting.steps, weighting.solver_failures = 100, 1
    assert not weighting.degraded
    weighting.solver_failures = 2
    assert weighting.degraded


def test_evaluation_is_the_weighted_sum_and_changes_nothing(problem: Make) -> None:
    case = problem()
    weighting = Aggregation(case.weights, mgda)
    case.step(weighting)
    state, expected = weighting.get_extra_state(), case.total(Fixed(case.weights))
    weighting.eval()
    torch.testing.assert_close(case.total(weighting), expected)
    weighting.train()
    with torch.no_grad():
        torch.testing.assert_close(case.total(weighting), expected)
    assert weighting.get_extra_state() == state


def test_a_frozen_encoder_leaves_the_plain_sum(problem: Make) -> None:
    case = problem()
    case.network.encoder.requires_grad_(False)
    weighting = Aggregation(case.weights, failing)
    found = case.step(weighting)
    same(found, case.step(Fixed(case.weights)), 1e-14)


def test_forgotten_share(problem: Make) -> None:
    case = problem()
    weighting = Aggregation(case.weights, mgda)
    case.step(weighting)
    with pytest.raises(ValueError, match=r"weighting\.share"):
        weighting(dict.fromkeys(case.weights, torch.ones((), requires_grad=True)))


def test_a_resumed_weighting_goes_on_exactly(problem: Make) -> None:
    case = problem()
    make = partial(Aggregation, case.weights, update_every=3)
    first, second = make(PCGrad(seed=0)), make(PCGrad(seed=7))
    for _ in range(2):
        case.step(first)
    second.load_state_dict(first.state_dict())
    for _ in range(5):
        case.image = case.image + 0.1
        expected, found = case.step(first), case.step(second)
        assert first.factors == second.factors
        same(found, expected, 0)
    other = Aggregation({"x": 1.0}, PCGrad(seed=0))
    with pytest.raises(ConfigError, match="task weights"):
        other.load_state_dict(first.state_dict())


@pytest.mark.parametrize("argument", [{"granularity": "pixels"}, {"update_every": 0}])
def test_range(argument: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(argument))):
        Aggregation({"a": 1.0}, mgda, **argument)


@pytest.mark.parametrize("norm", [partial(nn.BatchNorm2d, 4), partial(nn.GroupNorm, 1, 4)], ids=["batch", "layer"])
@pytest.mark.parametrize("update_every", [1, 2])
def test_automatic_mixed_precision(problem: Make, norm: Any, update_every: int) -> None:
    case = problem(norm=norm)
    case.network.float()
    case.image = case.image.float()
    weighting = Aggregation(case.weights, constant(0.25, 2.0, 1.0), update_every=update_every)
    exact = case.expected([0.25, 2.0, 1.0])
    for _ in range(2):
        case.network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            total = case.total(weighting)
        total.backward()
        for name, gradient in case.network.gradients().items():
            close = (gradient - exact[name]).norm() <= 0.05 * exact[name].norm() + 1e-3
            assert close or exact[name].norm() < 1e-4, name
        assert weighting.solver_failures == 0


@pytest.mark.parametrize("scale", [2.0**16, 2.0**10])
def test_float16_features_do_not_underflow(scale: float) -> None:
    feature = (torch.randn(64) * 1).half().requires_grad_()
    weighting = Aggregation({"a": 1.0, "b": 1.0}, mgda)
    for _ in range(2):
        feature.grad = None
        (view,) = weighting.share([feature * 1])
        small = {"a": 2e-8 * view[:32].float().sum(), "b": 4e-8 * view[32:].float().sum()}
        (scale * weighting(small)).backward()
        assert weighting.factors == pytest.approx([1.6, 0.4], rel=1e-2)  # 2e-8 alone is 0 in float16
        assert feature.grad is not None
        assert feature.grad[0].item() == pytest.approx(scale * 3.2e-8, rel=2e-2)


def test_no_warning_in_a_plain_step(problem: Make) -> None:
    case = problem()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        case.step(Aggregation(case.weights, mgda))
