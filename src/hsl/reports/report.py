"""From run folders to tables and a page, and what is printed of them: the answer, a table, the warnings."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.table import Table as RichTable

from hsl.console import PlainConsole
from hsl.files.io import write_atomically
from hsl.files.output_folder import OutputFolder
from hsl.reports.data_sets import UNNAMED, DataSet, data_sets
from hsl.reports.head_report import HeadReport, ablation_of, cv_results, head_report, image_results
from hsl.reports.models import Model, models_of
from hsl.reports.page.answer import Standing, answer
from hsl.reports.page.notes import Note, few_resamples, notes_on, warnings_of
from hsl.reports.page.report_page import Overview, names_of_folders, write_overview, write_page
from hsl.reports.plots.image_plots import image_plots
from hsl.reports.plots.plot_files import check_plot_files, save_plots
from hsl.reports.plots.report_plots import report_plots
from hsl.reports.statistics.ablation import check_base, find_base
from hsl.reports.tables.comparison_tables import parts_of, parts_table
from hsl.reports.tables.run_tables import phases_table
from hsl.reports.tables.score_tables import Table, write_table
from hsl.reports.tables.titles import title_of
from hsl.run_folder.run import Run, ScoredOn
from hsl.terminal import say

RANKINGS = ("ranking", "image_ranking")
HIDDEN = {"difference", "interval_adjusted", "adjusted_p", "trainings_p", "smallest"}  # a terminal is narrow


@dataclass(frozen=True)
class _Written:
    """What a report on one data set says."""

    data: str
    answers: Mapping[str, Sequence[str]]
    tables: Mapping[str, Table]
    notes: Sequence[Note]
    results: Mapping[str, Any]


def report_on(runs: Sequence[Run], cfg: DictConfig) -> Path:
    """Compare the models of runs and write everything into ``cfg.output``.

    Returns:
        The page.

    Raises:
        ConfigError: ``base`` is no model, ``pareto`` names no two tasks, or ``dpi`` or ``formats`` are none that plots
            can be saved in.
    """
    check_plot_files(cfg.dpi, cfg.formats)
    found, unknown = data_sets(runs)
    if len(found) <= 1:
        found, unknown = (
            [DataSet(found[0].name if found else UNNAMED, [*(found[0].runs if found else ()), *unknown])],
            [],
        )
    models = [models_of(each.runs, list(cfg.ignore), cfg.name_key) for each in found]
    check_base(models, cfg.base)
    with OutputFolder(cfg.output, "report") as output:
        written = _write_all(cfg, list(zip(found, models, strict=True)), unknown, output.work)
    page = output.path / "index.html"
    for one in written:
        print_report(one.answers, one.tables, one.notes)
    say(page)
    return page


def _write_all(
    cfg: DictConfig, found: Sequence[tuple[DataSet, Sequence[Model]]], unknown: Sequence[Run], output: Path
) -> list[_Written]:
    """One report for one data set; for several, one in a folder each and a page over them."""
    if len(found) == 1:
        return [_write_report(cfg, *found[0], output)]
    folders = names_of_folders([each.name for each, _ in found])
    written = [_write_report(cfg, *each, output / folder) for each, folder in zip(found, folders, strict=True)]
    parts = [
        Overview(one.data, folder, one.answers, [table for name, table in one.tables.items() if name in RANKINGS])
        for one, folder in zip(written, folders, strict=True)
    ]
    strays = [f"{run.folder}: {run.status}: {run.reason}" for run in unknown]
    write_overview(output / "index.html", parts, strays)
    told = [{"folder": folder, **one.results} for one, folder in zip(written, folders, strict=True)]
    results = {"data_sets": told, "runs_without_data": strays}
    write_atomically(output / "cv_results.json", json.dumps(results, indent=1, allow_nan=False).encode())
    return written


def _write_report(cfg: DictConfig, found: DataSet, models: Sequence[Model], output: Path) -> _Written:
    """Everything but what is printed."""
    data, runs, base = found.name, found.runs, None if cfg.base is None else find_base(models, str(cfg.base))
    parts = sorted({part for run in runs if run.metrics for part in run.metrics.parts if part != "stop"} | {cfg.part})
    on = ScoredOn(cfg.part, cfg.inference_name)
    metric = cfg.metric or ("foreground_iou" if any(run.overlapping for run in runs) else "miou")
    settings = (on, parts, cfg.resamples, cfg.seed)
    images = head_report(_with_image_head(models), cfg.image_metric, *settings)
    dense = head_report(_dense(models, bool(images.ranking)), metric, *settings)
    in_order = _once([*dense.models, *images.models], models)
    notes = notes_on(runs, in_order, on)
    notes = few_resamples(cfg.resamples, max(len(dense.comparisons), len(images.comparisons))) + notes
    notes += [Note("info", f"No model here is called {cfg.base}.")] if cfg.base is not None and base is None else []
    answers = _answers(data, {"": dense, "image heads": images}, warnings_of(notes, runs, models))
    tables = dict(dense.tables) | dict(images.tables)
    if base is not None:
        tables |= ablation_of(dense, base, on) | ablation_of(images, base, on)
    if (phases := phases_table(in_order)) is not None:
        tables["phases"] = phases
    if compared := parts_of(runs):
        tables["parts"] = parts_table(compared)
    for table in tables.values():
        write_table(table, output / "tables")
    labels = {model.label for model in dense.models}
    order = [*dense.ranking, *((None, model) for model in in_order if model.label not in labels)]
    numbers = cv_results(order, dense.comparisons, notes, runs, parts, dense.estimates)
    results = {"data": data, "answer": answers} | numbers | image_results(images, parts)
    write_atomically(output / "cv_results.json", json.dumps(results, indent=1, allow_nan=False).encode())
    ready = [model for model in in_order if model.finished]
    places = {model.label: i for i, model in enumerate(ready)}
    plots = report_plots(ready, metric, on, cfg.pareto) | image_plots(images.ready, places, cfg.image_metric, on)
    save_plots(list(plots.values()), output / "plots", cfg.dpi, cfg.formats)
    title = title_of(cfg.image_metric) if images.ranking else ""
    shown = (tables, plots, dense.comparisons, notes, cfg.num_pictures, metric, on, title, data, answers)
    write_page(output / "index.html", runs, in_order, *shown)
    return _Written(data, answers, tables, notes, results)


def _answers(data: str, reports: Mapping[str, HeadReport], warnings: Sequence[str]) -> dict[str, Sequence[str]]:
    """What the page opens with, of each kind of head; pixels have no name in a sentence."""
    every = [model for report in reports.values() for model in report.models]
    unit = "groups" if any(model.split and model.split.groups for model in every) else "pictures"
    answers: dict[str, Sequence[str]] = {}
    for of, report in reports.items():
        if report.models:
            labels = [model.label for model in report.ready]
            standing = Standing(data, report.metric, labels, report.estimates, report.comparisons, warnings, of, unit)
            answers[of or "pixels"] = answer(standing)
    return answers


def _with_image_head(models: Sequence[Model]) -> list[Model]:
    """As if that were all they were scored on, with those that never finished; none where no model has one."""
    found = [model.on_images() for model in models]
    found = [model for model in found if model.classes or not model.finished]
    return found if any(model.finished for model in found) else []


def _dense(models: Sequence[Model], with_images: bool) -> list[Model]:
    """Those with dense heads, and those that never finished; none where all that finished have image heads only."""
    found = [model for model in models if model.classes or not model.finished]
    return found if any(model.finished for model in found) or not with_images else []


def _once(ranked: Sequence[Model], models: Sequence[Model]) -> list[Model]:
    """The models in the order in which they are ranked first, with all that they were scored on."""
    by_label = {model.label: model for model in models}
    return [by_label[label] for label in dict.fromkeys(model.label for model in ranked)]


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
