"""Tables with an image and a mask column: a data set of a hub, or its parquet files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets

from hsl.batch import IGNORE_INDEX
from hsl.config.ranges import NonNegativeInt, PositiveInt
from hsl.data.files.records import Catalogue, FileSource, Record, Source
from hsl.data.formats.description import describe
from hsl.data.formats.findings import Findings, did_you_mean
from hsl.data.formats.hf_stream import (
    SHUFFLE_BUFFER,
    BlockSource,
    bytes_of,
    chosen,
    fingerprint_of,
    head_of,
    in_one_sentence,
    kept_columns,
    rows_of_groups,
    stream_files,
)  # fmt: skip
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
        return bytes_of(_open(self.file)[self.row].column(self.column)[0].as_py(), self.name)

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
    streaming: bool | PositiveInt = False,
) -> Catalogue:
    """Read a table of pictures and masks. Nothing is decoded, and the pictures stay on disk.

    Without ``streaming`` parquet files become Arrow files in the cache of ``datasets`` (once, and as large), of which
    any picture can be read at once. With it they stay where they are, on disk or on the hub, and are read by row
    groups: training takes them in random order and mixes pictures within the shuffle buffer, see `BatchOrder`.

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
        streaming: Whether parquet files are read as they lie; a number is the shuffle buffer, in pictures.

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
    buffer = SHUFFLE_BUFFER if streaming is True else int(streaming)
    with in_one_sentence(str(root)):
        parts: Mapping[str, Any] = stream_files(str(root), split) if buffer else _load(str(root), split)
    records: list[Record] = []
    for part, content in parts.items():
        where, official = f"{root}:{part}", part if len(parts) > 1 else None
        if buffer:
            first = 1 + max((record.block or 0 for record in records), default=-1)
            records += _stream_part(where, content, columns, official, buffer, first)
        else:
            records += _read_part(where, content, columns, official)
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
        shuffle_buffer=buffer or None,
    )


def _plain(colours: Any) -> Any:
    """Lists of lists out of what a config holds."""
    return [_plain(one) for one in colours] if isinstance(colours, Sequence) else colours


def _load(root: str, split: str | None) -> dict[str, datasets.Dataset]:
    """Tables by the name of their part, backed by Arrow files on disk."""
    path = Path(root)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        loaded = datasets.load_from_disk(root, keep_in_memory=False)
    elif path.is_file():
        loaded = datasets.load_dataset("parquet", data_files=root, keep_in_memory=False)
    else:
        loaded = datasets.load_dataset(root, keep_in_memory=False)
    parts = {"train": loaded} if isinstance(loaded, datasets.Dataset) else dict(loaded)
    return chosen(parts, split)


def _read_part(where: str, table: datasets.Dataset, columns: _Columns, part: str | None) -> Iterator[Record]:
    _check_columns(where, table, columns)
    _check_part(where, part)
    words = {column: _words(table, column) for column in {*columns.attributes, columns.id} if column}
    number = 0
    for file in (entry["filename"] for entry in table.cache_files):
        fingerprint = FileSource(Path(file)).stamp()
        for row in range(len(_open(file))):
            image, mask = (
                CellSource(f"{where}#{number}/{column}", file, row, column, fingerprint)
                for column in (columns.image, columns.mask)
            )
            yield _record(image, mask, columns, words, number, part)
            number += 1


def _stream_part(
    where: str, files: Sequence[str], columns: _Columns, part: str | None, buffer: int, block: int
) -> Iterator[Record]:
    """The same of parquet files; row groups are numbered from ``block`` on."""
    _check_part(where, part)
    number = 0
    for file in files:
        _check_columns(where, head_of(file), columns)
        small = {column for column in (*columns.attributes, columns.id) if column}
        table = head_of(file, sorted(small)) if small else None
        words = {} if table is None else {column: _words(table, column) for column in small}
        fingerprint, groups = fingerprint_of(file), rows_of_groups(file)
        kept, in_file = kept_columns(groups, buffer), 0
        for group, length in enumerate(groups):
            for row in range(length):
                image, mask = (
                    BlockSource(f"{where}#{number}/{column}", file, group, row, column, fingerprint, kept)
                    for column in (columns.image, columns.mask)
                )
                yield replace(_record(image, mask, columns, words, in_file, part, number), block=block + group)
                number, in_file = number + 1, in_file + 1
        block += len(groups)


def _record(
    image: Source,
    mask: Source,
    columns: _Columns,
    words: Mapping[str, Sequence[str]],
    row: int,
    part: str | None,
    number: int | None = None,
) -> Record:
    """The record of a row of what ``words`` holds; ``number`` counts over all files of the part."""
    number = row if number is None else number
    id_ = words[columns.id][row] if columns.id else f"{part}_{number:06d}" if part else f"{number:06d}"
    return Record(
        # an id becomes part of file names
        id=id_.replace("/", "_").replace("\\", "_"),
        image=image,
        mask=mask,
        instances=None,
        attributes={name: words[name][row] for name in columns.attributes if words[name][row]},
        split=official_part(part) if part else None,
    )


def _check_part(where: str, part: str | None) -> None:
    if part is not None and official_part(part) is None:
        raise DataError(f"`{where}` is none of train, validation, test. Choose a part by `data.reader.split`.")


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
