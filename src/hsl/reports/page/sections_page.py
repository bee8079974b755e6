"""A page of sections with tables, plots and pictures: of an ensemble, of a study, of a gate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsl.files.io import write_atomically
from hsl.reports.page.galleries import View
from hsl.reports.page.report_page import page_templates
from hsl.reports.plots.palette import SERIES, SERIES_DARK
from hsl.reports.plots.plot_files import Plot
from hsl.reports.tables.score_tables import Table


@dataclass(frozen=True)
class PageSection:
    """A heading with what stands under it; ``commands`` show more of it, ``large`` shows its pictures twice as wide."""

    title: str
    text: str = ""
    commands: Sequence[str] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    views: Sequence[View] = ()
    large: bool = False


def write_sections_page(
    path: Path,
    title: str,
    facts: Sequence[str],
    answers: Mapping[str, Sequence[str]],
    parts: Mapping[str, Sequence[PageSection]],
) -> None:
    """Render and write ``index.html``.

    Args:
        path: the file.
        title: of the page.
        facts: what holds of all numbers, a sentence each.
        answers: sentences that the page opens with, by what they are about.
        parts: sections by the heading above them.
    """
    template = page_templates({"class": [], "group": [], "model": []}).get_template("sections.html.j2")
    content = template.render(
        title=title, facts=facts, answers=answers, parts_of_page=parts, series=SERIES, series_dark=SERIES_DARK
    )
    write_atomically(path, content.encode())
