"""Tables with an image and a mask column: a data set of a hub, or its parquet files."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets

from hsl.batch import IGNORE_INDEX
from hsl.config.ranges import NonNegativeInt
from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.data.formats.description import describe
from hsl.data.formats.findings import Findings, did_you_mean
from hsl.data.formats.tables import official_part
from hsl.errors import DataError


@dataclass(frozen=True, slots=True)
class CellSource:
    """The bytes in one cell of a memory-mapped table, which each process opens when it first reads from it.

    Attributes:
        name: ``data set:part#row/column``.
        file: The Arrow file that the cell is in.
        row: Its row in that file.
        column: Its column.
        fingerprint: Changes when the file changes.
    """

    name: str
    file: str
    row: int
    column: str
    fingerprint: str

    def read(self) -> bytes:
        cell = _open(self.file)[self.row].column(self.column)[0].as_py()
        if isinstance(cell, Mapping):
            if cell["bytes"] is None and cell.get("path"):
                return FileSource(Path(cell["path"])).read()
            cell = cell["bytes"]
        if not isinstance(cell, bytes):
            raise DataError(f"`{self.name}` holds no picture. Complete the data set or leave the row out.")
        return cell

    def stamp(self) -> str:
        return f"{self.fingerprint}-{self.row}-{self.column}"


@dataclass(frozen=True, slots=True)
class _Columns:
    image: str
    mask: str
    id: str | None
    attributes: tuple[str, ...]


def read_hub(
    root: str | Path,
    image_column: str,
    mask_column: str,
    classes: Sequence[str],
    id_column: str | None = None,
    split: str | None = None,
    attributes: Sequence[str] = (),
    palette: Mapping[str, Sequence[int]] | None = None,
    ignore_index: NonNegativeInt = IGNORE_INDEX,
    value_range: Sequence[float] | None = None,
    values: Mapping[int, str] | None = None,
) -> Catalogue:
    """Read a table of pictures and masks. Nothing is decoded, and the pictures stay on disk.

    Args:
        root: The name of a data set on the hub, a parquet file, a folder with parquet files, or a folder
            written by ``Dataset.save_to_disk``. What was read from the hub once needs no network.
        image_column: The column of the pictures.
        mask_column: The column of the masks.
        classes: Names of the classes, index 0 first.
        id_column: The column of the ids. Default: the number of the row.
        split: The part to read. Default: all; if there are several they are the official split.
        attributes: Columns that tell something about a picture as a whole; one called ``group`` is the group.
        palette: Class name (or ``ignore``) -> ``[red, green, blue]``, if masks are colours.
        ignore_index: The value of pixels that do not count.
        value_range: ``[black, white]`` of pictures with more than 8 bits.
        values: Number in a grey mask -> class name (or ``ignore``); without it the numbers are indices.

    Returns:
        The catalogue, sorted by id.

    Raises:
        DataError: There is no such data set, part or column, or an id stands twice.
    """
    findings = Findings()
    described = {
        "classes": list(classes),
        "palette": None if palette is None else {name: _plain(colour) for name, colour in palette.items()},
        "ignore_index": None if ignore_index == IGNORE_INDEX else ignore_index,
        "value_range": None if value_range is None else list(value_range),
        "values": None if values is None else dict(values),
    }
    description = describe(described, "data.reader", findings)
    findings.raise_if_any(Path(root))
    columns = _Columns(image_column, mask_column, id_column, tuple(attributes))
    parts = _load(str(root), split)
    records = [
        record
        for part, table in parts.items()
        for record in _read_part(f"{root}:{part}", table, columns, part if len(parts) > 1 else None)
    ]
    by_id = {record.id: record for record in records}
    twice = [record.id for record in records if by_id[record.id] is not record]
    findings.add_names(twice, f"Ids in `{root}` should differ. Repeated are", "Set `data.reader.id_column`.")
    findings.raise_if_any(Path(root))
    return Catalogue(
        name=Path(root).stem,
        records=tuple(by_id[id_] for id_ in sorted(by_id)),
        classes=description.classes,
        palette=description.palette,
        value_range=description.value_range,
        ignore_index=description.ignore_index,
        values=description.values,
    )


def _plain(colours: Any) -> Any:
    """Lists of lists out of what a config holds."""
    return [_plain(one) for one in colours] if isinstance(colours, Sequence) else colours


def _load(root: str, split: str | None) -> dict[str, datasets.Dataset]:
    """Tables by the name of their part, backed by Arrow files on disk."""
    path = Path(root)
    try:
        with _quiet():
            if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
                loaded = datasets.load_from_disk(root, keep_in_memory=False)
            elif path.is_file():
                loaded = datasets.load_dataset("parquet", data_files=root, keep_in_memory=False)
            else:
                loaded = datasets.load_dataset(root, keep_in_memory=False)
    # a hub that cannot be reached, a name that is unknown, and a damaged file each come as one of these
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if path.exists():
            raise DataError(
                f"`{root}` cannot be read as a table: {reason}. Set `data.root` to a parquet file, "
                "a folder of them, or one written by `Dataset.save_to_disk`."
            ) from error
        raise DataError(
            f"`{root}` is no file or folder here, nor could it be had from the hub: {reason}. Download its "
            "parquet files where there is a network and set `data.root` to their folder."
        ) from error
    parts = {"train": loaded} if isinstance(loaded, datasets.Dataset) else dict(loaded)
    if split is None:
        return parts
    if split not in parts:
        raise DataError(f"`data.reader.split` should be one of {list(parts)}. Found `{split}`.")
    return {split: parts[split]}


def _read_part(where: str, table: datasets.Dataset, columns: _Columns, part: str | None) -> Iterator[Record]:
    _check_columns(where, table, columns)
    if part is not None and official_part(part) is None:
        raise DataError(f"`{where}` is none of train, validation, test. Choose a part by `data.reader.split`.")
    words = {column: _words(table, column) for column in {*columns.attributes, columns.id} if column}
    number = 0
    for file in (entry["filename"] for entry in table.cache_files):
        fingerprint = FileSource(Path(file)).stamp()
        for row in range(len(_open(file))):
            image, mask = (
                CellSource(f"{where}#{number}/{column}", file, row, column, fingerprint)
                for column in (columns.image, columns.mask)
            )
            id_ = words[columns.id][number] if columns.id else f"{part}_{number:06d}" if part else f"{number:06d}"
            yield Record(
                # an id becomes part of file names
                id=id_.replace("/", "_").replace("\\", "_"),
                image=image,
                mask=mask,
                instances=None,
                attributes={name: words[name][number] for name in columns.attributes if words[name][number]},
                split=official_part(part) if part else None,
            )
            number += 1


def _check_columns(where: str, table: datasets.Dataset, columns: _Columns) -> None:
    wanted = [columns.image, columns.mask, *columns.attributes, *([columns.id] if columns.id else [])]
    missing = [column for column in wanted if column not in table.column_names]
    if missing:
        way = did_you_mean(missing[0], table.column_names, "Name others with `data.reader`.")
        raise DataError(f"`{where}` should have the columns {missing}. Found {table.column_names}. {way}")
    for column in (columns.image, columns.mask):
        feature = table.features[column]
        is_bytes = isinstance(feature, datasets.Value) and "binary" in feature.dtype
        if not (is_bytes or isinstance(feature, datasets.Image) or (isinstance(feature, dict) and "bytes" in feature)):
            raise DataError(f"The column `{column}` of `{where}` should hold pictures. Found {feature}.")


def _words(table: datasets.Dataset, column: str) -> list[str]:
    """The cells of a column as text; empty where nothing is known."""
    feature = table.features[column]
    cells = table.select_columns([column]).to_dict()[column]
    if isinstance(feature, datasets.ClassLabel):
        return [feature.int2str(cell) if cell is not None and cell >= 0 else "" for cell in cells]
    return ["" if cell is None else str(cell).strip() for cell in cells]


@lru_cache(maxsize=256)
def _open(file: str) -> Any:
    try:
        return datasets.Dataset.from_file(file).with_format("arrow")
    except (OSError, ValueError) as error:
        raise DataError(f"`{file}` cannot be read: {error}. Remove it and let the data set be read anew.") from error


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
