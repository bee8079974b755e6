"""Writing files so that a reader never meets half of one, and reading those that may be damaged or hostile."""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import stat
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.errors import DataError

TEMPORARY = ".partial"
"""How the name of a file ends that is being written."""
LARGEST = 2**28
"""Bytes of a table or page that is read whole; splits.json of a million pictures has a fifth of it."""
DEEPEST = 50
"""Levels of a YAML file; ours have ten."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file beside ``path``, flush it to the disk, then rename.

    Whoever looks sees the old content or the new, also after ``kill -9`` or on a full disk. The temporary file is
    locked while it is written, so `clear_temporary` tells those of living processes from those of killed ones.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = _locked_temporary(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)  # within: a file that is closed is no longer locked
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):  # of a full disk Python does not say which file it was
            error.filename = str(path)
        raise


def read_bytes(path: Path, most: int = LARGEST) -> bytes:
    """The content of a regular file: a pipe would never end, and neither would a device.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        DataError: it is missing, too large, no regular file, or cannot be read.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:  # Path.open takes no opener
            status = os.fstat(file.fileno())
            regular, size = stat.S_ISREG(status.st_mode), status.st_size
            # not read(most): Python makes room for that many bytes first, and memory may be what ran out
            content = file.read() if regular and size <= most else b""
    except FileNotFoundError:
        raise DataError(f"`{path}` is missing.") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise DataError(f"`{path}` cannot be read: {error}.") from None
    if not regular:
        raise DataError(f"`{path}` should be a regular file. Found a folder, a pipe or a device. Restore it.")
    if size > most:
        raise DataError(f"`{path}` should have at most {most} bytes. Found {size}. Restore it, or make it anew.")
    return content


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def clear_temporary(folder: Path) -> None:
    """Delete the temporary files of killed processes, at any depth below a folder; those of living ones stay."""
    for path in folder.rglob(f".*{TEMPORARY}"):
        if path.is_file() and not path.is_symlink():
            with (
                contextlib.suppress(OSError),
                path.open("rb") as file,
            ):  # a living process holds its lock, or it is gone
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _locked_temporary(path: Path) -> tuple[int, str]:
    while True:
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name[:40]}.", suffix=TEMPORARY
        )  # a name has 255 bytes
        with contextlib.suppress(OSError):  # some network file systems have no locks; theirs are never cleared
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, temporary
        os.close(handle)  # cleared between the two calls above


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as a compressed ``.npz``, which keeps a CRC-32 of each, atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())


