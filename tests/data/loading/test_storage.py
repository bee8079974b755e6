import multiprocessing
import os
import pickle
import resource
from pathlib import Path

import pytest

from hsl.data.loading.storage import SharedMemory, SparseFile
from hsl.errors import ConfigError, DataError

FORK = multiprocessing.get_context("fork")


@pytest.fixture(params=[SharedMemory, SparseFile])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SharedMemory | SparseFile:
    return SharedMemory(1000) if request.param is SharedMemory else SparseFile(tmp_path / "new/file", 1000)


def test_begins_with_zeros_and_keeps_what_is_written(store: SharedMemory | SparseFile) -> None:
    assert bytes(store.view) == bytes(1000)
    store.write(500, b"abc")
    store.write(997, b"xyz")
    assert bytes(store.view[499:504]) == b"\0abc\0"
    assert bytes(store.view[996:]) == b"\0xyz"
    assert store.view.readonly


def test_forked_process_writes_for_all(store: SharedMemory | SparseFile) -> None:
    process = FORK.Process(target=store.write, args=(3, b"child"))
    process.start()
    process.join(60)
    assert bytes(store.view[:10]) == b"\0\0\0child\0\0"


def test_file_is_sparse_and_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    first = SparseFile(path, 10**10)
    first.write(10**9, b"far")
    assert path.stat().st_size == 10**10
    assert path.stat().st_blocks * 512 < 10**6
    for second in (SparseFile(path, 10**10), pickle.loads(pickle.dumps(first))):
        assert bytes(second.view[10**9 : 10**9 + 4]) == b"far\0"


def test_write_that_the_system_cuts_short_and_then_refuses(tmp_path: Path) -> None:
    """A real refusal: of the file's size, by the limit of a process."""

    def write() -> None:
        store = SparseFile(tmp_path / "file", 10**6)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            store.write(4000, b"1" * 3000)
        except DataError as error:
            (tmp_path / "message").write_text(str(error))
        store.write(4000, b"2" * 900)

    process = FORK.Process(target=write)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    message = (tmp_path / "message").read_text()
    assert message.startswith(f"`{tmp_path / 'file'}` cannot be written (File too large). Free some space")
    content = SparseFile(tmp_path / "file", 10**6).view
    assert bytes(content[4000:5001]) == b"2" * 900 + b"1" * 100 + b"\0"


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be opened for `data\.cache = disk`"):
        SparseFile(tmp_path / "file/cache", 10)


def test_error_other_than_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SparseFile(tmp_path / "file", 10)

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pwrite", broken)
    with pytest.raises(DataError, match=r"Input/output error\)\. Set `data\.cache_dir` to another folder"):
        store.write(0, b"1")


def test_memory_cannot_be_sent() -> None:
    with pytest.raises(ConfigError, match="reaches only workers that are forked"):
        pickle.dumps(SharedMemory(10))


def test_more_memory_than_there_is() -> None:
    with pytest.raises(ConfigError, match=r"no room for `data\.cache = ram` with 1000000000\.0 GB"):
        SharedMemory(10**18)
