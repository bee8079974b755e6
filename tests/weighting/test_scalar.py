import math
import subprocess
import sys
from typing import Any

import pytest
import torch

from hsl.errors import ConfigError
from hsl.weighting.base import Weighting
from hsl.weighting.gradnorm import GradNorm
from hsl.weighting.scalar import DynamicWeightAverage, Famo, Fixed, Uncertainty

CODE = """
import sys, torch
from pathlib import Path
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from hsl.weighting.aggregation import Aggregation
from hsl.weighting.gradnorm import GradNorm
from hsl.weighting.gramian import PCGrad, nash_mtl
from hsl.weighting.scalar import DynamicWeightAverage, Famo

class Task(nn.Module):
    def __init__(self, weighting):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.heads = nn.Linear(5, 4), nn.ModuleList(nn.Linear(4, 1) for _ in range(3))
        self.weighting = weighting

    def forward(self, x, y):
        (z,) = self.weighting.share([torch.tanh(self.encoder(x))])
        losses = [(k + 1) * (head(z) - y[:, k : k + 1]).square().mean() for k, head in enumerate(self.heads)]
        return self.weighting(dict(zip("abc", losses)))

def trained(x, y, wrap):
    names = dict.fromkeys("abc", 1.0)
    made = {
        "nash": Aggregation(names, nash_mtl), "pcgrad": Aggregation(names, PCGrad(seed=1)),
        "nash_parameters": Aggregation(names, nash_mtl, "parameters"),
        "nash_rarely": Aggregation(names, nash_mtl, update_every=3),
        "gradnorm": GradNorm(names), "dwa": DynamicWeightAverage(names), "famo": Famo(names),
    }
    result = {}
    for name, weighting in made.items():
        task = Task(weighting)
        model = wrap(task)
        optimizer = torch.optim.SGD(task.parameters(), 0.05)
        for step in range(6):
            optimizer.zero_grad()
            model(x, y).backward()
            optimizer.step()
            if step % 2:
                weighting.end_epoch()
        result[name] = {"factors": weighting.factors, "parameters": [p.detach() for p in task.parameters()]}
    return result

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(7)
x, y = torch.randn(8, 5), torch.randn(8, 3)
if rank == 0:
    torch.save(trained(x, y, lambda task: task), folder / "alone.pt")
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
mine = slice(rank * 4, rank * 4 + 4)
torch.save(trained(x[mine], y[mine], DistributedDataParallel), folder / f"{rank}.pt")
dist.destroy_process_group()
"""


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


@pytest.mark.parametrize("make", [Uncertainty, DynamicWeightAverage, Famo, GradNorm])
def test_evaluation_is_the_weighted_sum_and_changes_nothing(make: Any) -> None:
    weighting = make({"a": 1.0, "b": 3.0})
    train(weighting, a=2.0, b=3.0)
    weighting.end_epoch()
    before = {name: value.clone() for name, value in weighting.state_dict().items()}
    weighting.eval()
    values = {"a": torch.tensor(1.0), "b": torch.tensor(2.0)}
    assert weighting(values).item() == 7
    weighting.train()
    with torch.no_grad():
        assert weighting(values).item() == 7
    assert all(torch.equal(value, before[name]) for name, value in weighting.state_dict().items())


@pytest.mark.parametrize("make", [Uncertainty, DynamicWeightAverage, Famo, GradNorm])
def test_state_goes_on_exactly(make: Any) -> None:
    first, second = make({"a": 1.0, "b": 1.0}), make({"a": 1.0, "b": 1.0})
    for step in range(5):
        train(first, a=3.0 - 0.5 * step, b=1.0)
        if step % 2:
            first.end_epoch()
    second.load_state_dict(first.state_dict())
    for step in range(5):
        assert train(first, a=1.0, b=2.0 + step) == train(second, a=1.0, b=2.0 + step)
        first.end_epoch()
        second.end_epoch()
    assert first.factors == second.factors


@pytest.mark.parametrize("make", [Uncertainty, DynamicWeightAverage, Famo, GradNorm])
def test_an_objective_without_a_label_is_left_alone(make: Any) -> None:
    with_c, without = make({"a": 1.0, "b": 1.0, "c": 1.0}), make({"a": 1.0, "b": 1.0, "c": 0.0})
    for step in range(4):
        train(with_c, a=3.0 - 0.5 * step, b=1.0, c=0.0)
        train(without, a=3.0 - 0.5 * step, b=1.0, c=0.0)
        with_c.end_epoch()
        without.end_epoch()
    if make is DynamicWeightAverage:  # T is 3 here and 2 there
        assert with_c.factors[0] / with_c.factors[1] == pytest.approx(without.factors[0] / without.factors[1])
    else:
        assert with_c.factors[:2] == pytest.approx(without.factors)
        assert with_c.factors[2] == 1
    train(with_c, a=0.0, b=0.0, c=0.0)
    assert all(math.isfinite(factor) for factor in with_c.factors)


def train(weighting: Weighting, **values: float) -> list[float]:
    """One step; gives the gradient of each objective at its own value."""
    feature = torch.ones(len(values), requires_grad=True)
    (view,) = weighting.share([feature * 1])
    objectives = {name: value * view[k] for k, (name, value) in enumerate(values.items())}
    weighting(objectives).backward()
    assert feature.grad is not None
    return feature.grad.tolist()  # type: ignore[no-any-return]


