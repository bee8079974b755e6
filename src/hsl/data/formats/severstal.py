"""Severstal: defects of steel sheets as one table of run lengths beside the pictures.

The layout of "Severstal: Steel Defect Detection" (Kaggle 2019): 12568 pictures of 256 x 1600 pixels, 4 defects.
"""

import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hsl.batch import IGNORE_INDEX
from hsl.config.ranges import PositiveInt
from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.data.files.run_lengths import decode_runs, read_runs
from hsl.data.formats.findings import Findings
from hsl.data.formats.picture_files import check_root, find_pictures, is_dangling, misnamed
from hsl.data.formats.recognise import tell_what_lies_there
from hsl.data.formats.tables import known_id, read_table, table_rows
from hsl.errors import ConfigError, DataError

IMAGES, TABLE = "train_images", "train.csv"
COLUMNS = ("ImageId", "ClassId", "EncodedPixels")


@dataclass(frozen=True, slots=True)
class RunLengthSource:
    """A mask that is drawn from the rows of a table whenever it is read, as PNG of class indices.

    Attributes:
        picture: The picture, whose header says how large the mask is.
        table: The table.
        runs: Class index and run lengths of each row of the picture; none: all of it is background.
    """

    picture: Path
    table: Path
    runs: tuple[tuple[int, str], ...]

    @property
    def name(self) -> str:
        return f"{self.table}#{self.picture.name}"

    def read(self) -> bytes:
        height, width = _picture_size(self.picture)
        mask = np.zeros((height, width), np.uint8)
        for index, text in self.runs:
            try:
                mask[decode_runs(text, height, width)] = index
            except ValueError as error:  # the picture has changed since the table was checked
                raise DataError(f"`{self.name}`, class {index}: {error} Correct the row.") from error
        _, png = cv2.imencode(".png", mask)
        return png.tobytes()

    def stamp(self) -> str:
        return f"{FileSource(self.picture).stamp()}-{hashlib.sha256(repr(self.runs).encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the table; the header is row 1."""

    number: int
    picture: str
    class_id: str
    runs: str

    @property
    def where(self) -> str:
        return f"row {self.number} ({self.picture}, class {self.class_id})"


def read_severstal(root: str | Path, num_classes: PositiveInt | None = None) -> Catalogue:
    """Read a data set in the layout of Severstal. Of a picture only the header is read.

    ==========================  =========================================================================
    ``train_images/``           the pictures, of any size
    ``train.csv``               ``ImageId`` (a file name), ``ClassId`` from 1, ``EncodedPixels``: run
                                lengths down the columns, pixels counted from 1. One row per picture and
                                class; a picture without a row has no defect
    ``labels.csv``,             optional: ``id`` (the file name without its suffix) and any other columns,
    ``groups.csv``              such as ``group``
    ==========================  =========================================================================

    Args:
        root: The folder.
        num_classes: How many defects there are; ``None``: ids 1, 2, ... as far as the table has them without a gap.

    Returns:
        The catalogue of the classes background, defect_1, defect_2 ... Each record has the attributes defect_1,
            defect_2 ... ("0" or "1", from the same rows as its mask). Its ``group`` is its id unless a table has one.

    Raises:
        ConfigError: ``num_classes`` is out of range.
        DataError: With everything that is wrong, the first few rows of each kind named.
    """
    if num_classes is not None and not 1 <= num_classes < IGNORE_INDEX:
        raise ConfigError(
            f"`data.reader.num_classes` should be in [1, {IGNORE_INDEX}) or null. Found {num_classes}. "
            "Set it to the number of defects."
        )
    root, findings = Path(root), Findings()
    check_root(root, TABLE, findings)
    pictures = find_pictures(root / IMAGES, findings)
    rows = _read_rows(root / TABLE, pictures, findings)
    count = _count_classes(rows) if num_classes is None else num_classes
    by_name = {path.name: path for path in pictures.values()}
    _check_rows(rows, by_name, count, root / TABLE, findings)
    _check_runs(rows, by_name, root / TABLE, findings)
    attributes = _read_attributes(root, pictures, findings)
    tell_what_lies_there(root, "severstal", pictures, findings)
    findings.raise_if_any(root)
    of_picture = _by_picture(rows)
    records = tuple(
        _record(id_, path, root / TABLE, of_picture.get(path.name, []), count, attributes[id_])
        for id_, path in sorted(pictures.items())
    )
    classes = ("background", *_defects(count))
    return Catalogue(root.resolve().name, records, classes, not_read=findings.told())


def _record(
    id_: str, picture: Path, table: Path, rows: Sequence[_Row], count: int, attributes: Mapping[str, str]
) -> Record:
    runs = {int(row.class_id): row.runs for row in rows}
    present = {name: str(int(i in runs)) for i, name in enumerate(_defects(count), start=1)}
    mask = RunLengthSource(picture, table, tuple(sorted(runs.items())))
    return Record(id_, FileSource(picture), mask, None, {**attributes, **present}, None)