def read_arrays(path: Path, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """The named arrays of an ``.npz``, each as it was written, and never as code.

    Raises:
        DataError: the file is missing, damaged or something else, or lacks an array.
    """
    if not path.is_file():
        raise DataError(f"`{path}` is missing.")
    check_archive(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in names if name in stored.files}
    except (*_UNREADABLE, LookupError, SyntaxError, TypeError, MemoryError, tokenize.TokenError) as error:
        raise DataError(f"`{path}` cannot be read as arrays: {error}.") from None
    for name in names:
        if not isinstance(arrays.get(name), np.ndarray):  # a part that is no array comes as its bytes
            raise DataError(f"`{path}` should hold the array `{name}`. Found none. Restore it, or make it anew.")
    return arrays


def check_archive(path: Path) -> None:
    """Compare every part of a zip archive (``.ckpt``, ``.npz``) with its CRC-32, and their number with the one it says.

    Raises:
        DataError: a byte that counts has changed, the file was cut off, or it is no such archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            unlike = next((entry.filename for entry in entries if not _is_plain(entry)), archive.testzip())
        with path.open("rb") as file:
            file.seek(-_END.size, os.SEEK_END)
            *_, number, _, _, _ = _END.unpack(file.read())
    except _UNREADABLE as error:
        raise DataError(f"`{path}` is damaged: {error}.") from None
    if number != min(len(entries), _MOST_COUNTED):  # Python passes over the number: a part could be gone
        raise DataError(f"`{path}` is damaged: it should have {number} parts. Found {len(entries)}.")
    if unlike:
        raise DataError(f"`{path}` is damaged: the checksum of its `{unlike}` does not match.")


_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, OverflowError, zipfile.BadZipFile, zlib.error, struct.error)
_END = struct.Struct("<4s4H2LH")  # the last record of an archive without comment: the fourth number counts its parts
_MOST_COUNTED = 0xFFFF
_DOS_FOLDER = 0x10


def _is_plain(entry: zipfile.ZipInfo) -> bool:
    """Whether all readers agree on what an entry is: torch looks at flags and sizes that Python passes over."""
    stored = entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size
    return (stored or entry.compress_type == zipfile.ZIP_DEFLATED) and not entry.external_attr & _DOS_FOLDER


def check_regular(path: Path) -> None:
    """Refuse what is neither a regular file nor a link to one: who reads a pipe may wait for ever.

    Raises:
        OSError: it is missing, or something else; ``strerror`` says what.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        what = kinds.get(stat.S_IFMT(mode), "a device")
        raise OSError(errno.EINVAL, f"it is {what}, not a file", str(path))


def read_regular(path: Path) -> bytes:
    """All bytes of a regular file, however many.

    Raises:
        OSError: see `check_regular`; or it cannot be read.
    """
    check_regular(path)
    return path.read_bytes()


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        DataError: it is missing or cannot be read.
    """
    try:
        return read_bytes(path).decode("utf8")
    except UnicodeDecodeError as error:
        raise DataError(f"`{path}` cannot be read: {error}.") from None


class Page(dict[str, Any]):
    """A JSON object that was read from a file, or is in one. A key that it lacks is an error that names the file."""

    path: Path

    def __missing__(self, key: str) -> Any:
        raise DataError(f"`{self.path}` should have the key `{key}`. Found none. Restore it, or make the run anew.")


def read_json(path: Path) -> Page:
    """A JSON object.

    Raises:
        DataError: the file is missing, cannot be read, or is something else; of what is read: a key is not there.
    """

    def page_of(pairs: list[tuple[str, Any]]) -> Page:
        page = Page(pairs)
        page.path = path
        return page

    content = parse_json(read_text(path), path, page_of)
    if not isinstance(content, Page):
        raise DataError(f"`{path}` should be a JSON object. Found {type(content).__name__}.")
    return content


def parse_json(text: str | bytes, path: Path, object_of: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """What JSON says; one that is nested too deeply, or has a number of thousands of digits, is none.

    Args:
        text: the content of the file.
        path: the file, for messages.
        object_of: makes an object from its pairs; ``None``: a dictionary.

    Raises:
        DataError: the text is something else; the message names the file.
    """
    try:
        return json.loads(text, object_pairs_hook=object_of)
    except (ValueError, RecursionError) as error:
        raise DataError(f"`{path}` is not valid JSON: {error}. Restore it, or make the run anew.") from None


def null_for_nan(node: Any) -> Any:
    """JSON has no NaN: what is not known is null."""
    if isinstance(node, Mapping):
        return {str(key): null_for_nan(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [null_for_nan(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


def read_yaml(path: Path) -> str:
    """The text of a YAML file that holds maps, lists and plain values, and no more than its length promises.

    Anchors are refused, because a page of them grows to gigabytes, and so are tags, which choose types.

    Raises:
        DataError: it is missing, cannot be read, or is something else.
    """
    import yaml  # an exported model runs without it

    text, depth = read_text(path), 0
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
                raise DataError(f"`{path}` should be plain YAML. Found an anchor or a tag. Write the value out.")
            if depth > DEEPEST:
                raise DataError(f"`{path}` should have at most {DEEPEST} levels. Found more. Restore it.")
    except (yaml.YAMLError, RecursionError) as error:
        found = str(error).splitlines()[0]
        raise DataError(f"`{path}` is not valid YAML: {found}. Restore it, or make the run anew.") from None
    return text


def _without_waiting(path: str, flags: int) -> int:
    """Opens a pipe that nobody writes to as well, instead of waiting for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)