def test_uncertainty_by_hand() -> None:
    weighting = Uncertainty({"a": 2.0, "b": 1.0})
    with torch.no_grad():
        weighting.log_variances.copy_(torch.tensor([math.log(4.0), 0.0]))
    total = weighting({"a": torch.tensor(3.0), "b": torch.tensor(5.0)})
    assert total.item() == pytest.approx(2 * (3 / 4 + math.log(4.0) / 2) + 5)
    total.backward()
    assert weighting.log_variances.grad is not None
    assert weighting.log_variances.grad.tolist() == pytest.approx([2 * (0.5 - 3 / 4), 0.5 - 5])
    assert weighting.factors == pytest.approx([0.25, 1.0])


def test_uncertainty_finds_its_minimum() -> None:
    weighting = Uncertainty({"a": 1.0, "b": 1.0})
    optimizer = torch.optim.SGD(weighting.parameters(), 0.5)
    for _ in range(300):
        optimizer.zero_grad()
        weighting({"a": torch.tensor(0.5), "b": torch.tensor(3.0)}).backward()
        optimizer.step()
    # d/ds (exp(-s) L + s / 2) = 0 at exp(-s) = 1 / (2 L)
    assert weighting.factors == pytest.approx([1.0, 1 / 6], rel=1e-4)


def test_uncertainty_learns_with_the_task() -> None:
    assert [name for name, _ in Uncertainty({"a": 1.0, "b": 0.0}).named_parameters()] == ["log_variances"]
    assert Uncertainty({"a": 1.0, "b": 0.0}).log_variances.shape == (1,)


def test_dwa_by_hand() -> None:
    weighting = DynamicWeightAverage({"a": 1.0, "b": 1.0})
    for epoch in ([(3.0, 1.0), (5.0, 1.0)], [(2.0, 1.0)]):
        assert weighting.factors == [1.0, 1.0]
        for a, b in epoch:
            train(weighting, a=a, b=b)
        weighting.end_epoch()
    falling, still = math.exp(0.5 / 2), math.exp(1 / 2)  # a from 4 to 2, b stays
    expected = [2 * falling / (falling + still), 2 * still / (falling + still)]
    assert weighting.factors == pytest.approx(expected)
    assert train(weighting, a=1.0, b=1.0) == pytest.approx(expected)


def test_dwa_counts_only_steps_with_a_label() -> None:
    weighting = DynamicWeightAverage({"a": 1.0, "b": 1.0})
    train(weighting, a=4.0, b=1.0)
    train(weighting, a=0.0, b=1.0)
    weighting.end_epoch()
    assert weighting.means[1].tolist() == [4.0, 1.0]


def test_famo_starts_with_the_inverse_losses() -> None:
    weighting = Famo({"a": 1.0, "b": 1.0})
    assert train(weighting, a=1.0, b=3.0) == pytest.approx([1.5, 1.5])  # each value times its weight: 1.5 and 0.5
    assert weighting.factors == pytest.approx([1.5, 0.5])


def test_famo_moves_towards_what_lags_behind() -> None:
    weighting = Famo({"a": 1.0, "b": 1.0}, learning_rate=0.1, decay=0.0)
    train(weighting, a=1.0, b=1.0)
    train(weighting, a=0.5, b=1.0)
    # progress (log 2, 0), z (1/2, 1/2): J^T delta = (log 2 / 4, -log 2 / 4)
    assert weighting.xi.tolist() == pytest.approx([-0.1 * math.log(2) / 4, 0.1 * math.log(2) / 4])


def test_gradnorm_by_hand() -> None:
    weighting = GradNorm({"a": 1.0, "b": 1.0}, alpha=1.5, learning_rate=0.01)
    train(weighting, a=3.0, b=1.0)  # norms 3 and 1, mean 2, both rates 1
    moved = [1 - 0.01 * 3 / 2, 1 + 0.01 * 1 / 2]
    expected = [2 * value / sum(moved) for value in moved]
    assert weighting.factors == pytest.approx(expected)
    norms = weighting.diagnostics()
    assert (norms["norm/a"], norms["norm/b"]) == pytest.approx((3, 1))
    assert train(weighting, a=3.0, b=1.0) == pytest.approx([3 * expected[0], expected[1]])


def test_gradnorm_balances_the_norms() -> None:
    weighting = GradNorm({"a": 1.0, "b": 1.0, "c": 1.0}, alpha=0.0, learning_rate=0.01)
    for _ in range(300):
        train(weighting, a=4.0, b=1.0, c=2.0)
    a, b, c = weighting.factors
    assert a + b + c == pytest.approx(3, rel=1e-4)
    assert 4 * a == pytest.approx(b, rel=0.1)
    assert 2 * c == pytest.approx(b, rel=0.1)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (DynamicWeightAverage, {"temperature": 0.0}), (Famo, {"learning_rate": 0.0}), (Famo, {"decay": -1.0}),
        (GradNorm, {"alpha": -1.0}), (GradNorm, {"learning_rate": 0.0}),
    ],
)  # fmt: skip
def test_ranges_of_the_methods(make: Any, argument: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(argument))):
        make({"a": 1.0}, **argument)


def test_diagnostics_are_the_factors_of_the_unweighted_objectives() -> None:
    assert Fixed({"a": 0.5, "b": 2.0, "off": 0.0}).diagnostics() == {"weight/a": 0.5, "weight/b": 2.0}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("processes")
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", CODE, str(rank), str(folder)], stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return [torch.load(folder / name) for name in ("alone.pt", "0.pt", "1.pt")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nash", "pcgrad", "nash_parameters", "nash_rarely", "gradnorm", "dwa", "famo"])
def test_two_processes_are_one(results: list[Any], name: str) -> None:
    alone, *ranks = (result[name] for result in results)
    assert max(alone["factors"]) - min(alone["factors"]) > 1e-3
    for rank in ranks:
        assert rank["factors"] == pytest.approx(alone["factors"], rel=1e-10)
        torch.testing.assert_close(rank["parameters"], alone["parameters"], rtol=1e-10, atol=1e-10)
