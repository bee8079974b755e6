"""Checkpoints: never half on the disk, read whole or refused, and never as code."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from hsl.errors import ConfigError, DataError
from hsl.files.io import check_archive, write_atomically
from hsl.run_folder.layout import BEST, LAST

WEIGHTS = ("state_dict",)
"""What every checkpoint holds."""

TRAINING = (
    "state_dict", "epoch", "global_step", "loops.fit_loop.epoch_progress.current.processed", "callbacks",
    "optimizer_states", "lr_schedulers", "rng.torch", "rng.cuda", "rng.numpy", "rng.python", "provenance.weights_used",
    "pytorch-lightning_version",
)  # fmt: skip
"""What a training needs to go on as if it had never stopped."""


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


def read_checkpoint(path: Path, wanted: tuple[str, ...] = WEIGHTS) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    torch writes a CRC-32 for every part but does not look at it when it reads; here each is compared first, so a
    checkpoint that a disk or a copy has changed is refused instead of being another model.

    Args:
        path: Of the file.
        wanted: The parts it has to hold, with dots between the keys.

    Raises:
        ConfigError: The file is missing, damaged, something else, or lacks a part.
    """
    if not path.exists():
        raise ConfigError(f"`{path}` should be a checkpoint. Found no such file. Has the run finished?")
    try:
        check_archive(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except DataError as error:
        raise ConfigError(f"`{path}` should be a checkpoint of hsl. Found: {_what_is_wrong(path, error)}.") from None
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"`{path}` should be a checkpoint of hsl. Found more than numbers and text, or no checkpoint."
        ) from error
    except (RuntimeError, EOFError, LookupError, TypeError, ValueError, AttributeError) as error:
        found = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        raise ConfigError(f"`{path}` should be a checkpoint of hsl. Found: {found}.") from error
    if missing := [part for part in wanted if not _holds(content, part)]:
        raise ConfigError(f"`{path}` should be a checkpoint of hsl. Found one without its `{missing[0]}`.")
    return dict(content)


def whole_sibling(path: Path) -> tuple[Path, int] | None:
    """Another checkpoint of the folder that a training could go on from, with its epoch; ``None`` without one."""
    for name in (LAST, BEST):
        other = path.with_name(name)
        if other != path and other.is_file():
            try:
                return other, int(read_checkpoint(other, TRAINING)["epoch"])
            except ConfigError:
                continue  # that one is damaged, too
    return None


def _holds(content: Any, part: str) -> bool:
    for key in part.split("."):
        if not isinstance(content, dict) or key not in content:
            return False
        content = content[key]
    return True


def _what_is_wrong(path: Path, error: DataError) -> str:
    """A few words on a file that is no whole archive."""
    if path.is_dir():
        return "a folder"
    size = path.stat().st_size
    return "an empty file" if not size else f"{size} bytes that are damaged or something else ({error})"
