"""Where decoded pictures lie: memory that forked workers share, or a file that all runs of a machine share."""

import errno
import fcntl
import logging
import mmap
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hsl.errors import ConfigError

PATIENCE_S = 20.0
"""How long one process waits for what another is decoding: that one may have been suspended."""
_LOOK_S = 0.002
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

logger = logging.getLogger(__name__)


class SharedMemory:
    """A zeroed stretch of memory that forked processes share."""

    def __init__(self, length: int) -> None:
        try:
            self._map = mmap.mmap(-1, length)
        except OSError as error:
            raise ConfigError(
                f"There is no room for `data.cache = ram` with {length / 1e9:.1f} GB ({error.strerror}). "
                "Lower `data.cache_gigabytes` or set `data.cache=disk`."
            ) from error
        self.view = memoryview(self._map).toreadonly()

    def write(self, offset: int, data: bytes) -> None:
        self._map[offset : offset + len(data)] = data

    def __reduce__(self) -> Any:
        raise ConfigError(
            "`data.cache = ram` reaches only workers that are forked, which this platform or start method "
            "does not do. Set `data.cache=disk` or `data.num_workers=0`."
        )


class SparseFile:
    """A sparse file, written by system calls and read through a map.

    Not written through the map: on a full disk that ends the process with SIGBUS instead of an error. A file of
    another user that can only be read is used as it is.

    Args:
        path: The file; its folder is made.
        length: Bytes, most of them never written.

    Attributes:
        view: The content.
        writable: Whether this process may add to it.

    Raises:
        ConfigError: The file can be neither written nor read.
    """

    def __init__(self, path: Path, length: int) -> None:
        self.path, self._length = path, length
        try:
            self._descriptor, self.writable = _open(path, length)
            self._map = mmap.mmap(self._descriptor, length, prot=mmap.PROT_READ)
        except OSError as error:
            raise ConfigError(
                f"`{path}` cannot be opened for `data.cache = disk` ({error.strerror}). "
                "Set `data.cache_dir` to a folder that can be written, or `data.cache=ram`."
            ) from error
        self.view = memoryview(self._map)

    def write(self, offset: int, data: bytes) -> None:
        """Raises ``OSError`` where the disk is full or broken."""
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._descriptor, rest, offset)
            rest, offset = rest[written:], offset + written

    def expect(self, offset: int, length: int) -> None:
        """Let the system read a stretch in one go instead of page by page."""
        start = offset // mmap.PAGESIZE * mmap.PAGESIZE
        self._map.madvise(mmap.MADV_WILLNEED, start, min(offset + length, self._length) - start)

    def forget(self) -> None:
        """Give back the memory that what was read takes in this process; the system may keep the pages, or not."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def claim(self, place: int) -> bool:
        """Take a byte of the file for this process, which keeps it until `release` or its end, however it ends.

        Returns:
            ``False``: another process has it. ``True`` also where the file system knows no locks.
        """
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError as error:
            return error.errno in _NO_LOCKS
        return True

    @contextmanager
    def claimed(self, place: int) -> Iterator[None]:
        """`claim`, after a while in any case."""
        end = time.monotonic() + PATIENCE_S
        mine = self.claim(place)
        while not mine and time.monotonic() < end:
            time.sleep(_LOOK_S)
            mine = self.claim(place)
        try:
            yield
        finally:
            if mine:
                try:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, place)
                except OSError as error:
                    logger.debug("`%s`: %s", self.path, error)  # a file system without locks

    def __reduce__(self) -> Any:
        return SparseFile, (self.path, self._length)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def room_for(path: Path) -> int:
    """Bytes that a cache at ``path`` may take of its disk: half of what is free, what it has itself counted as free.

    The other half is left to the checkpoints of the runs.
    """
    own = path.stat().st_blocks * 512
    return (shutil.disk_usage(path.parent).free + own) // 2


def _open(path: Path, length: int) -> tuple[int, bool]:
    """A descriptor, and whether it can be written to."""
    closing = getattr(os, "O_CLOEXEC", 0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | closing, 0o666)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not path.is_file():
            raise
        descriptor = os.open(path, os.O_RDONLY | closing)
        if os.fstat(descriptor).st_size == length:
            return descriptor, False
        os.close(descriptor)
        raise
    os.truncate(descriptor, length)
    return descriptor, True
