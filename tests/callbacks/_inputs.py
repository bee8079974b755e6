"""A tiny task whose step can run out of memory, and its pictures."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from hsl.batch import Batch, Objectives, Outputs
from hsl.callbacks.oom_backoff import OomBackoff
from hsl.heads import Head, Problem
from hsl.losses import protocols
from hsl.metrics.pixels.pixelwise import Pixelwise
from hsl.tasks.segmentation import SegmentationTask
from hsl.weighting.scalar import Fixed

Build = Callable[[], nn.Module]
COUNTS = {"segmentation": torch.tensor([1, 1])}
PROBLEM = Problem((Head("segmentation", "dense", ("clean", "crack")),), COUNTS, COUNTS)


class Network(nn.Module):
    """A smooth encoder and a linear head, in float64. ``fails`` is asked before each forward pass."""

    def __init__(self, class_heads: Any, *, middle: Build = nn.Identity, **_: Any) -> None:
        super().__init__()
        self.known_heads = {head.name: head for head in class_heads}
        self.stride = 1
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), middle(), nn.Tanh())
        self.head = nn.Conv2d(4, 2, 1)
        self.double()
        self.fails: Callable[[Tensor, bool], None] = lambda images, training: None

    def forward(self, image: Tensor, share: Any = None) -> Outputs:
        self.fails(image, self.training)
        (features,) = share([self.encoder(image)]) if share else [self.encoder(image)]
        return {"segmentation": self.head(features)}


class Loss(nn.Module, protocols.Loss):
    """Two means over pictures."""

    weights = {"fit": 1.0, "size": 0.5}  # noqa: RUF012

    def __init__(self, class_counts: Any, presence_pixels: Any) -> None:
        super().__init__()

    def forward(self, outputs: Outputs, batch: Batch) -> Objectives:
        logits = outputs["segmentation"]
        fit = nn.functional.cross_entropy(logits, batch["masks"]["segmentation"])
        return {"fit": fit, "size": logits.square().mean()}


class OutOfMemory:
    """Fails in chosen training passes or above a number of pictures, in the allocator's words."""

    def __init__(self, *passes: int, room: int = 1000, error: Exception | None = None) -> None:
        self.passes, self.room, self.error = set(passes), room, error
        self.count = -1
        self.sizes: list[int] = []
        self.generators: list[Tensor] = []

    def __call__(self, images: Tensor, training: bool) -> None:
        self.count += training
        self.sizes.append(len(images))
        self.generators.append(torch.get_rng_state())
        if len(images) > self.room or (training and self.count in self.passes):
            torch.rand(5)  # a failed pass has drawn already
            if self.error is not None:
                raise self.error
            torch.empty(10**14)


def fitted(
    folder: Path,
    fails: OutOfMemory | None,
    *,
    middle: Build = nn.Identity,
    weighting: Any = Fixed,
    micro_batch: int | None = None,
    checkpointing: bool = False,
    with_callback: bool = True,
    after: str | None = None,
    **options: Any,
) -> tuple[SegmentationTask, lightning.Trainer]:
    """Two epochs of three batches of 4, 4 and 2 pictures, with clipping; validated after each."""
    lightning.seed_everything(3, verbose=False)
    task = SegmentationTask(
        network=partial(Network, middle=middle),
        loss=Loss,
        weighting=weighting,
        optimizer=lambda module: SGD(module.parameters(), lr=0.1, momentum=0.9),
        scheduler=lambda optimizer, total_steps, **_: LambdaLR(optimizer, lambda step: 1 - step / (total_steps + 1)),
        predictor=lambda network, images: network(images),
        metrics={"pixelwise": Pixelwise},
        problem=PROBLEM,
    )
    if fails is not None:
        task.network.fails = fails
    backoff = OomBackoff(str(folder / "oom.json"), micro_batch, checkpointing)
    settings = {
        "max_epochs": 2, "gradient_clip_val": 0.5, "num_sanity_val_steps": 0, "logger": False,
        "callbacks": [backoff] if with_callback else [], **options,
    }  # fmt: skip
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, **settings,
    )  # fmt: skip
    batches = DataLoader(pictures(), batch_size=4, collate_fn=collated)
    trainer.fit(task, batches, batches, ckpt_path=after, weights_only=True if after else None)
    return task, trainer


def pictures() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "id": f"p{i}",
            "image": torch.randn(3, 6, 6, generator=generator, dtype=torch.float64),
            "mask": torch.randint(0, 2, (6, 6), generator=generator),
        }
        for i in range(10)
    ]


def collated(samples: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": [one["id"] for one in samples],
        "image": torch.stack([one["image"] for one in samples]),
        "size": torch.tensor([[6, 6]] * len(samples)),
        "masks": {"segmentation": torch.stack([one["mask"] for one in samples])},
    }
