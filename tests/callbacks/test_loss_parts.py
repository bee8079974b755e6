from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tests.callbacks._inputs import Loss, Network, collated, fitted, pictures
from tests.tasks._inputs import points

from hsl.callbacks.loss_parts import LossParts, part_values
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
