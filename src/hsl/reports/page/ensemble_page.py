"""The page of an ensemble: the recommendation, the stages side by side, and what they rest on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsl.files.io import write_atomically
from hsl.reports.page.report_page import page_templates
from hsl.reports.plots.palette import SERIES, SERIES_DARK
from hsl.reports.plots.plot_files import Plot
from hsl.reports.tables.score_tables import Table


@dataclass(frozen=True)
class PageSection:
    """A heading with what stands under it."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()


def write_ensemble_page(
    path: Path,
    data: str,
    facts: Sequence[str],
    answers: Mapping[str, Sequence[str]],
    heads: Mapping[str, Sequence[PageSection]],
) -> None:
    """Render and write ``index.html``.

    Args:
        path: the file.
        data: name of the data set.
        facts: what holds of all numbers, a sentence each.
        answers: sentences that the page opens with, by head.
        heads: sections by head.
    """
    template = page_templates({"class": [], "group": [], "model": []}).get_template("ensemble.html.j2")
    content = template.render(
        data=data, facts=facts, answers=answers, heads=heads, series=SERIES, series_dark=SERIES_DARK
    )
    write_atomically(path, content.encode())
