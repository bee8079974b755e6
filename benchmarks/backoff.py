"""A training step with memory backoff on, where memory never runs out, beside one without."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.utils import instantiate

from benchmarks.loop import BATCH, SIZE, config
from hsl.callbacks.oom_backoff import OomBackoff
from hsl.callbacks.progress import quieten_lightning
from hsl.verbs.opening.building import build_task
from hsl.verbs.train.setup import make_repeatable

STEPS, WARM_UP = 84, 4


class EveryOther(OomBackoff):
    """On in every other step, so that a slow minute of the machine hits both; takes the seconds of each step."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.seconds: list[float] = []
        self.start = 0.0

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self._task.micro_batches.back_off = None if len(self.seconds) % 2 else self._back_off
        self.start = time.process_time()  # of this process: what others take does not count

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        super().on_train_batch_end(*args, **kwargs)
        self.seconds.append(time.process_time() - self.start)


def run() -> list[dict[str, Any]]:
    quieten_lightning()
    make_repeatable(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cfg = config(folder)
        cfg.run_dir = str(Path(folder) / "run")
        data = instantiate(cfg.data)
        data.prepare()
        backoff = EveryOther(str(Path(folder) / "oom.json"))
        trainer: lightning.Trainer = instantiate(cfg.trainer)(
            callbacks=[backoff], logger=False, max_steps=STEPS, max_epochs=STEPS, limit_val_batches=0,
            enable_progress_bar=False, enable_checkpointing=False,
        )  # fmt: skip
        trainer.fit(build_task(cfg, data.prepared), datamodule=data)
        if backoff.path.exists():
            raise RuntimeError("Memory ran out: there is nothing to compare.")
    torch.set_num_threads(threads)
    ours, peer = (statistics.median(backoff.seconds[WARM_UP + offset :: 2]) for offset in (0, 1))
    return [
        {
            "name": "training step with memory backoff, U-Net with convnext_atto",
            "sizes": {"pixels": SIZE, "batch": BATCH, "steps": STEPS, "threads": 1},
            "versions": {"torch": torch.__version__, "lightning": lightning.__version__},
            "ours": f"{ours * 1e3:.1f} ms",
            "peer": f"{peer * 1e3:.1f} ms (without it)",
            "ratio": round(ours / peer, 4),
            "goal": "< 1.01",
            "holds": ours / peer < 1.01,
        }
    ]
