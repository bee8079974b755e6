"""A formula in a name stays text in a spreadsheet, and is the same name when it is read again."""

import csv
import io
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsl.files.cells import csv_of, neutral, neutral_row, original, original_rows

FORMULAS = ["=1+1", "=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "-", "+", "=", "-a",
            "＝1", "'=1", "''@x", "+-1", "-1e", "- 1", "-inf", "-1_0", "-١"]  # fmt: skip
PLAIN = ["-0.5", "+3", "-1e-5", "-.5", "1", "leaf", "a=b", "", " =1", "'", "'quoted'", "'-0.5", "x@y"]


@pytest.mark.parametrize("text", FORMULAS, ids=repr)
def test_a_formula_is_neutral_and_comes_back(text: str) -> None:
    assert neutral(text) == f"'{text}"
    assert original(neutral(text)) == text


@pytest.mark.parametrize("text", PLAIN, ids=repr)
def test_other_text_stays(text: str) -> None:
    assert neutral(text) == original(text) == text


@pytest.mark.parametrize("value", [-0.5, -3, None, True, math.nan, np.float32(-0.1)])
def test_numbers_stay_numbers(value: object) -> None:
    assert neutral(value) is value


@given(st.text(alphabet="'=+-@\t\r\n1.e a＝"))
def test_every_text_comes_back(text: str) -> None:
    assert original(neutral(text)) == text
    assert not neutral(text).startswith(("=", "@", "\t", "\r", "\n"))


def test_a_frame_changes_nothing_but_formulas() -> None:
    frame = pd.DataFrame({
        "id": ["=a", "b", None],
        "x": np.array([-0.1, 2, math.nan], np.float32),
        "n": [-1, 2, 3],
        "mixed": ["-x", -1.5, None],
        "kind": pd.Categorical(["@a", "b", "@a"]),
        "=name": [True, False, True],
    })  # fmt: skip
    assert csv_of(frame[["x", "n"]]) == frame[["x", "n"]].to_csv(index=False)
    rows = original_rows(csv.DictReader(io.StringIO(csv_of(frame), newline="")))
    assert [row["id"] for row in rows] == ["=a", "b", ""]
    assert [row["mixed"] for row in rows] == ["-x", "-1.5", ""]
    assert [row["kind"] for row in rows] == ["@a", "b", "@a"]
    assert list(rows[0]) == list(frame.columns)
    assert "\n=" not in csv_of(frame)
    assert ",=" not in csv_of(frame)


def test_frames_that_were_joined() -> None:
    joined = pd.concat([pd.DataFrame({"id": ["=a"]}), pd.DataFrame({"id": ["=b"]})])
    assert csv_of(joined).splitlines() == ["id", "'=a", "'=b"]
    assert csv_of(pd.DataFrame()) == pd.DataFrame().to_csv(index=False)


def test_rows_of_a_writer() -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, ["a", "b"])
    table.writeheader()
    table.writerow(neutral_row({"a": "=1", "b": -2}))
    assert text.getvalue().splitlines()[1] == "'=1,-2"
