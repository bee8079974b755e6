"""What a run leaves of its image head: scores in ``metrics.json``, and ``image_predictions.csv``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel

from hsl.errors import DataError
from hsl.files.cells import original

Floats = NDArray[np.float64]
COLUMNS = ("id", "group", "part", "inference", "head", "target", "prediction", "correct")
SEPARATOR = "|"  # between the classes of a picture
UNKNOWN = "?"  # behind one of which it is not known whether the picture shows it


class StoredHead(BaseModel, extra="allow"):
    """What a report needs of ``image_heads`` in ``metrics.json``; null for NaN.

    The scores are not shown where ``image_predictions.csv`` is there: they are made from it, and have to agree.
    """

    __pydantic_extra__: dict[str, float | None]
    kind: str
    num_images: int
    per_class: dict[str, dict[str, float | None]] = {}
    confusion: list[list[int]] = []
    thresholds: dict[str, float | None] | None = None

    @property
    def scores(self) -> dict[str, float | None]:
        """Every other number, by name."""
        return self.__pydantic_extra__

    @property
    def several(self) -> bool:
        """Whether a picture may show several classes."""
        return self.kind == "multi"


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


def read_image_predictions(
    path: Path, head: str, classes: Sequence[str], several: bool
) -> dict[tuple[str, str], ImagePictures]:
    """(part, inference) to the pictures of an image head.

    A cell of ``target`` and ``prediction`` is the name of a class or, where a picture may show several, their names
    with ``|`` between them, those of which it is not known with a ``?`` behind. Nothing is known where ``correct`` is
    empty.

    Raises:
        DataError: the file is missing or broken, a column is absent, a class is unknown, or a picture appears twice.
    """
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
