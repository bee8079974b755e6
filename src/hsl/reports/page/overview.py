"""The page over reports on several data sets: one answer and one table each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hsl.files.io import write_atomically
from hsl.reports.page.report_page import page_templates
from hsl.reports.plots.palette import SERIES, SERIES_DARK
from hsl.reports.plots.score_plots import slug
from hsl.reports.tables.score_tables import Table


@dataclass(frozen=True)
class Overview:
    """What is shown of a data set; ``folder`` is where its own report lies."""

    name: str
    folder: str
    answers: Mapping[str, Sequence[str]]
    tables: Sequence[Table]


def names_of_folders(names: Sequence[str]) -> list[str]:
    """A folder for each data set, no two alike.

    >>> names_of_folders(["coral", "coral (split 12ab34cd)", "Coral"])
    ['coral', 'coral-split-12ab34cd', 'Coral-3']
    """
    found: list[str] = []
    for i, name in enumerate(names, start=1):
        folder = slug(name).lstrip(".") or "data"
        taken = {each.lower() for each in found} | {"tables", "plots"}
        found.append(f"{folder}-{i}" if folder.lower() in taken else folder)
    return found


def write_overview(path: Path, parts: Sequence[Overview], strays: Sequence[str]) -> None:
    """Render and write the page.

    Args:
        path: the file.
        parts: one per data set.
        strays: what is said of runs whose data set is not known.
    """
    named = [
        replace(part, tables=[replace(table, name=f"{table.name}_{i}") for table in part.tables])
        for i, part in enumerate(parts, start=1)
    ]
    numbers: dict[str, list[str]] = {"class": [], "group": [], "model": []}
    template = page_templates(numbers).get_template("overview.html.j2")
    content = template.render(parts=named, strays=strays, series=SERIES, series_dark=SERIES_DARK)
    write_atomically(path, content.encode())
