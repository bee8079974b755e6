"""What every training begins with."""

from typing import Any

import lightning
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig


def make_repeatable(seed: int) -> None:
    """Seed every generator; ``trainer.deterministic`` chooses the kernels."""
    lightning.seed_everything(seed, workers=True, verbose=False)
    # with deterministic kernels torch also fills every new tensor with NaN, to show reads of memory that nothing has
    # written: a few percent of a step's time, for a fault that our operations do not have
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of theirs


def make_callbacks(cfg: DictConfig) -> dict[str, Any]:
    """The callbacks of a config by name; those that are null are left out."""
    return {name: instantiate(node) for name, node in cfg.callbacks.items() if node is not None}
