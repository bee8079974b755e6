"""Names of data in Markdown stay text."""

from hsl.reports.tables.markdown import markdown_row, markdown_text, markdown_texts
from hsl.reports.tables.score_tables import Column, Table

HOSTILE = "<img src=x onerror=alert(1)> [a](javascript:b) [c]: d &lt; \x1b[2J\u202e"
SHOWN = "&lt;img src=x onerror=alert(1)> [a]\\(javascript:b) [c]\\: d &amp;lt; \\x1b[2J\\u202e"


def test_names_stay_text() -> None:
    assert markdown_text(HOSTILE) == SHOWN
    assert markdown_text("mit_b3 ± 5 % & [1, 2] of `data.split`") == "mit_b3 ± 5 % & [1, 2] of `data.split`"
    assert markdown_texts({HOSTILE: [HOSTILE, 1, None]}) == {SHOWN: [SHOWN, 1, None]}
    assert markdown_row(["a|b\nc", 2]) == "| a\\|b c | 2 |"


def test_tables_hold_no_tags_and_no_control_characters() -> None:
    table = Table("names", HOSTILE, (Column("class", HOSTILE, "text"),), ((HOSTILE,),))
    assert table.to_markdown().count(SHOWN) == 3
    assert not {"\x1b", "\u202e", "<"} & {*table.to_markdown()}
    assert not {"\x1b", "\u202e"} & {*table.to_latex()}
