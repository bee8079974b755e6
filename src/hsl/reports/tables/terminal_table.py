"""What a report prints: the answer, then a table, then the warnings."""

from collections.abc import Mapping, Sequence

from rich.table import Table as RichTable

from hsl.console import PlainConsole
from hsl.reports.page.notes import Note
from hsl.reports.tables.score_tables import Table

RANKINGS = ("ranking", "image_ranking")
HIDDEN = {"difference", "interval_adjusted", "adjusted_p", "trainings_p", "smallest"}  # a terminal is narrow


def print_report(answers: Mapping[str, Sequence[str]], tables: Mapping[str, Table], notes: Sequence[Note]) -> None:
    """Print the answer first.

    Args:
        answers: sentences, by what they are of.
        tables: of the report, by name.
        notes: warnings and remarks.
    """
    console = PlainConsole()
    if not console.is_terminal:
        console.width = 120  # a file has no edge
    for of, sentences in answers.items():
        title = f"{of}: " if len(answers) > 1 else ""
        console.print(f"{title}{' '.join(sentences)}\n", style="bold")
    for name in RANKINGS:
        if name in tables:
            console.print(_shown(tables[name]))
    for note in notes:
        if note.level == "warning":
            console.print(f"! {note.text}", style="yellow")


def _shown(table: Table) -> RichTable:
    shown = RichTable()
    kept = [i for i, column in enumerate(table.columns) if not column.more and column.key not in HIDDEN]
    for i in kept:
        column = table.columns[i]
        is_model = column.key == "model"
        shown.add_column(
            column.title,
            justify="right" if column.is_number else "left",
            min_width=20 if is_model else None,
            overflow="fold",
        )
    for row in table.texts:
        shown.add_row(*[row[i] for i in kept])
    return shown
