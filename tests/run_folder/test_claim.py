"""Which folder a config runs in, never two processes in one; checkpoints whole or refused."""

import fcntl
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from hsl.errors import ConfigError
from hsl.run_folder import checkpoint
from hsl.run_folder.checkpoint import AtomicCheckpointIO, read_checkpoint, whole_sibling
from hsl.run_folder.claim import CHILD_VARIABLE, RunFolder, config_identity, find_run_folder

CONTENT = {
    "state_dict": {"weight": torch.arange(300, dtype=torch.float32), "bias": torch.ones(7)},
    "epoch": 3,
    "name": "a run",
}


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CHILD_VARIABLE, raising=False)


def config(root: Path, **changes: object) -> DictConfig:
    cfg = OmegaConf.create(
        {
            "seed": 0, "resume": None, "rerun": False, "entry": "x", "output_root": str(root), "cache_dir": "c",
            "run_dir": "${output_root}/model/fold0", "data": {"root": "d", "num_workers": 2, "batch_size": 8},
            "logger": {"save_dir": "${run_dir}"},
            "callbacks": {"history": {"path": "${run_dir}/history.csv"}, "early_stopping": {"patience": 10}},
        }
    )  # fmt: skip
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    return cfg


def find(cfg: DictConfig, *, sweep: bool, unchanged: bool = True, alike: bool = False) -> RunFolder:
    return find_run_folder(cfg, sweep=sweep, counts=lambda facts: unchanged, alike=lambda epochs, steps: alike)


def leave(folder: RunFolder, status: str, *, checkpoint: bool = True) -> Path:
    """What a run that ended with ``status`` leaves behind."""
    folder.claim()
    (folder.path / "provenance.json").write_text(json.dumps({"identity": folder.identity, "status": status}))
    if status == "finished":
        (folder.path / "metrics.json").write_text(json.dumps({"monitor": {"value": 0.5}}))
    if checkpoint:
        (folder.path / "checkpoints").mkdir()
        (folder.path / "checkpoints" / "last.ckpt").touch()
    folder.release()
    return folder.path


@pytest.mark.parametrize(
    "changes",
    [
        {"resume": "last"},
        {"output_root": "elsewhere"},
        {"data__num_workers": 0},
        {"rerun": True},
        {"data__teachers": None},  # a key that is younger than earlier runs
    ],
)
def test_what_changes_no_number_is_no_part_of_the_identity(tmp_path: Path, changes: dict[str, object]) -> None:
    assert config_identity(config(tmp_path)) == config_identity(config(tmp_path, **changes))


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"data__batch_size": 4}, {"data__teachers": "x"}, {"callbacks__early_stopping__patience": 3}],
)
def test_what_changes_a_number_changes_the_identity(tmp_path: Path, changes: dict[str, object]) -> None:
    assert config_identity(config(tmp_path)) != config_identity(config(tmp_path, **changes))


def test_nothing_is_made_before_the_claim(tmp_path: Path) -> None:
    find(config(tmp_path / "out"), sweep=False)
    assert not (tmp_path / "out").exists()


def test_two_runs_of_one_second_get_two_folders(tmp_path: Path) -> None:
    one, two = (find(config(tmp_path), sweep=False) for _ in range(2))
    assert leave(one, "finished") != leave(two, "finished")


def test_a_sweep_skips_what_is_finished(tmp_path: Path) -> None:
    path = leave(find(config(tmp_path), sweep=True), "finished")
    again = find(config(tmp_path), sweep=True)
    assert again.finished
    assert again.path == path
    assert not find(config(tmp_path, rerun=True), sweep=True).finished
    assert not find(config(tmp_path, seed=1), sweep=True).finished
    assert not find(config(tmp_path), sweep=False).finished
    assert not find(config(tmp_path), sweep=True, unchanged=False).finished


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_resume_last_goes_on_in_the_unfinished_folder(tmp_path: Path, status: str) -> None:
    path = leave(find(config(tmp_path), sweep=False), status)
    again = find(config(tmp_path, resume="last"), sweep=False)
    assert again.path == path
    assert again.checkpoint == path / "checkpoints" / "last.ckpt"


def test_resume_last_without_a_checkpoint_starts_anew_in_the_same_folder(tmp_path: Path) -> None:
    path = leave(find(config(tmp_path), sweep=False), "failed", checkpoint=False)
    again = find(config(tmp_path, resume="last"), sweep=False)
    assert (again.path, again.checkpoint) == (path, None)


def test_resume_last_never_takes_another_config(tmp_path: Path) -> None:
    path = leave(find(config(tmp_path), sweep=False), "interrupted")
    assert find(config(tmp_path, resume="last", seed=5), sweep=False).path != path


def test_a_checkpoint_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`resume` should be .*nowhere.ckpt"):
        find(config(tmp_path, resume=str(tmp_path / "nowhere.ckpt")), sweep=False)


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    folder = find(config(tmp_path), sweep=False)
    folder.claim()
    lock = folder.path / ".lock"
    folder.release()
    hold = (
        f"import fcntl; file = open({str(lock)!r}, 'w'); fcntl.flock(file, fcntl.LOCK_EX); "
        "print('held', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ConfigError, match="another process"):
            RunFolder(folder.path, "").claim()
        other.communicate(b"\n")
    free = RunFolder(folder.path, "")
    free.claim()
    free.release()


def test_what_was_killed_before_it_had_a_name_is_cleared_by_the_next_run(tmp_path: Path) -> None:
    base = tmp_path / "model" / "fold0"
    killed, living, early, young, bare, other = (
        base / name
        for name in (".run-a.partial", ".run-b.partial", ".run-c.partial", ".run-d.partial", "bare", "other")
    )
    for folder in (killed, living, early, young, bare, other):
        folder.mkdir(parents=True)
    for folder in (killed, living, bare):
        (folder / ".lock").touch()
    (killed / "provenance.json").write_text("{")
    (other / "notes.txt").touch()
    os.utime(early, (0, 0))  # killed between its making and its lock; the young one may be about to lock
    with (living / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = find(config(tmp_path), sweep=False)
        run.claim()
        run.release()
    assert sorted(base.iterdir()) == sorted([living, young, other, run.path])


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
