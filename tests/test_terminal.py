"""A terminal is told nothing by the names of data: they are only shown."""

import io
import logging

import pytest
from rich.table import Table

from hsl.console import PlainConsole
from hsl.terminal import quieten_handlers, say, visible

DRIVING = ["\x1b[2J", "\x1b]0;title\x07", "a\rb", "a\bb", "\x00", "\x7f", "\x9b31m", "a\u202eb", "\u2066", "\u200e",
           "\ufeff", "\u2028", "\x0b", "\udcff"]  # fmt: skip


@pytest.mark.parametrize("text", DRIVING, ids=repr)
def test_what_drives_a_terminal_is_shown(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert shown.encode("utf8")
    assert shown.encode("ascii").decode("unicode_escape") == text or not text.isascii()


@pytest.mark.parametrize("text", ["plain", "Größe", "日本", "a\nb\tc", "👩\u200d🔬", "[red]x[/red]", ":smile:", "é"])
def test_other_text_stays(text: str) -> None:
    assert visible(text) == text


def test_a_cell_has_one_line() -> None:
    assert visible("a\n\tb", lines=False) == "a\\n\\tb"


def test_lines_of_output(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[31mb")
    say("c\rd", error=True)
    assert capsys.readouterr() == ("a\\x1b[31mb\n", "c\\rd\n")


def test_tables_show_brackets_and_no_escapes() -> None:
    console = PlainConsole(file=io.StringIO(), force_terminal=True, color_system=None, width=80)
    table = Table("[bold]class[/bold]", "n", title="t\x1b[2J")
    table.add_row("[red]x[/red]", "a\x1b[31m :smile:")
    console.print(table)
    console.print("[link=x]y[/link] \x07")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for shown in ("[bold]class[/bold]", "[red]x[/red]", "a\\x1b[31m :smile:", "\\x07", "t\\x1b[2J"):
        assert shown in text
    assert "\x1b[31m" not in text
    assert "\x07" not in text


def test_messages_of_the_log() -> None:
    text = io.StringIO()
    handler, log = logging.StreamHandler(text), logging.Logger("x")
    quieten_handlers([handler])
    log.addHandler(handler)
    log.warning("`%s` is odd", "a\x1b[2J")
    assert text.getvalue() == "`a\\x1b[2J` is odd\n"
