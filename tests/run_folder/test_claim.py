"""Which folder a config runs in: new, gone on in, or finished; never two processes in one."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from hsl.errors import ConfigError
from hsl.run_folder.claim import CHILD_VARIABLE, RunFolder, config_identity, find_run_folder


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
