"""A file is the old one or the new one, never half."""

import os
from pathlib import Path

import pytest

from hsl.files import write_atomically


def test_it_writes_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep" / "file", b"new")
    assert (tmp_path / "deep" / "file").read_bytes() == b"new"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["file"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
