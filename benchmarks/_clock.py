"""The processor time of a training, without its validation: what `plan` gives both of its arms the same of."""

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback


class Clock(Callback):
    """Writes the processor seconds of each training step, loading included, when the training ends.

    Args:
        path: Of the JSON file.
    """

    def __init__(self, path: str) -> None:
        self._path, self._marks, self._validating, self._began = Path(path), [0.0], 0.0, 0.0
        self._batches = 0

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        self._batches = len(trainer.train_dataloader)
        self._marks, self._validating = [time.process_time()], 0.0

    def on_train_batch_end(self, *_: Any) -> None:
        self._marks.append(time.process_time() - self._validating)

    def on_validation_start(self, *_: Any) -> None:
        self._began = time.process_time()

    def on_validation_end(self, *_: Any) -> None:
        self._validating += time.process_time() - self._began

    def on_train_end(self, *_: Any) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        steps = [after - before for before, after in zip(self._marks, self._marks[1:], strict=False)]
        self._path.write_text(
            json.dumps({"steps": steps, "seconds": sum(steps), "batches": self._batches}), encoding="utf8"
        )
