"""Locks of the system: they end with the process that holds them, however it ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hsl.errors import ConfigError


class BusyError(ConfigError):
    """Another process has the lock of what this one wants to write."""


def try_lock(path: Path) -> IO[str] | None:
    """An exclusive lock, until the file is closed; ``None``: another process has it."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One at a time, also between threads, since each opens the file for itself; the others wait."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
