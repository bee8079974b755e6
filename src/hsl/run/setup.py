"""What every training begins with."""

from typing import Any

import lightning
import torch
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from hsl.config import ConfigError
from hsl.tasks.segmentation import SegmentationTask


def make_repeatable(seed: int) -> None:
    """Seed every generator; ``trainer.deterministic`` chooses the kernels."""
    lightning.seed_everything(seed, workers=True, verbose=False)
    # with deterministic kernels torch also fills every new tensor with NaN, to show reads of memory that nothing has
    # written: a few percent of a step's time, for a fault that our operations do not have
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of theirs


def make_callbacks(cfg: DictConfig) -> dict[str, Any]:
    """The callbacks of a config by name; those that are null are left out."""
    return {name: instantiate(node) for name, node in cfg.callbacks.items() if node is not None}


def check_training(cfg: DictConfig, task: SegmentationTask) -> None:
    """Build what the training will build and let it go again: what is wrong shows before there is a run folder.

    Raises:
        ConfigError: this machine cannot give what ``trainer`` asks for, or optimizer or scheduler refuse a value.
    """
    try:
        instantiate(cfg.trainer)(logger=False, enable_checkpointing=False, enable_progress_bar=False)
    except (MisconfigurationException, ImportError, ValueError, TypeError) as error:
        raise ConfigError(
            f"`trainer` should be one that this machine has. Found `trainer.accelerator = {cfg.trainer.accelerator}`, "
            f"`trainer.devices = {cfg.trainer.devices}`: {error} Choose `trainer=default`, or mend the values."
        ) from error
    task.scheduler(task.optimizer(task), total_steps=cfg.trainer.max_epochs, steps_per_epoch=1)
