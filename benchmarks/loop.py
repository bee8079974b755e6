"""Training steps of hsl beside a hand-written PyTorch loop: same model, data, loss and optimizer."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, open_dict

from hsl.callbacks.progress import quieten_lightning
from hsl.cli import conf_dir
from hsl.verbs.opening.building import build_task
from hsl.verbs.train.setup import make_repeatable

STEPS, WARM_UP, ROUNDS, BATCH, SIZE = 120, 4, 6, 8, 128


class StepClock(Callback):
    """Seconds of each training step, data and optimizer included."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(time.perf_counter())


def config(folder: str) -> DictConfig:
    overrides = [
        "encoder=convnext_atto", "encoder.weights=null", f"data.image_size={SIZE}", f"data.batch_size={BATCH}",
        "data.num_workers=1", f"output_root={folder}", f"data.root={folder}/data", "data.reader.num_pictures=160",
    ]  # fmt: skip
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", overrides=overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def step_times(ends: list[float]) -> float:
    """Median over the steps after the warm-up, in seconds; epoch borders are outliers that the median leaves out."""
    return statistics.median(b - a for a, b in zip(ends[WARM_UP:], ends[WARM_UP + 1 :], strict=False))


def run_hsl(cfg: DictConfig, data: Any, steps: int) -> float:
    task = build_task(cfg, data.prepared)
    clock = StepClock()
    trainer: lightning.Trainer = instantiate(cfg.trainer)(
        callbacks=[clock, *(instantiate(cfg.callbacks[name]) for name in ("history",))],
        logger=instantiate(cfg.logger), max_steps=steps, max_epochs=steps, limit_val_batches=0,
        enable_progress_bar=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(task, datamodule=data)
    return step_times(clock.ends)


def run_by_hand(cfg: DictConfig, data: Any, steps: int) -> float:
    """What a careful user would write: the loop and nothing else."""
    task = build_task(cfg, data.prepared)
    network, loss, weights = task.network.train(), task.loss, task.loss.weights
    optimizer = instantiate(cfg.optimizer)(network)
    loader, ends, epoch = data.train_dataloader(), [], 0
    scheduler = instantiate(cfg.scheduler)(optimizer, total_steps=steps, steps_per_epoch=len(loader))
    while len(ends) < steps:
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            batch = data.on_after_batch_transfer(batch, 0)
            parts = loss(network(batch["image"]), batch)
            optimizer.zero_grad()
            sum(weights[name] * part for name, part in parts.items()).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            ends.append(time.perf_counter())
        epoch += 1
    return step_times(ends)


def run() -> list[dict[str, Any]]:
    quieten_lightning()
    make_repeatable(0)
    with tempfile.TemporaryDirectory() as folder:
        cfg = config(folder)
        cfg.run_dir = str(Path(folder) / "run")
        data = instantiate(cfg.data)
        data.prepare()
        runners: dict[str, Callable[..., float]] = {"hsl": run_hsl, "by hand": run_by_hand}
        times: dict[str, list[float]] = {name: [] for name in runners}
        for runner in runners.values():  # the first run of each in a process is slower, by hand too
            runner(cfg, data, STEPS // ROUNDS)
        for i in range(ROUNDS):  # in turn, so that a slow minute of the machine hits both, and neither always first
            for name in list(runners)[:: 1 if i % 2 else -1]:
                times[name].append(runners[name](cfg, data, STEPS // ROUNDS))
    ours, peer = (BATCH / statistics.median(times[name]) for name in runners)
    return [
        {
            "name": "training step, U-Net with convnext_atto",
            "sizes": {
                "pixels": SIZE,
                "batch": BATCH,
                "steps": STEPS,
                "rounds": ROUNDS,
                "threads": torch.get_num_threads(),
            },
            "versions": {"torch": torch.__version__, "lightning": lightning.__version__},
            "ours": f"{ours:.2f} pictures/s",
            "peer": f"{peer:.2f} pictures/s (hand-written PyTorch loop)",
            "ratio": round(ours / peer, 3),
            "goal": ">= 0.97",
            "holds": ours / peer >= 0.97,
        }
    ]
