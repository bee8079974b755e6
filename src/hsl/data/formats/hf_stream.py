"""Parquet files read as they lie, in blocks, instead of being copied into Arrow files first."""

import math
import os
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from hsl.data.files.records import FileSource
from hsl.errors import DataError

SHUFFLE_BUFFER = 1000
"""Pictures, of ``streaming=true``."""
BLOCKS_AHEAD = 2
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BlockSource:
    """The bytes in one cell of a parquet file, of which a whole row group has to be read at once.

    Each process keeps the row groups that it read last, see ``kept``.

    Attributes:
        name: ``data set:part#row/column``.
        file: Path or URL.
        group: Number of the row group in the file.
        row: Number in the row group.
        column: Its column.
        fingerprint: Changes when the file changes.
        kept: Columns of row groups that a process keeps.
    """

    name: str
    file: str
    group: int
    row: int
    column: str
    fingerprint: str
    kept: int

    def read(self) -> bytes:
        return bytes_of(_column(self)[self.row].as_py(), self.name)

    def stamp(self) -> str:
        return f"{self.fingerprint}-{self.group}-{self.row}-{self.column}"


def bytes_of(cell: Any, name: str) -> bytes:
    """The picture in a cell: bytes, or a map with ``bytes`` or the ``path`` of a file.

    Raises:
        DataError: There is none.
    """
    if isinstance(cell, Mapping):
        if cell["bytes"] is None and cell.get("path"):
            return FileSource(Path(cell["path"])).read()
        cell = cell["bytes"]
    if not isinstance(cell, bytes):
        raise DataError(f"`{name}` holds no picture. Complete the data set or leave the row out.")
    return cell


def stream_files(root: str, split: str | None) -> dict[str, list[str]]:
    """Paths or URLs of the parquet files, by the name of their part.

    Raises:
        DataError: There are other files, or no such part.
        OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError: `datasets` finds none.
    """
    path = Path(root)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        raise DataError(
            f"`data.reader.streaming` reads parquet files. Found `{root}`, which `Dataset.save_to_disk` wrote and "
            "which is read from disk anyway. Set `data.reader.streaming=false`."
        )
    given = {"path": "parquet", "data_files": root} if path.is_file() else {"path": root}
    found = datasets.load_dataset_builder(**given).config.data_files or {}
    parts = {str(part): [str(file) for file in files] for part, files in found.items()}
    other = [file for files in parts.values() for file in files if not file.partition("?")[0].endswith(".parquet")]
    if other or not parts:
        raise DataError(
            f"`data.reader.streaming` reads parquet files. Found `{other[0] if other else 'none'}` in `{root}`. "
            "Set `data.reader.streaming=false`, or `data.root` to the folder of its parquet files."
        )
    return chosen(parts, split)


def chosen(parts: Mapping[str, T], split: str | None) -> dict[str, T]:
    """One part, or all.

    Raises:
        DataError: There is no such part.
    """
    if split is None:
        return dict(parts)
    if split not in parts:
        raise DataError(f"`data.reader.split` should be one of {list(parts)}. Found `{split}`.")
    return {split: parts[split]}


def kept_columns(groups: Sequence[int], buffer: int) -> int:
    """How many columns of row groups a process keeps, so that each is read once an epoch.

    A picture moves by at most ``buffer`` places, over so many row groups; picture and mask are two columns.
    """
    return 2 * (math.ceil(buffer / max(1, min(groups, default=1))) + BLOCKS_AHEAD)


def head_of(file: str, columns: Sequence[str] | None = None) -> datasets.Dataset:
    """Some columns of a file in memory, or all without a row: what they are called and hold."""
    parquet = _open(file, os.getpid())
    table = parquet.schema_arrow.empty_table() if columns is None else _read(file, parquet.read, columns=list(columns))
    return datasets.Dataset(table)


def rows_of_groups(file: str) -> list[int]:
    """Number of rows of each row group."""
    metadata = _open(file, os.getpid()).metadata
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def fingerprint_of(file: str) -> str:
    """What changes when the file changes: of a URL what its file system says, a revision or a tag."""
    if "://" not in file:
        return FileSource(Path(file)).stamp()
    system, path = fsspec.core.url_to_fs(file)
    try:
        return str(system.ukey(path))
    except OSError as error:
        raise _unreadable(file, error) from error


_columns: OrderedDict[tuple[str, str, int, str, int], Any] = OrderedDict()


def _column(source: BlockSource) -> Any:
    """The column of a row group; of those that were used last ``kept`` are kept."""
    key = (source.file, source.fingerprint, source.group, source.column, os.getpid())
    if key in _columns:
        _columns.move_to_end(key)
        return _columns[key]
    _check_unchanged(source)
    parquet = _open(source.file, os.getpid())
    table = _read(source.file, parquet.read_row_group, source.group, columns=[source.column])
    _check_unchanged(source)
    _columns[key] = table.column(0)
    while len(_columns) > source.kept:
        _columns.popitem(last=False)
    return _columns[key]


def _check_unchanged(source: BlockSource) -> None:
    if fingerprint_of(source.file) != source.fingerprint:
        raise DataError(
            f"`{source.file}` has changed since the run read it first. Put the old file back and go on with "
            "`resume=last`, or start a new run."
        )


def _read(file: str, read: Any, *given: Any, columns: Sequence[str]) -> Any:
    try:
        return read(*given, columns=list(columns), use_threads=False)  # a forked worker has no threads of the parent
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, error) from error


@lru_cache(maxsize=64)
def _open(file: str, process: int) -> pq.ParquetFile:
    """Once in each process: two that share a descriptor of a URL would read each other's bytes."""
    del process
    try:
        if "://" not in file:
            return pq.ParquetFile(file)
        return pq.ParquetFile(fsspec.open(file, "rb").open())
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: str, error: Exception) -> DataError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return DataError(
        f"`{file}` cannot be read: {reason}. Restore it and go on with `resume=last`, or, where the network is at "
        "fault, download it and set `data.root` to its folder."
    )


@contextmanager
def in_one_sentence(root: str) -> Iterator[None]:
    """One sentence for what `datasets` raises, and no log lines beside it."""
    try:
        with _quiet():
            yield
    # a hub that cannot be reached, a name that is unknown, and a damaged file each come as one of these
    except DataError:
        raise
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if Path(root).exists():
            raise DataError(
                f"`{root}` cannot be read as a table: {reason}. Set `data.root` to a parquet file, "
                "a folder of them, or one written by `Dataset.save_to_disk`."
            ) from error
        raise DataError(
            f"`{root}` is no file or folder here, nor could it be had from the hub: {reason}. Download its "
            "parquet files where there is a network and set `data.root` to their folder."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Progress on a terminal only, and no log lines beside the one error."""
    verbosity, hidden = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if not hidden:
            datasets.enable_progress_bars()
