"""``predictions/index.csv``: which pictures a run shows, its best and its worst."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hsl.errors import DataError
from hsl.files.cells import neutral_row, original_rows
from hsl.files.io import read_text, write_atomically
from hsl.run_folder.layout import EXAMPLES

KINDS = ("best", "worst")


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
