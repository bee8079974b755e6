"""The folder that a verb fills: what the verb did not write there is never changed, moved or deleted."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from hsl.errors import ConfigError
from hsl.files.io import sha256_of, write_atomically

MARKER = ".hsl.json"
"""Lists the files that verbs wrote into a folder, each with the SHA-256 that it may have."""
_PARTIAL, _LOCK = ".hsl-partial", ".hsl.lock"
_FORMAT, _MOST_NAMED = 1, 3
_JUNK = ("Thumbs.db", "ehthumbs.db", "desktop.ini")


class OutputFolder:
    """A folder that a verb may fill: a new one, an empty one, or one in which only its own files lie, unchanged.

    Files are written below `work`, a hidden folder inside. On leaving without an error they take their places, and
    files of an earlier call that this one did not write again are removed; on leaving with one nothing has changed.
    The list of files is written before any of them is moved, so that the next call knows its own after ``kill -9``.
    Hidden files are nobody's concern: no verb writes any but the list.

    Args:
        path: the folder; a link to one is followed.
        verb: whose folder it is.
        inputs: what the verb reads; none of it may lie in the folder.
        only: these files alone are the verb's, in a folder that others share: no other file is looked at.
        resume: keep what a killed call left in `work`.
        way_out: what an error advises.

    Raises:
        ConfigError: on entering: there is something else in the folder, or another process fills it.

    Example:
        >>> with OutputFolder(getfixture("tmp_path") / "out", "predict") as output:
        ...     _ = (output.work / "areas.csv").write_text("id")
        >>> (output.path / "areas.csv").read_text()
        'id'
    """

    def __init__(
        self,
        path: Path | str,
        verb: str,
        *,
        inputs: Iterable[Path | str] = (),
        only: Sequence[str] = (),
        resume: bool = False,
        way_out: str = "Choose another `output`.",
    ) -> None:
        self.path, self.work = Path(path), Path(path) / _PARTIAL
        self._verb, self._inputs, self._only, self._resume = verb, [Path(each) for each in inputs], only, resume
        self._way_out = way_out
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        self._check_place()
        self._is_new = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.path / _LOCK, self._way_out)
        try:
            self._listed = read_marker(self.path)
            self._check_content()
        except BaseException:
            self._release()
            raise
        for leftover in self.path.glob(f".{MARKER}.*"):
            leftover.unlink()
        if not self._resume:
            shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self._publish()
            if not (self._resume and kind):
                shutil.rmtree(self.work)
        finally:
            self._release()

    def _check_place(self) -> None:
        if self.path.is_symlink() and not self.path.exists():
            raise ConfigError(f"`{self.path}` should be a folder. Found a link to nothing. {self._way_out}")
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"`{self.path}` should be a folder. Found a file. {self._way_out}")
        own = self.path.resolve()
        for given in self._inputs:
            if given.exists() and given.resolve().is_relative_to(own):
                raise ConfigError(f"`{self.path}` should neither be nor hold `{given}`, which is read. {self._way_out}")

    def _check_content(self) -> None:
        mine = self._listed.get(self._verb, {})
        names = self._only or sorted(_files(self.path))
        strange = [name for name in names if _is_taken(self.path, name, mine)]
        if not strange:
            return
        shown = ", ".join(f"`{name}`" for name in strange[:_MOST_NAMED])
        more = f" and {len(strange) - _MOST_NAMED} more" if len(strange) > _MOST_NAMED else ""
        if all(name in mine for name in strange):
            found, rule = f"changed since: {shown}{more}", "as"
        elif self._listed:
            found, rule = f"files that `hsl {self._verb}` did not write: {shown}{more}", "as"
        else:
            found = f"{shown}{more} (an older version kept no list of its files; move such a folder away)"
            rule = "new, empty or as"
        raise ConfigError(
            f"`{self.path}` should be {rule} `hsl {self._verb}` left it, for nothing else is replaced. Found {found}. "
            f"{self._way_out}"
        )

    def _publish(self) -> None:
        mine, moved = self._listed.get(self._verb, {}), sorted(_files(self.work))
        new = {name: [sha256_of(self.work / name)] for name in moved}
        if taken := [name for name in moved if _is_taken(self.path, name, mine)]:
            kept = self.work.rename(self.path / f"{_PARTIAL}-kept")  # hours of work are not thrown away
            raise ConfigError(
                f"`{self.path / taken[0]}` came there meanwhile and is not replaced. What was made lies in `{kept}`."
            )
        both = {name: [*mine.get(name, []), *new.get(name, [])] for name in (*mine, *new)}
        self._write_marker(both)
        stale = [] if self._only else [name for name in mine if name not in new and _is_listed(self.path, name, mine)]
        for name in stale:
            (self.path / name).unlink()
            _remove_empty(self.path / name, self.path)
        for name in moved:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.work / name).replace(self.path / name)
        self._write_marker({**mine, **new} if self._only else new)

    def _write_marker(self, files: Mapping[str, Sequence[str]]) -> None:
        content = {"written_by": "hsl", "format": _FORMAT, "files": {**self._listed, self._verb: files}}
        write_atomically(self.path / MARKER, json.dumps(content, indent=1, ensure_ascii=False).encode())

    def _release(self) -> None:
        """Let go of the folder; one that was made here and stayed empty is removed."""
        (self.path / _LOCK).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
        if self._is_new and not any(self.path.iterdir()):
            self.path.rmdir()


def read_marker(folder: Path) -> dict[str, dict[str, list[str]]]:
    """By verb the files that it wrote into a folder, with the SHA-256 that each may have; nothing without a list.

    Raises:
        ConfigError: the list is damaged.
    """
    path = folder / MARKER
    if not path.exists():
        return {}
    try:
        content: Any = json.loads(path.read_text(encoding="utf8"))
        files = content["files"]
        if any(Path(name).is_absolute() or ".." in Path(name).parts for names in files.values() for name in names):
            raise ValueError("a name that leads out of the folder")
        return {verb: {name: list(hashes) for name, hashes in names.items()} for verb, names in files.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"`{path}` should list the files that hsl wrote there. Found: {error}. Delete it, and the files if they "
            "are not needed."
        ) from error


def strange_files(folder: Path) -> list[str]:
    """Files in a folder that no verb wrote, or that were changed since."""
    mine = {name: hashes for files in read_marker(folder).values() for name, hashes in files.items()}
    return [name for name in sorted(_files(folder)) if not _is_listed(folder, name, mine)]


def write_marker(folder: Path, verb: str) -> None:
    """List every file of a folder as written by one verb."""
    files = {name: [sha256_of(folder / name)] for name in sorted(_files(folder))}
    content = {"written_by": "hsl", "format": _FORMAT, "files": {verb: files}}
    write_atomically(folder / MARKER, json.dumps(content, indent=1, ensure_ascii=False).encode())


def _files(folder: Path) -> Iterator[str]:
    """Names of the files below a folder, links of any kind among them; hidden ones are left out."""
    for where, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(where) / name).is_symlink()]
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in (*files, *links):
            if not name.startswith(".") and name not in _JUNK:
                yield (Path(where) / name).relative_to(folder).as_posix()


def _is_taken(folder: Path, name: str, mine: Mapping[str, Sequence[str]]) -> bool:
    """Whether something else stands in the place of a file; a folder that is in the way fails by itself."""
    path = folder / name
    is_there = path.is_symlink() or (path.exists() and not path.is_dir())
    return is_there and not _is_listed(folder, name, mine)


def _is_listed(folder: Path, name: str, mine: Mapping[str, Sequence[str]]) -> bool:
    path = folder / name
    return name in mine and path.is_file() and not path.is_symlink() and sha256_of(path) in mine[name]


def _remove_empty(path: Path, top: Path) -> None:
    """The folders above a file that are empty now, up to ``top``."""
    for folder in path.relative_to(top).parents:
        if folder == Path() or any((top / folder).iterdir()):
            return
        (top / folder).rmdir()


def _locked(path: Path, way_out: str) -> IO[str]:
    while True:
        lock = path.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
                return lock
        except BlockingIOError:
            lock.close()
            raise ConfigError(f"`{path.parent}` is filled by another process. Wait for it to end. {way_out}") from None
        lock.close()  # the one before us has just removed its file
