"""Tables: what a report says in numbers, as CSV, Markdown and LaTeX; names of data stay text in each."""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from hsl.files.cells import neutral
from hsl.files.io import write_atomically
from hsl.reports.statistics.paired_tests import Interval, Summary
from hsl.terminal import visible

_ENTITY = re.compile(r"&(?=#?\w+;)")  # any other stands for itself
NONE = "–"
Cell = str | int | float | Summary | None
_FORMATS = {"value": ".4f", "pictures": ".4f", "signed": "+.4f", "effect": "+.2f", "pixels": ".2f"}
# What LaTeX would take for a command or cannot print.
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "·": r"$\cdot$",
    "≥": r"$\geq$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "…": r"\ldots{}",
}


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is: no tag, no link, no control character.

    Example:
        >>> markdown_text("a<b> [c](d)")
        'a&lt;b> [c]\\\\(d)'
    """
    shown = _ENTITY.sub("&amp;", visible(text)).replace("<", "&lt;")
    return shown.replace("](", "]\\(").replace("]:", "]\\:")


def markdown_texts(content: Any) -> Any:
    """The same for every text and key of nested maps and lists."""
    if isinstance(content, dict):
        return {markdown_texts(key): markdown_texts(value) for key, value in content.items()}
    if isinstance(content, list):
        return [markdown_texts(value) for value in content]
    return markdown_text(content) if isinstance(content, str) else content


def markdown_row(cells: Sequence[Any]) -> str:
    """A line of a table, of texts that are escaped already; none breaks its cell."""
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


@dataclass(frozen=True)
class Column:
    """``key`` heads the CSV, ``title`` everything else.

    ``kind``: ``text``, ``interval`` (also text), ``count``, ``share`` (a fraction, or a `Summary` of
    fractions, shown in per cent), ``points`` (a difference of shares), ``value`` (a number, or a `Summary` over
    folds), ``pictures`` (the same over pictures), ``signed`` (a difference of values), ``effect`` (an effect
    size), ``pixels`` (a distance), ``p`` (a probability) or ``seconds``. ``more``: the page shows it on request.
    """

    key: str
    title: str
    kind: str = "text"
    more: bool = False

    @property
    def is_number(self) -> bool:
        return self.kind != "text"


@dataclass(frozen=True)
class Table:
    """A table with a caption; a row has one cell per column, None or NaN where there is no value."""

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    @property
    def texts(self) -> list[list[str]]:
        """The rows as a reader sees them."""
        return [
            [text_of(cell, column.kind) for cell, column in zip(row, self.columns, strict=True)] for row in self.rows
        ]

    def to_csv(self) -> str:
        """Full precision; a summary becomes three columns, ``_mean``, ``_std`` and ``_num``."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        wide = [any(isinstance(row[i], Summary) for row in self.rows) for i in range(len(self.columns))]
        header: list[str] = []
        for column, is_wide in zip(self.columns, wide, strict=True):
            parts = ("_mean", "_std", "_num") if is_wide else ("",)
            header += [f"{column.key}{part}" for part in parts]
        writer.writerow(map(neutral, header))
        for row in self.rows:
            cells: list[Cell] = []
            for cell, is_wide in zip(row, wide, strict=True):
                cells += _wide(cell) if is_wide else [cell]
            writer.writerow(["" if _absent(cell) else neutral(cell) for cell in cells])
        return text.getvalue()

    def to_markdown(self) -> str:
        kinds = ["---:" if column.is_number else ":---" for column in self.columns]
        titles, *rows = [[*map(markdown_text, row)] for row in ([column.title for column in self.columns], *self.texts)]
        lines = [markdown_row(row) for row in (titles, kinds, *rows)]
        return f"{markdown_text(self.caption)}\n\n" + "\n".join(lines) + "\n"

    def to_latex(self) -> str:
        """A ``table`` environment; the document needs ``\\usepackage{booktabs}``."""
        import pandas as pd  # here, because the tables of `hsl runs` have no need of it

        rows = [[latex_text(text) for text in row] for row in self.texts]
        frame = pd.DataFrame(rows, columns=[latex_text(column.title) for column in self.columns])
        table = frame.style.hide(axis="index").to_latex(
            caption=latex_text(self.caption),
            label=f"tab:{self.name.replace('_', '-')}",
            column_format="".join("r" if column.is_number else "l" for column in self.columns),
            position_float="centering",
            hrules=True,
        )
        return f"% needs \\usepackage{{booktabs}}\n{table}"


Field: TypeAlias = tuple[Column, Callable[[Any], Cell]]
"""A column, and what is read for it of what a row is about."""


def table_of(name: str, caption: str, fields: Sequence[Field], items: Iterable[Any]) -> Table:
    """A table with a row for each item."""
    rows = [[read(item) for _, read in fields] for item in items]
    return Table(name, caption, [column for column, _ in fields], rows)


def write_table(table: Table, folder: Path) -> None:
    """Write ``<name>.csv``, ``<name>.md`` and ``<name>.tex``."""
    texts = {"csv": table.to_csv(), "md": table.to_markdown(), "tex": table.to_latex()}
    for suffix, text in texts.items():
        write_atomically(folder / f"{table.name}.{suffix}", text.encode())


def text_of(cell: Cell, kind: str) -> str:
    """What a reader sees.

    >>> text_of(Summary(0.6123, 0.013, 3), "share"), text_of(Summary(0.6123, math.nan, 1), "share")
    ('61.23 ± 1.30', '61.23 (1 fold)')
    >>> text_of(0.00004, "p"), text_of(math.nan, "share"), text_of(3, "count")
    ('<0.0001', '–', '3')
    """
    if isinstance(cell, Summary):
        if cell.num == 0:
            return NONE
        if cell.num == 1:
            return f"{text_of(cell.mean, kind)} (1 {'picture' if kind == 'pictures' else 'fold'})"
        return f"{text_of(cell.mean, kind)} ± {text_of(cell.std, kind)}"
    if cell is None or _absent(cell):
        return NONE
    if isinstance(cell, str) or kind in ("text", "count"):
        return str(cell)
    if kind in _FORMATS:
        return format(cell, _FORMATS[kind])
    if kind == "points":
        return f"{100 * cell:+.2f}"
    if kind == "p":
        return "<0.0001" if cell < 0.0001 else f"{cell:.4f}"
    if kind == "seconds":
        minutes, seconds = divmod(round(cell), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{seconds:02d}"
    return f"{100 * cell:.2f}"


def interval_cell(interval: Interval | None, kind: str) -> str | None:
    """Both ends as a reader sees them.

    >>> interval_cell(Interval(0.5, 0.25, 0.75), "share"), interval_cell(None, "share")
    ('[25.00, 75.00]', None)
    """
    return f"[{text_of(interval.low, kind)}, {text_of(interval.high, kind)}]" if interval else None


def latex_text(text: str) -> str:
    """Escaped for LaTeX; pandas' own escape leaves "±", "·" and "≥", which some fonts do not have.

    >>> latex_text("mit_b3 ± 5 %")
    'mit\\\\_b3 $\\\\pm$ 5 \\\\%'
    """
    return "".join(_LATEX.get(letter, letter) for letter in visible(text))


def _absent(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _wide(cell: Cell) -> list[Cell]:
    return [cell.mean, cell.std, cell.num] if isinstance(cell, Summary) else [cell, None, None]
