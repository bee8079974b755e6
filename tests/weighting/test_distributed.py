"""Two processes give the weights and gradients of one process with the whole batch."""

import subprocess
import sys
from typing import Any

import pytest
import torch

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
