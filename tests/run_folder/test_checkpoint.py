"""A checkpoint is read as it was written, or refused in a sentence."""

import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from hsl.errors import ConfigError
from hsl.run_folder import checkpoint
from hsl.run_folder.checkpoint import AtomicCheckpointIO, read_checkpoint, whole_sibling

CONTENT = {
    "state_dict": {"weight": torch.arange(300, dtype=torch.float32), "bias": torch.ones(7)},
    "epoch": 3,
    "name": "a run",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.save(CONTENT, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def refusal(path: Path, **wanted: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read_checkpoint(path, **wanted)
    said = str(caught.value)
    assert said.startswith(f"`{path}` should be a checkpoint")
    assert "\n" not in said
    return said


def is_content(found: dict[str, Any]) -> bool:
    state = CONTENT["state_dict"]
    assert isinstance(state, dict)
    return found.keys() == CONTENT.keys() and found["state_dict"].keys() == state.keys() and all(
        torch.equal(found["state_dict"][name], value) for name, value in state.items()
    ) and (found["epoch"], found["name"]) == (3, "a run")  # fmt: skip


def test_any_changed_byte_is_told_or_harmless(path: Path, tmp_path: Path) -> None:
    whole, other = path.read_bytes(), tmp_path / "other.ckpt"
    draw = random.Random(0)
    told = 0
    for place in range(0, len(whole), 7):
        other.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << draw.randrange(8))]) + whole[place + 1 :])
        try:
            assert is_content(read_checkpoint(other)), place
        except ConfigError:
            told += 1
    assert told > 1200 // 7  # the tensors alone have as many bytes


def test_any_cut_is_told(path: Path) -> None:
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refusal(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (bytes(5000), "5000 bytes that are damaged"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "damaged or something else"),
        (b"PK\x05\x06" + bytes(18), "no checkpoint"),  # an archive of nothing
    ],
)
def test_something_else(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    assert said in refusal(path)


def test_another_archive_an_old_one_a_folder_and_nothing(path: Path, tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "arrays.npz", a=np.arange(3))
    refusal(tmp_path / "arrays.npz")
    torch.save(CONTENT, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    refusal(tmp_path / "old.ckpt")
    assert "Found: a folder" in refusal(tmp_path)
    assert "no such file" in refusal(tmp_path / "nowhere.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    assert "without its `state_dict`" in refusal(tmp_path / "list.ckpt")
    torch.save({**CONTENT, "code": path}, tmp_path / "code.ckpt")
    assert "more than numbers and text" in refusal(tmp_path / "code.ckpt")


def test_a_part_that_is_missing(path: Path) -> None:
    assert "without its `rng.torch`" in refusal(path, wanted=("state_dict", "rng.torch"))
    assert "without its `epoch.x`" in refusal(path, wanted=("epoch.x",))


def test_the_other_checkpoint_has_to_be_whole(path: Path) -> None:
    assert whole_sibling(path) is None
    path.with_name("best.ckpt").write_bytes(b"half")
    assert whole_sibling(path) is None


@pytest.mark.slow
def test_the_check_takes_little_of_the_reading(tmp_path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.randn(25_000_000)}}, tmp_path / "large.ckpt")  # 100 MB
    start = time.process_time()
    read_checkpoint(tmp_path / "large.ckpt")
    assert time.process_time() - start < 1.0


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
        patch.setattr(*((checkpoint.torch, "save", fail) if place == "serialise" else (Path, "replace", fail)))
        with pytest.raises(OSError, match="No space left"):
            AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]
