"""Checkpoints that are never half on the disk."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from hsl.files.io import write_atomically
from hsl.run_folder.checkpoint import read_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, then renames; reads nothing that is damaged.

    Lightning's own goes through the system's temporary folder; from there to another file system a move is a copy,
    and ``kill -9`` in the middle of it leaves a broken checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        del storage_options  # for remote file systems; run folders are local
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(Path(path), buffer.getvalue())

    def load_checkpoint(self, path: _PATH, map_location: Any = None, weights_only: bool | None = None) -> Any:
        del map_location, weights_only  # on the CPU and without code, always
        return read_checkpoint(Path(path))
