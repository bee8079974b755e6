"""The report as one HTML file that opens without a network, and the page over reports on several data sets."""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hsl.files.io import write_atomically
from hsl.metrics.catalogue import SCORES
from hsl.reports.models import Model
from hsl.reports.page import facts, thumbnails
from hsl.reports.page.failure_gallery import KINDS, failure_gallery
from hsl.reports.page.galleries import Shown, galleries, stored_pictures
from hsl.reports.page.notes import Note
from hsl.reports.plots.palette import SERIES, SERIES_DARK, hex_colour
from hsl.reports.plots.plot_files import Plot
from hsl.reports.plots.report_plots import pooled_iou
from hsl.reports.plots.score_plots import slug
from hsl.reports.statistics.comparisons import Comparison
from hsl.reports.statistics.paired_tests import Summary
from hsl.reports.statistics.part_tests import differs
from hsl.reports.tables.comparison_tables import parts_of, told
from hsl.reports.tables.score_tables import Cell, Column, Table
from hsl.reports.tables.titles import title_of
from hsl.run_folder.run import Run, ScoredOn

PLACED = (
    "ranking",
    "ranking_test",
    "pairwise",
    "per_class",
    "folds",
    "pictures",
    "tasks",
    "phases",
    "parts",
    "ablation",
    "image_ablation",
    "image_ranking",
    "image_ranking_test",
    "image_pairwise",
    "image_per_class",
    "image_thresholds",
    "image_folds",
)  # tables with a section of their own
NUMBERED = {"class": "class", "group": "group", "model": "model", "first": "model", "second": "model"}


