"""The tables with a row per picture: ``per_image.csv``, ``image_predictions.csv`` and ``predictions/index.csv``."""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hsl.errors import DataError
from hsl.files.cells import csv_of, neutral_row, original, original_rows, read_rows_of_table
from hsl.files.io import read_text, write_atomically
from hsl.files.names import leaves_folder
from hsl.run_folder.layout import EXAMPLES, IMAGE_PREDICTIONS, PER_IMAGE

Floats = NDArray[np.float64]
KINDS = ("best", "worst")
TEXT = ("id", "group", "part", "inference", "prediction")  # columns of per_image.csv that hold no numbers
COLUMNS = ("id", "group", "part", "inference", "head", "target", "prediction", "correct")
SEPARATOR = "|"  # between the classes of a picture
UNKNOWN = "?"  # behind one of which it is not known whether the picture shows it


@dataclass(frozen=True)
class ImageRow:
    """One picture in ``per_image.csv``; ``scores`` holds every column of numbers but those of a class.

    ``prediction`` is where its class map lies below the run folder, empty where it was not kept.
    """

    group: str
    scores: Mapping[str, float]
    prediction: str = ""

    @property
    def miou(self) -> float:
        return self.scores["miou"]


@dataclass(frozen=True, eq=False)
class ImagePictures:
    """The pictures of a part as an image head saw them.

    ``target (N, K)`` of 0 and 1, NaN where it is not known; ``predicted (N, K)``; ``probabilities (N, K)``. Of several
    classes any number may hold, else one.
    """

    ids: Sequence[str]
    groups: Sequence[str]
    target: Floats
    predicted: NDArray[np.bool_]
    probabilities: Floats
    several: bool

    @property
    def labels(self) -> NDArray[Any]:
        """As `hsl.metrics.images.image_scores` takes them: the class of each picture, -1 unknown, or the targets."""
        if self.several:
            return self.target
        unknown = np.isnan(self.target).any(axis=1)
        return np.where(unknown, -1, np.nan_to_num(self.target).argmax(axis=1))

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Id to place."""
        return {name: i for i, name in enumerate(self.ids)}

    @property
    def confusion(self) -> NDArray[np.int64] | None:
        """``(K, K)`` pictures, rows the truth; none where a picture may show several classes."""
        if self.several:
            return None
        matrix: NDArray[np.int64] = (np.nan_to_num(self.target).T @ self.predicted).astype(np.int64)
        return matrix


@dataclass(frozen=True)
class Example:
    """A row of ``index.csv``: ``kind`` is best or worst, ``rank`` counts from 1."""

    kind: str
    rank: int
    id: str
    miou: float
    confidence: float

    @property
    def stem(self) -> str:
        """What the file names begin with: kind, rank and the id with every awkward character replaced."""
        return f"{self.kind}_{self.rank:02d}_{re.sub(r'[^A-Za-z0-9._-]+', '-', self.id)[:80]}"


def write_images(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``per_image.csv``: of every picture the columns of ``TEXT``, its scores, and ``iou/<class>``."""
    table = pd.DataFrame(rows).sort_values(["part", "inference", "id"])
    write_atomically(folder / PER_IMAGE, csv_of(table).encode())


def read_images(folder: Path) -> dict[tuple[str, str], dict[str, ImageRow]]:
    """``per_image.csv``: (part, inference) to id to row."""
    path = folder / PER_IMAGE
    images: dict[tuple[str, str], dict[str, ImageRow]] = {}
    table = _read_table(path, ("id", "group", "part", "inference", "miou"))
    columns = [name for name in table[0] if name and name not in TEXT and "/" not in name]
    for row in table:
        rows = images.setdefault((row["part"], row["inference"]), {})
        if row["id"] in rows:
            raise DataError(f"`{path}` should have one row per picture. Found `{row['id']}` twice.")
        if leaves_folder(row.get("prediction") or ""):
            raise DataError(f"`{path}` should name files of its own folder. Found `{row['prediction']}`.")
        scores = {name: _number(row[name], path) for name in columns}
        rows[row["id"]] = ImageRow(row["group"], scores, row.get("prediction") or "")
    return images


