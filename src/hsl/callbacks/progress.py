"""What the terminal shows during a run."""

import sys

import lightning
from lightning.pytorch.callbacks import Callback, ProgressBar, RichProgressBar


class EpochLines(ProgressBar):
    """One line per epoch, for logs that are files."""

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        values = trainer.callback_metrics
        shown = "  ".join(f"{name} {float(values[name]):.4f}" for name in ("val/loss", "val/miou") if name in values)
        print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}", flush=True)


def progress_bar() -> Callback:
    """A bar with the time left on a terminal, else one line per epoch."""
    return RichProgressBar() if sys.stdout.isatty() else EpochLines()