def _defects(count: int) -> list[str]:
    return [f"defect_{i}" for i in range(1, count + 1)]


def _read_attributes(root: Path, pictures: Mapping[str, Path], findings: Findings) -> dict[str, dict[str, str]]:
    tables = [read_table(root / name, pictures, findings) for name in ("labels.csv", "groups.csv")]
    known = {id_: {key: cell for table in tables for key, cell in table.get(id_, {}).items()} for id_ in pictures}
    if any("group" in cells for cells in known.values()):
        return known  # a picture without one is then a gap, which the split reports
    return {id_: {"group": id_, **cells} for id_, cells in known.items()}


def _read_rows(path: Path, pictures: Mapping[str, Path], findings: Findings) -> list[_Row]:
    if is_dangling(path, findings):
        return []
    if not path.exists():
        near = misnamed(path, is_folder=False)
        way = f"Rename `{near}`." if near else f"Write it, with the columns {', '.join(COLUMNS)}."
        findings.add(f"`{path}` does not exist. {way}")
        return []
    before = len(findings.sentences)
    rows = []
    for row in table_rows(path, COLUMNS, findings):
        written, class_id, runs = (row.cells[name] for name in COLUMNS)
        picture = pictures.get(known_id(written, pictures))
        rows.append(_Row(row.line, written if picture is None else picture.name, class_id, runs))
    if not rows and len(findings.sentences) == before:
        findings.add(f"`{path}` should have a row for each defect of a picture. Found none. Complete it.")
    return rows


def _count_classes(rows: Sequence[_Row]) -> int:
    found = {row.class_id for row in rows}
    return next(count for count in itertools.count() if str(count + 1) not in found)


def _check_rows(
    rows: Sequence[_Row], pictures: Mapping[str, Path], count: int, table: Path, findings: Findings
) -> None:
    lost = [row.where for row in rows if row.picture not in pictures]
    findings.add_names(lost, f"Pictures of `{table}` should lie in {IMAGES}/. Missing is that of", "Add it.")
    known = {str(i) for i in range(1, count + 1)}
    strange = [row.where for row in rows if row.class_id not in known]
    findings.add_names(
        strange,
        f"`ClassId` in `{table}` should be one of 1, 2, ... without a gap, here up to {count}. Unknown is that of",
        "Correct the rows, or `data.reader.num_classes`.",
    )
    empty = [row.where for row in rows if not row.runs]
    findings.add_names(
        empty, f"`EncodedPixels` in `{table}` should hold runs. Empty is", "Remove the row: without one is no defect."
    )
    first: dict[tuple[str, str], int] = {}
    for row in rows:
        first.setdefault((row.picture, row.class_id), row.number)
    repeated = [(row, first[row.picture, row.class_id]) for row in rows]
    twice = [f"{row.where}, first in row {number}" for row, number in repeated if number != row.number]
    findings.add_names(twice, f"A picture should have one row per class in `{table}`. Repeated is", "Join the runs.")


def _check_runs(rows: Sequence[_Row], pictures: Mapping[str, Path], table: Path, findings: Findings) -> None:
    unread, wrong, crossing = [], [], []
    for name, of_picture in _by_picture(rows).items():
        if name not in pictures:
            continue
        try:
            num_pixels = math.prod(_picture_size(pictures[name]))
        except DataError as error:
            unread.append(f"{of_picture[0].where}: {error}")
            continue
        read = []
        for row in of_picture:
            try:
                read.append((row, read_runs(row.runs, num_pixels)))
            except ValueError as error:
                wrong.append(f"{row.where}: {error}")
        crossing += _crossings(read)
    findings.add_names(unread, f"Pictures of `{table}` should be readable. Not so is that of", "Restore them.")
    findings.add_names(wrong, f"`EncodedPixels` in `{table}` should be run lengths. Not so is", "Correct the rows.")
    findings.add_names(
        crossing, f"A pixel should belong to one class of `{table}`. Not so between", "Take it from one of the rows."
    )


def _crossings(read: Sequence[tuple[_Row, NDArray[np.int64]]]) -> list[str]:
    """Pairs of rows of different classes that share a pixel."""
    found = []
    for (one, runs), (other, more) in itertools.combinations(read, 2):
        both = np.concatenate([runs, more])
        both = both[np.lexsort((both[:, 1], both[:, 0]))]
        shared = both[1:][both[1:, 0] < both[:-1, 1]]
        if shared.size and one.class_id != other.class_id:
            found.append(f"{one.where} and {other.where} at pixel {shared[0, 0] + 1}")
    return found


def _by_picture(rows: Sequence[_Row]) -> dict[str, list[_Row]]:
    found: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        found[row.picture].append(row)
    return found


def _picture_size(path: Path) -> tuple[int, int]:
    """Height and width from the header of a file."""
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"`{path}` is no picture that can be read. Restore the file or remove it.") from error
