"""What is logged of objectives and their weighting, step by step."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tests.callbacks._inputs import Loss, Network, collated, fitted, pictures
from tests.conftest import points

from hsl.callbacks.loss_parts import LossParts, part_values
from hsl.callbacks.weighting_log import WeightingLog
from hsl.errors import ConfigError
from hsl.weighting.aggregation import Aggregation
from hsl.weighting.gradnorm import GradNorm
from hsl.weighting.gramian import PCGrad
from hsl.weighting.scalar import Fixed, Uncertainty


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


class Weights(lightning.Callback):
    """Keeps the network as it is before each batch."""

    def __init__(self) -> None:
        self.found: list[dict[str, torch.Tensor]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.found.append({name: value.clone() for name, value in pl_module.network.state_dict().items()})


def by_hand(state: dict[str, torch.Tensor], batch: Any) -> dict[str, tuple[float, float]]:
    """Value and gradient norm of each weighted part, by a backward pass of nothing else."""
    found = {}
    for name, weight in Loss.weights.items():
        network = Network(())
        network.load_state_dict(state)
        value = weight * Loss(None, None)(network(batch["image"]), batch)[name]
        value.backward()
        norm = torch.cat([one.grad.flatten() for one in network.encoder.parameters() if one.grad is not None]).norm()
        found[name] = (value.item(), norm.item())
    return found


@pytest.mark.parametrize(
    "weighting",
    [
        Fixed,
        Uncertainty,
        GradNorm,
        partial(Aggregation, method=PCGrad(seed=0)),
        partial(Aggregation, method=PCGrad(seed=0), granularity="parameters", update_every=2),
    ],
    ids=["fixed", "uncertainty", "gradnorm", "pcgrad", "pcgrad now and then"],
)
def test_a_fit_is_measured_and_not_changed(tmp_path: Path, weighting: Any) -> None:
    options = {"weighting": weighting, "with_callback": False, "log_every_n_steps": 1}
    plain, _ = fitted(tmp_path, None, **options)
    weights, logger = Weights(), TensorBoardLogger(tmp_path, name="events", version="")
    task, trainer = fitted(tmp_path, None, callbacks=[weights, LossParts(2)], logger=logger, **options)
    assert trainer.global_step == 6
    for (name, value), reference in zip(task.state_dict().items(), plain.state_dict().values(), strict=True):
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, reference), name
    logged, samples = points(tmp_path / "events"), pictures()
    batches = [collated(samples[4 * i : 4 * i + 4]) for i in range(3)] * 2
    for part in Loss.weights:
        assert [step for step, _ in logged[f"parts/gradient/{part}"]] == [0, 2, 4]
    for place, step in enumerate((0, 2, 4)):
        expected = by_hand(weights.found[step], batches[step])
        for part, (value, norm) in expected.items():
            share = value / sum(other for other, _ in expected.values())
            assert logged[f"parts/{part}"][place][1] == pytest.approx(value / Loss.weights[part], rel=1e-5)
            assert logged[f"parts/share/{part}"][place][1] == pytest.approx(share, rel=1e-5)
            assert logged[f"parts/gradient/{part}"][place][1] == pytest.approx(norm, rel=1e-5)


def test_an_accumulated_step_is_measured_once(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="events", version="")
    options = {"with_callback": False, "accumulate_grad_batches": 2, "logger": logger, "log_every_n_steps": 1}
    fitted(tmp_path, None, callbacks=[LossParts(1)], **options)
    assert [step for step, _ in points(tmp_path / "events")["parts/fit"]] == [0, 1, 2, 3]


def test_errors() -> None:
    with pytest.raises(ConfigError, match="every_n_steps = 0"):
        LossParts(0)


class Logger:
    def __init__(self) -> None:
        self.values: dict[int, dict[str, float]] = {}

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        self.values[step] = values


def task(**values: float) -> Any:
    return SimpleNamespace(weighting=SimpleNamespace(diagnostics=lambda: values))


def trainer_at(step: int, is_global_zero: bool = True, logger: Logger | None = None) -> Any:
    loggers = [logger] if logger else []
    return SimpleNamespace(global_step=step, current_epoch=step // 10, is_global_zero=is_global_zero, loggers=loggers)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


def run(log: WeightingLog, first: int, last: int, **values: float) -> None:
    log.on_train_start(trainer_at(first), task())
    for step in range(first + 1, last + 1):
        log.on_train_batch_end(trainer_at(step), task(**values), None, None, 0)


def test_lines(tmp_path: Path) -> None:
    log, logger = WeightingLog(str(tmp_path / "new" / "w.jsonl"), 2), Logger()
    values = {"solver_failures": 1, "norm": float("nan")}
    for step in (0, 1, 2, 2, 3, 4):  # a batch of two parts at step 2
        log.on_train_batch_end(trainer_at(step, logger=logger), task(**values), None, None, 0)
    assert lines(tmp_path / "new" / "w.jsonl") == [
        {"step": 2, "epoch": 0, "solver_failures": 1, "norm": None},
        {"step": 4, "epoch": 0, "solver_failures": 1, "norm": None},
    ]
    assert set(logger.values) == {2, 4}
    assert logger.values[2]["weighting/solver_failures"] == 1


def test_a_resumed_run_has_no_step_twice(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    run(WeightingLog(str(path), 5), 0, 22, value=1.0)
    with path.open("a") as file:
        file.write('{"step": 25, "ep')  # killed while it wrote
    run(WeightingLog(str(path), 5), 12, 30, value=2.0)
    assert [line["step"] for line in lines(path)] == [5, 10, 15, 20, 25, 30]
    assert [line["value"] for line in lines(path)] == [1, 1, 2, 2, 2, 2]


def test_a_run_that_starts_at_a_written_step_does_not_write_it_again(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    run(WeightingLog(str(path), 5), 0, 10)
    log = WeightingLog(str(path), 5)
    log.on_train_start(trainer_at(10), task())
    log.on_train_batch_end(trainer_at(10), task(), None, None, 0)  # first half of an accumulated batch
    assert [line["step"] for line in lines(path)] == [5, 10]


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    log = WeightingLog(str(tmp_path / "w.jsonl"), 1)
    log.on_train_batch_end(trainer_at(1, is_global_zero=False), task(), None, None, 0)
    assert not list(tmp_path.iterdir())


def test_range(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="every_n_steps"):
        WeightingLog(str(tmp_path / "w.jsonl"), 0)
