"""What the terminal shows during a run."""

import logging
import sys
import warnings

import lightning
from lightning.pytorch.callbacks import Callback, ProgressBar, RichProgressBar

from hsl.terminal import say


class EpochLines(ProgressBar):
    """One line per epoch, for logs that are files; values of validation where there was one."""

    _validated = False

    def disable(self) -> None:
        pass  # Lightning silences the further processes of a distributed run with it; they print nothing anyway

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        names = ["train/loss", *(("val/loss", "val/miou") if self._validated else ())]
        self._validated = False
        if not trainer.is_global_zero:
            return
        values = trainer.callback_metrics
        shown = "  ".join(f"{name} {float(values[name]):.4f}" for name in names if name in values)
        say(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}")


class EpochBar(RichProgressBar):
    """Lightning's bar, with the epochs counted from 1."""

    def _get_train_description(self, current_epoch: int) -> str:
        text = f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}"
        return f"{text:{len(self.validation_description)}}"  # or the bars would not be aligned


def progress_bar() -> Callback:
    """A bar with the time left on a terminal, else one line per epoch."""
    return EpochBar() if sys.stdout.isatty() else EpochLines()


def scoring_bar() -> list[Callback]:
    """For what is evaluated beside a training: a bar with the time left on a terminal, else nothing."""
    return [RichProgressBar()] if sys.stdout.isatty() else []


def quieten_lightning() -> None:
    """Leave out what Lightning says of itself at every start; its warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning 2.6 with torch 2.15: an isinstance check of theirs, nothing a user could change
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    # a resumed run goes on in its own folder on purpose
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