def write_image_predictions(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``image_predictions.csv``: ``COLUMNS``, ``loss`` and ``probability/<class>``; see `class_names`."""
    table = pd.DataFrame(rows).sort_values(["part", "inference", "head", "id"])
    write_atomically(folder / IMAGE_PREDICTIONS, csv_of(table).encode())


def class_names(shown: Floats, classes: Sequence[str]) -> str:
    """A cell: the classes of which ``shown (K,)`` is 1, and with a ``?`` behind those of which it is NaN, not known.

    >>> class_names(np.array([1, 0, math.nan]), ["a", "b", "c"])
    'a|c?'
    """
    marked = zip(classes, shown, strict=True)
    return SEPARATOR.join(name + UNKNOWN * bool(np.isnan(value)) for name, value in marked if value != 0)


def read_image_predictions(
    folder: Path, head: str, classes: Sequence[str], several: bool
) -> dict[tuple[str, str], ImagePictures]:
    """(part, inference) to the pictures of an image head.

    A cell of ``target`` and ``prediction`` is the name of a class or, where a picture may show several, their names
    with ``|`` between them, those of which it is not known with a ``?`` behind. Nothing is known where ``correct`` is
    empty.

    Raises:
        DataError: the file is missing or broken, a column is absent, a class is unknown, or a picture appears twice.
    """
    path = folder / IMAGE_PREDICTIONS
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).map(original).rename(columns=original)
    except FileNotFoundError:
        raise DataError(f"`{path}` is missing: the image head cannot be compared picture by picture.") from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"`{path}` cannot be read: {str(error).splitlines()[0]}.") from None
    columns = [f"probability/{name}" for name in classes]
    if absent := [name for name in (*COLUMNS, *columns) if name not in table]:
        raise DataError(f"`{path}` should have the columns {', '.join(absent)}. Evaluate the run again.")
    table = table[table["head"] == head]
    place = {name: i for i, name in enumerate(classes)}
    found: dict[tuple[str, str], ImagePictures] = {}
    for (part, inference), rows in table.groupby(["part", "inference"]):
        ids = rows["id"].tolist()
        if len(set(ids)) < len(ids):
            raise DataError(f"`{path}` should hold each picture once. Found one twice in {part}, {inference}.")
        target = _cells(path, rows["target"].tolist(), place, several)
        target[(rows["correct"] == "").to_numpy()] = np.nan
        predicted = _cells(path, rows["prediction"].tolist(), place, several) == 1
        probabilities = _numbers(path, rows[columns])
        groups = rows["group"].tolist()
        found[str(part), str(inference)] = ImagePictures(ids, groups, target, predicted, probabilities, several)
    return found


def write_index(folder: Path, examples: Sequence[Example]) -> None:
    """Write ``index.csv`` into the folder of the pictures."""
    text = io.StringIO()
    table = csv.DictWriter(text, ["kind", "rank", "id", "miou", "confidence", "stem"], lineterminator="\n")
    table.writeheader()
    table.writerows(neutral_row(asdict(example) | {"stem": example.stem}) for example in examples)
    write_atomically(folder / EXAMPLES, text.getvalue().encode())


def read_examples(folder: Path) -> list[Example]:
    """The rows of ``index.csv``, empty where there is none.

    Raises:
        DataError: a row is broken, or a column is missing.
    """
    path = folder / EXAMPLES
    if not path.is_file():
        return []
    try:
        rows = original_rows(csv.DictReader(io.StringIO(read_text(path), newline="")))
        if strange := [row["kind"] for row in rows if row["kind"] not in KINDS]:
            raise ValueError(f"`kind` should be best or worst, found {strange[0]!r}")
        return [
            Example(row["kind"], int(row["rank"]), row["id"], float(row["miou"]), float(row["confidence"]))
            for row in rows
        ]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"`{path}` cannot be read: {error}.") from None


def _read_table(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    rows = read_rows_of_table(path)
    absent = [name for name in needed if rows and rows[0].get(name) is None]
    if absent or not rows:
        raise DataError(f"`{path}` should have rows with the columns {', '.join(needed)}. Found {len(rows)} rows.")
    return rows


def _number(text: str | None, path: Path) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        raise DataError(f"`{path}` should hold numbers. Found `{text}`.") from None


def _cells(path: Path, cells: Sequence[str], place: Mapping[str, int], several: bool) -> Floats:
    """``(N, K)`` of 0 and 1, NaN where it is not known."""
    values = np.zeros((len(cells), len(place)))
    for row, cell in enumerate(cells):
        for name in filter(None, cell.split(SEPARATOR) if several else [cell]):
            known = name.removesuffix(UNKNOWN) if several and name not in place else name
            if known not in place:
                raise DataError(
                    f"`{path}` should hold the classes {', '.join(place)}. Found `{name}`. Evaluate the run again."
                )
            values[row, place[known]] = 1 if known == name else np.nan
    return values


def _numbers(path: Path, columns: pd.DataFrame) -> Floats:
    try:
        numbers: Floats = columns.replace("", "nan").to_numpy(dtype=np.float64)
    except ValueError as error:
        raise DataError(f"`{path}` should hold numbers as probabilities: {error}.") from None
    return numbers
