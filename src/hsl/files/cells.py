"""Text in the cells of CSV files: a spreadsheet reads some of it as a formula, and a formula runs commands."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsl.errors import DataError
from hsl.files.io import read_text

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"'*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def neutral(cell: Any) -> Any:
    """A cell as it is written: an apostrophe before text that a spreadsheet would take for a formula.

    Numbers stay numbers, also as text. `original` takes it back.

    Example:
        >>> neutral("=1+1"), neutral("-0.5"), neutral(-0.5), neutral("leaf-3")
        ("'=1+1", '-0.5', -0.5, 'leaf-3')
    """
    return f"'{cell}" if isinstance(cell, str) and _is_formula(cell) else cell


def original(cell: str) -> str:
    """The text that `neutral` was given; any other text is left as it is.

    Example:
        >>> original("'=1+1"), original("'quoted'")
        ('=1+1', "'quoted'")
    """
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def neutral_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of a row for `csv.DictWriter`."""
    return {name: neutral(cell) for name, cell in row.items()}


def original_rows(rows: Iterable[Mapping[Any, Any]]) -> list[dict[str, Any]]:
    """The rows of `csv.DictReader` with their original cells and column names."""
    return [{_text(name): _text(cell) for name, cell in row.items()} for row in rows]


def read_rows_of_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file with their original cells and column names.

    Raises:
        DataError: the file is missing, damaged or not a CSV table.
    """
    try:
        return original_rows(csv.DictReader(io.StringIO(read_text(path), newline="")))
    except csv.Error as error:
        raise DataError(f"`{path}` is not a CSV table: {error}.") from None


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A table as CSV in UTF-8 with a header, text made neutral.

    Example:
        >>> csv_text(["id", "group"], [["a", "=1"]])
        b"id,group\\r\\na,'=1\\r\\n"
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(map(neutral, columns))
    writer.writerows([neutral(cell) for cell in row] for row in rows)
    return buffer.getvalue().encode()


def csv_of(frame: "pd.DataFrame") -> str:
    """A table as CSV with a header and without the index; numbers as they are, text made neutral."""
    written = frame.rename(columns=neutral)
    for place, kind in enumerate(frame.dtypes):
        if kind.kind not in "biufcmM":  # numbers and times
            written.isetitem(place, frame.iloc[:, place].map(neutral).array)
    return str(written.to_csv(index=False))


def _text(cell: Any) -> Any:
    return original(cell) if isinstance(cell, str) else cell


def _is_formula(cell: str) -> bool:
    return bool(_FORMULA.match(cell)) and not _NUMBER.fullmatch(cell)
