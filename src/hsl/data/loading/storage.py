"""Where the picture cache keeps its bytes."""

import errno
import mmap
import os
from pathlib import Path
from typing import Any

from hsl.errors import ConfigError, DataError


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

    Not written through the map: on a full disk that ends the process with SIGBUS instead of an error.
    """

    def __init__(self, path: Path, length: int) -> None:
        self._path, self._length = path, length
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            os.truncate(self._descriptor, length)
            self.view = memoryview(mmap.mmap(self._descriptor, length, prot=mmap.PROT_READ))
        except OSError as error:
            raise ConfigError(
                f"`{path}` cannot be opened for `data.cache = disk` ({error.strerror}). "
                "Set `data.cache_dir` to a folder that can be written, or `data.cache=ram`."
            ) from error

    def write(self, offset: int, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                written = os.pwrite(self._descriptor, rest, offset)
                rest, offset = rest[written:], offset + written
        except OSError as error:
            way_out = (
                "Free some space, set `data.cache_dir` to a larger disk, or lower `data.cache_gigabytes`."
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
                else "Set `data.cache_dir` to another folder, or `data.cache=null`."
            )
            raise DataError(f"`{self._path}` cannot be written ({error.strerror}). {way_out}") from error

    def __reduce__(self) -> Any:
        return SparseFile, (self._path, self._length)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)
