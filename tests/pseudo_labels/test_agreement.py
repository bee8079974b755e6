"""The table of agreement: written, read back, and what is wrong with one."""

from pathlib import Path

import pytest

from hsl.data.labels.label_table import LabelRow, LabelTable
from hsl.errors import DataError
from hsl.pseudo_labels.agreement import AGREEMENT, Agreement, read_agreement, write_agreement

ROWS = [
    Agreement("p0", "rust", "B", "A", 0.9, 0.125, True, False),
    Agreement("=p1", "rust", "C", "B", 0.25, 0.5, False, True),
    Agreement("p2", "healthy", "A", "A", 1.0, 0.0, False, False),
]


def labels(folder: Path) -> LabelTable:
    rows = tuple(LabelRow(row.id, row.label, row.tier, 0.7, 0.0, 0.1, True, "", "") for row in ROWS)
    return LabelTable(folder, "leaves", ("ground", "leaf"), rows, "")


def test_by_class_and_then_the_largest_disagreement_first(tmp_path: Path) -> None:
    write_agreement(tmp_path, ROWS)
    assert read_agreement(labels(tmp_path)) == [ROWS[2], ROWS[1], ROWS[0]]
    assert "'=p1" in (tmp_path / AGREEMENT).read_text()  # no formula to a spreadsheet


def test_labels_of_no_refinement_have_none(tmp_path: Path) -> None:
    assert read_agreement(labels(tmp_path)) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,label\np0,rust\n", "damaged: KeyError.*can be used without it"),
        ("id,label,first_tier,tier,agreement,drift,upgraded,flagged\np0,rust,B,A,much,0,0,0\n", "damaged: ValueError"),
        ("id,label,first_tier,tier,agreement,drift,upgraded,flagged\np0,rust,B,A,0.5,0,0,0\n", "Found others"),
    ],
)
def test_a_table_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / AGREEMENT).write_text(text)
    with pytest.raises(DataError, match=words):
        read_agreement(labels(tmp_path))
    (tmp_path / AGREEMENT).rename(tmp_path / "away.csv")
    assert read_agreement(labels(tmp_path)) == []
