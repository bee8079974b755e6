"""Writing files so that a reader never meets half of one, and reading those that a disk may have damaged."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hsl.config import DataError


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file beside ``path``, flush it to the disk, then rename.

    Whoever looks sees the old content or the new, also after ``kill -9`` or on a full disk.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")  # a name has 255 bytes
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):  # of a full disk Python does not say which file it was
            error.filename = str(path)
        raise


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        DataError: it is missing or cannot be read.
    """
    try:
        return path.read_text(encoding="utf8")
    except FileNotFoundError:
        raise DataError(f"`{path}` is missing.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"`{path}` cannot be read: {error}.") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: the file is missing, cannot be read, or is something else.
    """
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"`{path}` is no JSON: {error}. Restore it, or make the run anew.") from None
    if not isinstance(content, dict):
        raise DataError(f"`{path}` should be a JSON object. Found {type(content).__name__}.")
    return content
