"""A disk without room ends a worker, not a trial: with room again, the study goes on where it stood."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from hsl.errors import DataError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def says_full(sentence: str) -> bool:
    """Whether what a training said is that a disk has no room.

    Example:
        >>> says_full("`last.ckpt`: No space left on device. Free some space."), says_full("`last.ckpt` is broken.")
        (True, False)
    """
    return any(os.strerror(number) in sentence for number in FULL)


@contextlib.contextmanager
def told_of_a_full_disk(folder: Path) -> Iterator[None]:
    """Say so in one sentence where what is written in the folder of a study finds no room.

    Raises:
        DataError: it did not.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DataError(
            f"The disk of `{folder}` should have room. Found: {error.strerror}. Free some space and start the same "
            "command again: what ended is kept, and the trial under way goes on where it stood."
        ) from error
