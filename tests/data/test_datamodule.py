import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from hsl.config import ConfigError, DataError
from hsl.data.audit import audit
from hsl.data.datamodule import DataModule
from hsl.data.formats.folder import read_folder, read_pictures
from hsl.data.splits import kfold
from hsl.data.transforms import training_transform

NUM_PICTURES = 12
CLASSES = ("clean", "crack", "stain")
AUGMENTATION: dict[str, Any] = {
    "flips": {"horizontal": 0.5, "vertical": 0.5},
    "rot90": None,
    "resized_crop": {"scale": [0.5, 1.0], "ratio": [0.8, 1.25]},
    "rotation": None,
    "colour": None,
    "blur": None,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve pictures of unlike sizes in six groups; every picture has all classes and ignored pixels."""
    folder = tmp_path / "data"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = ["id,group"]
    for number in range(NUM_PICTURES):
        height, width = 40 + number, 52 - number
        mask = np.zeros((height, width), np.uint8)
        mask[: 4 + number, :10] = 1
        mask[-5:, :] = 2
        mask[:3, -3:] = 255
        image = random.integers(0, 255, (height, width, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"images/p{number:02}.png"), image)
        cv2.imwrite(str(folder / f"masks/p{number:02}.png"), mask)
        rows.append(f"p{number:02},g{number // 2}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "dataset.yaml").write_text("classes: [clean, crack, stain]\n")
    return folder


@pytest.fixture
def make(root: Path, tmp_path: Path) -> Callable[..., DataModule]:
    def make(**changed: Any) -> DataModule:
        split = partial(
            kfold,
            num_folds=3,
            groups="group",
            stratify=None,
            test_from="fraction",
            test_fraction=0.2,
            seed=0,
        )
        given: dict[str, Any] = {
            "root": root,
            "reader": read_folder,
            "split": split,
            "fold": 0,
            "image_size": 32,
            "batch_size": 2,
            "num_workers": 0,
            "cache": "ram",
            "cache_gigabytes": 1.0,
            "cache_dir": tmp_path / "cache",
            "audit": partial(audit, missing_classes="warn"),
            "augmentation": partial(training_transform, **AUGMENTATION),
            "normalization": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.5]},
            "seed": 3,
        }
        return DataModule(**(given | changed))

    return make


class Recorder(lightning.LightningModule):
    """A model whose weight depends on every pixel that it has seen, in order."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 1)
        self.seen: list[tuple[int, list[str]]] = []
        self.fail_at = fail_at

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if len(self.seen) == self.fail_at:
            raise KeyboardInterrupt
        self.seen.append((self.current_epoch, batch["id"]))
        return self.layer(batch["image"]).square().mean() + batch["masks"]["segmentation"].float().mean() * 0

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


class Save(Callback):
    """Saves when and where it is told."""

    def __init__(self, hook: str, step: int, path: Path) -> None:
        self.step, self.path = step, path
        setattr(self, hook, self._save)

    def _save(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step and not trainer.sanity_checking and not self.path.exists():
            trainer.save_checkpoint(self.path)


def fit(
    data: DataModule, model: Recorder, *callbacks: Callback, resume: Path | None = None, **options: Any
) -> Recorder:
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=3,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **options,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The `srun` command")
        trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=False)
    return model
