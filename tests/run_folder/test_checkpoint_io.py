"""A checkpoint is the old one or the new one."""

from pathlib import Path

import pytest
import torch

from hsl.run_folder import checkpoint_io
from hsl.run_folder.checkpoint_io import AtomicCheckpointIO


def test_it_can_be_read_back_and_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 3, "weight": torch.arange(4)}, str(path))
    loaded = torch.load(path, weights_only=True)
    assert loaded["epoch"] == 3
    assert loaded["weight"].tolist() == [0, 1, 2, 3]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("place", ["serialise", "rename"])
def test_a_failing_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((checkpoint_io.torch, "save", fail) if place == "serialise" else (Path, "replace", fail)))
        with pytest.raises(OSError, match="No space left"):
            AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]
