"""What every training begins with."""

import inspect
from typing import Any, Literal, cast, get_type_hints

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


def make_trainer(precision: Any = "auto", accelerator: Any = "auto", **settings: Any) -> lightning.Trainer:
    """A trainer of Lightning, whose ``precision`` may be ``auto``.

    Args:
        precision: ``auto`` is mixed precision on a GPU, in bf16 where it has that and in fp16 with a gradient scaler
            else, and 32 bits on anything else. Others are those of Lightning.
        accelerator: as Lightning takes it.
        settings: all else that Lightning's trainer takes.
    """
    if precision == "auto":
        gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        mixed = "bf16-mixed" if gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
        precision = mixed if gpu else "32-true"
    return lightning.Trainer(precision=precision, accelerator=accelerator, **settings)


_HINTS = get_type_hints(lightning.Trainer.__init__)
# a wrong key or type is then found before anything is built, as with Lightning's own
make_trainer.__signature__ = inspect.signature(lightning.Trainer)  # type: ignore[attr-defined]
make_trainer.__annotations__ = {**_HINTS, "precision": Literal["auto"] | _HINTS["precision"]}


def make_callbacks(cfg: DictConfig) -> dict[str, Any]:
    """The callbacks of a config by name; those that are null are left out."""
    return {name: instantiate(node) for name, node in cfg.callbacks.items() if node is not None}


def check_training(cfg: DictConfig, task: SegmentationTask) -> None:
    """Build what the training will build and let it go again: what is wrong shows before there is a run folder.

    Raises:
        ConfigError: this machine cannot give what ``trainer`` asks for, optimizer or scheduler refuse a value, or the
            encoder takes one size only and pictures are to be evaluated at their own.
    """
    encoder = cast(Any, task.network).encoder
    window = cfg.inference.get("predictor", cfg.inference).get("window")
    if encoder.fixed_size and cfg.data.evaluation_size == "source" and window != encoder.stride:
        raise ConfigError(
            f"`inference.window` should be {encoder.stride}, the one size that `{encoder.name}` was built for, where "
            f"`data.evaluation_size=source`. Found `inference.window = {window}`. Set `inference=sliding_window "
            f"inference.window={encoder.stride}`, or `data.evaluation_size=image_size`."
        )
    try:
        instantiate(cfg.trainer)(logger=False, enable_checkpointing=False, enable_progress_bar=False)
    except (MisconfigurationException, ImportError, ValueError, TypeError) as error:
        raise ConfigError(
            f"`trainer` should be one that this machine has. Found `trainer.accelerator = {cfg.trainer.accelerator}`, "
            f"`trainer.devices = {cfg.trainer.devices}`: {error} Choose `trainer=default`, or mend the values."
        ) from error
    task.scheduler(task.optimizer(task), total_steps=cfg.trainer.max_epochs, steps_per_epoch=1)