def write_page(
    path: Path,
    runs: Sequence[Run],
    models: Sequence[Model],
    tables: Mapping[str, Table],
    plots: Mapping[str, Plot],
    comparisons: Sequence[Comparison],
    notes: Sequence[Note],
    num_pictures: int,
    metric: str,
    on: ScoredOn,
    image_title: str = "",
    data: str = "",
    answers: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Render and write ``index.html``.

    Args:
        path: the file.
        runs: every run folder found.
        models: in the order of the ranking.
        tables: by name; those without a place of their own come under "More tables".
        plots: by name, as `report_plots` returns them.
        comparisons: of every two models.
        notes: what the reader must know, warnings first.
        num_pictures: best, worst and disputed pictures shown, each.
        metric: the score that ranks.
        on: part and inference that it is taken on.
        image_title: name of the score that ranks the image heads, empty where there are none.
        data: name of the data set.
        answers: sentences that the page opens with, by what they are of.
    """
    ready = [model for model in models if model.finished]
    dense = [model for model in ready if model.classes]
    every = [*(model.classes for model in ready), *(model.on_images().classes for model in ready)]
    classes = list(dict.fromkeys(name for names in every for name in names))
    first = dense[0].classes if dense else []
    groups = _groups(runs)
    numbers = {"class": classes, "group": groups, "model": [model.label for model in models]}
    templates = page_templates(numbers)
    script = templates.get_template("table.js").render()
    packages = facts.package_rows(runs)
    content = templates.get_template("page.html.j2").render(
        created=datetime.now(UTC),
        runs=runs,
        models=models,
        ready=ready,
        tables=tables,
        rest=[table for name, table in tables.items() if name not in PLACED],
        comparisons=comparisons,
        notes=notes,
        scores=SCORES.values(),
        with_dense="ranking" in tables,
        ranked_by=", ".join(
            [title_of(metric)] * ("ranking" in tables) + [f"{image_title} of the image heads"] * bool(image_title)
        ),
        data=data,
        answers=answers or {},
        part=on.part,
        inference=on.inference,
        plots=plots,
        classes=classes,
        groups=groups,
        colours=[(name, hex_colour(i)) for i, name in enumerate(first)],
        heat=pooled_iou(dense, on),
        without_counts=[model.label for model in dense if model.counts(on) is None],
        without_objects=[model.label for model in dense if not model.objects(on)],
        pictures=galleries(dense, first, num_pictures),
        failures=_failures(dense, first, on.part),
        failure_titles=KINDS,
        audits=facts.audits(runs),
        parts_told=[(one, sum(map(differs, one.tests)), told(one)) for one in parts_of(runs)],
        packages=packages,
        mixed=any(len(versions) > 1 for _, versions in packages),
        series=SERIES,
        series_dark=SERIES_DARK,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write_atomically(path, content.encode())


def _groups(runs: Sequence[Run]) -> list[str]:
    named = {row.group for run in runs for rows in run.images.values() for row in rows.values()}
    named |= {group for run in runs for pictures in run.image_pictures.values() for group in pictures.groups}
    return sorted(named - {""})


def sort_value(cell: Cell, column: Column) -> Markup:
    """What a table is sorted by: the number itself, not its rounded text; nothing where there is no value.

    >>> sort_value(Summary(0.5, 0.1, 3), Column("miou", "mIoU", "share"))
    Markup(' data-sort="0.5"')
    """
    value = cell.mean if isinstance(cell, Summary) else cell
    if isinstance(value, str) or (value is None and not column.is_number):
        return Markup("")
    known = value is not None and math.isfinite(value)
    return Markup(' data-sort="{}"').format(repr(value) if known else "")


def classes_of(column: Column, table: Table) -> str:
    """How a column is set: numbers to the right, the model's column fixed while the others scroll."""
    fixed = next((each for each in table.columns if each.key in ("model", "first")), None)
    kinds = {
        "number": column.is_number,
        "tight": column.key in ("folds", "classes_scored", "fold"),
        "path": column.key in ("weights", "status", "verdict", "training"),
        "wide": column.key in ("changed", "parts"),
        "more": column.more,
        "fixed": column is fixed,
    }
    return " ".join(name for name, holds in kinds.items() if holds)


def row_numbers(table: Table, row: Sequence[Cell], numbers: Mapping[str, Sequence[str]]) -> Markup:
    """The attributes by which the filters find a row of a table: places in the lists of classes, groups, models."""
    found: dict[str, list[str]] = {}
    for column, cell in zip(table.columns, row, strict=True):
        if (key := NUMBERED.get(column.key)) and cell in numbers[key]:
            found.setdefault(key, []).append(str(cell))
    return attributes(found, numbers)


def attributes(names: Mapping[str, Sequence[str]], numbers: Mapping[str, Sequence[str]]) -> Markup:
    """``data-class="0 2"`` and the like.

    >>> attributes({"class": ["crack"], "model": []}, {"class": ["background", "crack"], "model": []})
    Markup(' data-class="1"')
    """
    places = {key: [numbers[key].index(name) for name in each if name in numbers[key]] for key, each in names.items()}
    return Markup("").join(
        Markup(' data-{}="{}"').format(key, " ".join(map(str, each))) for key, each in places.items() if each
    )


def page_templates(numbers: Mapping[str, Sequence[str]]) -> Environment:
    """The templates; ``numbers`` are the lists of classes, groups and models that the filters know."""
    found = Environment(
        loader=PackageLoader("hsl.reports", "html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def picture_numbers(one: Shown) -> Markup:
        return attributes({"class": one.classes, "group": [one.group], "model": one.models}, numbers)

    functions: dict[str, Any] = {
        "sort_value": sort_value,
        "classes_of": classes_of,
        "row_numbers": lambda table, row: row_numbers(table, row, numbers),
        "picture_numbers": picture_numbers,
        "model_number": lambda label: attributes({"model": [label]}, numbers),
        "boundary": {"hit": thumbnails.HIT, "missed": thumbnails.MISSED, "spurious": thumbnails.SPURIOUS},
    }
    found.globals.update(functions)
    return found


def _failures(models: Sequence[Model], classes: Sequence[str], part: str) -> dict[str, list[Shown]]:
    """The failure gallery of the part whose inputs and truths the runs kept, else of the part that is ranked."""
    kept = {one.part for one in stored_pictures(models).values()}
    parts = [each for each in (part, *sorted(kept)) if any(model.objects(ScoredOn(each)) for model in models)]
    chosen = next((each for each in parts if each in kept), next(iter(parts), None))
    return {} if chosen is None else failure_gallery(models, classes, chosen)


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
