"""``agreement.csv`` of a round of refinement: how each label agrees with the first one, and which to look at."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from hsl.data.labels.label_table import LabelTable
from hsl.errors import DataError
from hsl.files.cells import neutral_row, original_rows
from hsl.files.io import write_atomically

AGREEMENT = "agreement.csv"


@dataclass(frozen=True)
class Agreement:
    """A refined label beside the first one.

    Attributes:
        id: of the picture.
        label: its class as a whole.
        first_tier: of the label before any refinement.
        tier: of the refined one.
        agreement: mean IoU with the label before any refinement.
        drift: changed pixels / pixels, from the round before.
        upgraded: whether its agreement lifted it from tier B to A.
        flagged: whether a person should look at it.
    """

    id: str
    label: str
    first_tier: str
    tier: str
    agreement: float
    drift: float
    upgraded: bool
    flagged: bool


def write_agreement(folder: Path, rows: Sequence[Agreement]) -> None:
    """Write the table, of each image class the largest disagreement first."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Agreement)], lineterminator="\n")
    table.writeheader()
    for row in sorted(rows, key=lambda row: (row.label, row.agreement, row.id)):
        shares = {"agreement": f"{row.agreement:.6f}", "drift": f"{row.drift:.6f}"}
        marks = {"upgraded": int(row.upgraded), "flagged": int(row.flagged)}
        table.writerow(neutral_row(asdict(row) | shares | marks))
    write_atomically(folder / AGREEMENT, text.getvalue().encode())


def read_agreement(labels: LabelTable) -> list[Agreement]:
    """The table of a folder of labels in its order; empty for labels that no round of refinement made.

    Raises:
        DataError: it is damaged, or names other pictures than the labels.
    """
    path = labels.folder / AGREEMENT
    if not path.is_file():
        return []
    try:
        found = original_rows(csv.DictReader(io.StringIO(path.read_text(encoding="utf8"), newline="")))
        rows = [
            Agreement(
                cells["id"], cells["label"], cells["first_tier"], cells["tier"], float(cells["agreement"]),
                float(cells["drift"]), cells["upgraded"] == "1", cells["flagged"] == "1",
            )
            for cells in found
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"`{path}` is damaged: {error!r}. Move it away; the labels can be used without it.") from error
    if {row.id for row in rows} != {row.id for row in labels.rows}:
        raise DataError(f"`{path}` should name the pictures of labels.csv. Found others. Move it away.")
    return rows
