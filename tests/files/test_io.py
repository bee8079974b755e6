"""A file is the old one or the new one, never half."""

import os
import random
import re
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hsl.errors import DataError
from hsl.files.io import check_archive, read_arrays, read_bytes, read_json, write_arrays, write_atomically


def test_it_writes_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep" / "file", b"new")
    assert (tmp_path / "deep" / "file").read_bytes() == b"new"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["file"]


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"x" * 1000)
    tracemalloc.start()
    assert len(read_bytes(tmp_path / "small")) == 1000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


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


ARRAYS = {"ids": np.array(["a", "bé"]), "counts": np.arange(12).reshape(3, 4), "nll": np.ones(2)}


def changed_bytes(whole: bytes) -> Iterator[bytes]:
    """The content with one byte changed: every tenth, and all of the directory at its end."""
    draw = random.Random(0)
    directory = whole.index(b"PK\x01\x02")
    for place in [*range(0, directory, 10), *range(directory, len(whole))]:
        yield whole[:place] + bytes([whole[place] ^ draw.randrange(1, 256)]) + whole[place + 1 :]


def test_arrays_with_a_changed_byte_are_the_same_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    write_arrays(path, ARRAYS)
    told = 0
    for content in changed_bytes(path.read_bytes()):
        path.write_bytes(content)
        try:
            read = read_arrays(path, tuple(ARRAYS))
        except DataError as error:
            told += str(error).startswith(f"`{path}` ")
            continue
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(read[name], array, strict=True)
    assert told > 100


def test_a_part_that_the_directory_of_an_archive_no_longer_names(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    write_arrays(path, ARRAYS)
    whole = bytearray(path.read_bytes())
    first, second, third = (found.start() for found in re.finditer(b"PK\x01\x02", whole))
    whole[first + 32 : first + 34] = (third - second).to_bytes(2, "little")  # the comment swallows the next entry
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"damaged: it should have 3 parts\. Found 2"):
        check_archive(path)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"ids": ARRAYS["ids"]}, "should hold the array `nll`"),
        ({"nll": np.array([{"code": 1}], dtype=object)}, "cannot be read as arrays: Object arrays cannot be loaded"),
    ],
)
def test_arrays_that_are_missing_or_code(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    np.savez(tmp_path / "arrays.npz", **arrays)
    with pytest.raises(DataError, match=said):
        read_arrays(tmp_path / "arrays.npz", ["nll"])


@pytest.mark.parametrize(
    "content", [b"no array", b"\x93NUMPY\x01\x00\x05\x00{((\n\n", b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f8'}\n"]
)
def test_a_part_that_is_no_array(tmp_path: Path, content: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "arrays.npz", "w") as archive:
        archive.writestr("nll.npy", content)
    with pytest.raises(DataError, match=r"should hold the array|cannot be read as arrays"):
        read_arrays(tmp_path / "arrays.npz", ["nll"])
