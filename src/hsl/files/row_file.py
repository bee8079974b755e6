"""The JSON lines of the metric pool: one line per picture, appended whole, sorted at the end."""

import json
import os
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

from hsl.errors import DataError
from hsl.files.io import write_atomically

Key = tuple[str, str]  # part, id


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file that is complete or was left by a process that was killed.

    Each has ``id``, ``part``, ``checksum``, ``metrics`` (per metric its result, null for NaN) and
    ``errors`` (per failed metric ``type``, ``message`` and ``traceback``). A last line that was cut off is
    left out: its picture is not there.

    Raises:
        DataError: another line is not valid JSON, or a picture appears twice; the message names file and line.
    """
    seen: set[Key] = set()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                row: dict[str, Any] = json.loads(line)
                key = row["part"], row["id"]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}, line {number}, is no row of metrics. Delete the line and resume.") from error
            if key in seen:
                raise DataError(f"{path}, line {number}, holds {key[1]!r} ({key[0]}) for the second time. Delete one.")
            seen.add(key)
            yield row


def join_rows(path: Path, others: Sequence[Path]) -> None:
    """Move the lines of other files into one, sorted by part and id; the last line of a picture stands.

    Raises:
        DataError: a file cannot be read.
    """
    if not others:
        return
    lines: dict[Key, bytes] = {}
    for each in (path, *others):
        if each.exists():
            whole = zip(read_rows(each), each.read_bytes().splitlines(keepends=True), strict=False)
            lines |= {(row["part"], row["id"]): line for row, line in whole}
    write_atomically(path, b"".join(line for _, line in sorted(lines.items())))
    for each in others:
        each.unlink()


class RowFile:
    """A file of rows that is being written.

    Args:
        path: the file; its folder is made.
        resume: go on with the file that is there; what cannot be kept is dropped from it.
        metrics: names of the metrics. A line with others, or with an error, is not kept.

    Attributes:
        kept: checksum of each picture whose line was taken over from an earlier run.

    Raises:
        ValueError: the file exists and ``resume`` is false.
        DataError: the file that is there cannot be read.
    """

    def __init__(self, path: Path, *, resume: bool, metrics: Set[str]) -> None:
        self.path = path
        self.kept: dict[Key, str] = {}
        if path.exists():
            if not resume:
                raise ValueError(f"`path` should not exist yet. Found {path}. Delete it or give `resume=True`.")
            rows = [row for row in read_rows(path) if row["metrics"].keys() == metrics and not row["errors"]]
            self.kept = {(row["part"], row["id"]): row["checksum"] for row in rows}
            self._rewrite(self.kept.keys())
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    def append(self, line: bytes) -> None:
        """Add a line in one system call, so that a kill leaves it whole or absent.

        Raises:
            OSError: the disk is full.
        """
        if self._file.write(line) != len(line):
            raise OSError(f"{self.path}: a line could not be written whole. Make room and resume.")

    def forget(self, key: Key) -> None:
        """Drop the line of a picture that is to be scored anew."""
        del self.kept[key]
        self._file.close()
        self._rewrite({(row["part"], row["id"]) for row in read_rows(self.path)} - {key})
        self._file = self.path.open("ab", buffering=0)

    def sort(self) -> None:
        """Order the lines by part and id: the file no longer tells which worker was faster."""
        self._rewrite({(row["part"], row["id"]) for row in read_rows(self.path)}, sort=True)

    def close(self) -> None:
        """Flush to the disk and close."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def _rewrite(self, wanted: Set[Key], *, sort: bool = False) -> None:
        before = self.path.read_bytes()
        lines = before.splitlines(keepends=True)
        rows = zip(read_rows(self.path), lines, strict=False)
        kept = [((row["part"], row["id"]), line) for row, line in rows if (row["part"], row["id"]) in wanted]
        if sort:
            kept.sort()
        after = b"".join(line for _, line in kept)
        if after != before:
            write_atomically(self.path, after)
