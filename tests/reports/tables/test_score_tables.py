import csv
import io
import math

import pytest

from hsl.reports.statistics.paired_tests import Summary
from hsl.reports.tables.score_tables import Column, Table, latex_text, text_of, write_table

TABLE = Table(
    "ranking",
    "Scores of 50 % & more.",
    [Column("model", "model"), Column("miou", "mIoU (%)", "share"), Column("images", "pictures", "count")],
    [
        ["mit_b0 | x", Summary(0.5, 0.125, 3), 12],
        ["a", Summary(0.25, math.nan, 1), None],
        ["b", Summary(math.nan, math.nan, 0), 3],
    ],
)


def test_csv_holds_full_precision_and_no_text_for_missing_values():
    rows = list(csv.reader(io.StringIO(TABLE.to_csv())))
    assert rows == [
        ["model", "miou_mean", "miou_std", "miou_num", "images"],
        ["mit_b0 | x", "0.5", "0.125", "3", "12"],
        ["a", "0.25", "", "1", ""],
        ["b", "", "", "0", "3"],
    ]


def test_markdown():
    assert TABLE.to_markdown().splitlines() == [
        "Scores of 50 % & more.",
        "",
        "| model | mIoU (%) | pictures |",
        "| :--- | ---: | ---: |",
        "| mit_b0 \\| x | 50.00 ± 12.50 | 12 |",
        "| a | 25.00 (1 fold) | – |",
        "| b | – | 3 |",
    ]


def test_latex():
    assert TABLE.to_latex() == "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            r"\caption{Scores of 50 \% \& more.}",
            r"\label{tab:ranking}",
            r"\begin{tabular}{lrr}",
            r"\toprule",
            r"model & mIoU (\%) & pictures \\",
            r"\midrule",
            r"mit\_b0 | x & 50.00 $\pm$ 12.50 & 12 \\",
            r"a & 25.00 (1 fold) & -- \\",
            r"b & -- & 3 \\",
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


@pytest.mark.parametrize(
    ("cell", "kind", "text"),
    [
        (0.61234, "share", "61.23"),
        (-0.0123, "points", "-1.23"),
        (0.0123, "points", "+1.23"),
        (0.0, "p", "<0.0001"),
        (0.04567, "p", "0.0457"),
        (3725.4, "seconds", "1:02:05"),
        (59.6, "seconds", "0:01:00"),
        (None, "count", "–"),
        (math.nan, "p", "–"),
        ("[+1, +2]", "interval", "[+1, +2]"),
        (7, "count", "7"),
        (0.12345, "value", "0.1235"),
        (0.5, "signed", "+0.5000"),
        (-0.456, "effect", "-0.46"),
        (12.345, "pixels", "12.35"),
        (Summary(0.5, 0.25, 3), "value", "0.5000 ± 0.2500"),
        (Summary(0.5, math.nan, 1), "pictures", "0.5000 (1 picture)"),
    ],
)
def test_text_of(cell, kind, text):
    assert text_of(cell, kind) == text


def test_every_special_letter_is_escaped():
    assert latex_text(r"a_b\c{d}#$%&~^") == (r"a\_b\textbackslash{}c\{d\}\#\$\%\&\textasciitilde{}\textasciicircum{}")


def test_write_table(tmp_path):
    write_table(TABLE, tmp_path / "tables")
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == [
        "ranking.csv",
        "ranking.md",
        "ranking.tex",
    ]


def test_a_row_of_another_length_is_an_error():
    table = Table("x", "", [Column("a", "a")], [["1", "2"]])
    with pytest.raises(ValueError, match="zip"):
        table.to_markdown()
