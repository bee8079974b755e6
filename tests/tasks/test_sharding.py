"""A training on two processes, with the whole model in each or fully sharded, ends where one process ends."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = """
import sys
from functools import partial
from pathlib import Path
import lightning, torch
from torch import nn
from torch.utils.data import DataLoader
sys.path.insert(0, sys.argv[1])
import _inputs as t
from hsl.run_folder.checkpoint import AtomicCheckpointIO
from hsl.tasks import sharding
from hsl.tasks.segmentation import SegmentationTask
from hsl.weighting.aggregation import Aggregation
from hsl.weighting.gramian import PCGrad, nash_mtl
from hsl.weighting.scalar import Fixed

folder, rank = Path(sys.argv[2]), int(sys.argv[3])
sharding.MIN_PARAMETERS = 10

def task_of(weighting):
    lightning.seed_everything(3, verbose=False)
    return SegmentationTask(
        network=partial(t.Network, middle=lambda: nn.GroupNorm(2, 4)), loss=t.Loss, weighting=weighting,
        optimizer=lambda module: torch.optim.AdamW(module.parameters(), lr=0.01),
        scheduler=lambda optimizer, total_steps, **_: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
        predictor=lambda network, images: network(images), metrics={"pixelwise": t.Pixelwise}, problem=t.PROBLEM,
    )

def trained(devices, strategy, weighting, epochs=2, after=None, to=None):
    task = task_of(weighting)
    mine = list(range(8)) if devices == 1 else list(range(rank, 8, 2))
    batches = DataLoader([t.pictures()[i] for i in mine], batch_size=4 // devices, collate_fn=t.collated)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=devices, strategy=strategy, max_epochs=epochs, gradient_clip_val=0.5,
        num_sanity_val_steps=0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, default_root_dir=folder,
        plugins=[AtomicCheckpointIO()],
    )
    trainer.fit(task, batches, batches, ckpt_path=after, weights_only=True if after else None)
    if to:
        trainer.save_checkpoint(to)
    kept = sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in task.network.parameters())
    print(strategy, devices, {k: float(v) for k, v in trainer.callback_metrics.items() if "miou" in k}, kept)
    return {name: value for name, value in task.state_dict().items() if name.startswith("network")}, kept, \\
        float(trainer.callback_metrics["val/miou"])

methods = {"fixed": Fixed, "pcgrad": partial(Aggregation, method=PCGrad(0)),
           "nash": partial(Aggregation, method=nash_mtl)}
if rank == 0:
    torch.save({name: trained(1, "auto", made) for name, made in methods.items()}, folder / "alone.pt")
ddp = {name: trained(2, "ddp", made) for name, made in methods.items()}
sharded = sharding.FullyShardedStrategy
_, own, miou = trained(2, sharded(), Fixed, to=folder / "whole.ckpt")
trained(2, sharded(), Fixed, epochs=1, to=folder / "half.ckpt")
trained(2, sharded(), Fixed, after=folder / "half.ckpt", to=folder / "resumed.ckpt")
torch.save({"ddp": ddp, "own": own, "miou": miou}, folder / f"{rank}.pt")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both processes left."""
    folder = tmp_path_factory.mktemp("sharded")
    (folder / "script.py").write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inputs = Path(__file__).parents[1] / "callbacks"
    ranks = [
        subprocess.Popen(
            [sys.executable, str(folder / "script.py"), str(inputs), str(folder), str(rank)],
            env={**os.environ, "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [one.communicate(timeout=500)[0] for one in ranks]
    assert [one.returncode for one in ranks] == [0, 0], "\n".join(said)
    return folder


def close(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=1e-10, msg=name)


@pytest.mark.parametrize("weighting", ["fixed", "pcgrad", "nash"])
def test_two_processes_end_where_one_ends(folder: Path, weighting: str) -> None:
    weights, _, miou = torch.load(folder / "alone.pt")[weighting]
    for rank in range(2):
        shared, _, shared_miou = torch.load(folder / f"{rank}.pt")["ddp"][weighting]
        close(weights, shared)
        assert shared_miou == pytest.approx(miou, abs=1e-12)


def test_a_sharded_training_leaves_one_checkpoint_of_whole_tensors(folder: Path) -> None:
    weights, number, miou = torch.load(folder / "alone.pt")["fixed"]
    for name in ("whole", "resumed"):
        path = folder / f"{name}.ckpt"
        assert path.is_file()
        close(weights, torch.load(path, weights_only=True)["state_dict"])
    ranks = [torch.load(folder / f"{rank}.pt") for rank in range(2)]
    assert sum(rank["own"] for rank in ranks) == number
    assert max(rank["own"] for rank in ranks) < 0.7 * number
    assert [rank["miou"] for rank in ranks] == pytest.approx([miou, miou], abs=1e-12)
