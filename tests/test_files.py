"""A file is the old one or the new one, never half."""

import os
from pathlib import Path

import pytest

from hsl.config import DataError
from hsl.files import read_json, write_atomically


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
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(target, b"new")
    assert str(caught.value) == f"[Errno 28] No space left on device: {str(target)!r}"
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing"),
        (b'{"a": 1', "is not valid JSON"),
        (b"[1]", "should be a JSON object"),
        (b"\xff", "cannot be read"),
    ],
)
def test_a_damaged_page_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    page = tmp_path / "page.json"
    if content is not None:
        page.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_json(page)
    assert f"`{page}`" in str(caught.value)
