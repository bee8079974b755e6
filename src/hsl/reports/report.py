"""`hsl report`: from run folders to tables and a page."""

import json
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from hsl.config import ConfigError
from hsl.files import write_atomically
from hsl.output_folder import OutputFolder
from hsl.reports import contents
from hsl.reports.comparison_tables import pairwise_classes_table, pairwise_table
from hsl.reports.comparisons import Comparison, compare, pooled_estimates
from hsl.reports.family_table import family_table
from hsl.reports.gather import gather
from hsl.reports.image_report import image_report, image_results
from hsl.reports.image_scores import IMAGE_METRICS
from hsl.reports.notes import Note, notes_on
from hsl.reports.object_tables import object_tables
from hsl.reports.page import write_page
from hsl.reports.phases_table import phases_table
from hsl.reports.picture_table import picture_table
from hsl.reports.plot_files import check_plot_files, save_plots
from hsl.reports.ranking import ranking_table
from hsl.reports.report_plots import report_plots
from hsl.reports.results import OVERALL, Model, models_of
from hsl.reports.run_folder import Run
from hsl.reports.tables import Table, write_table
from hsl.reports.task_table import task_table
from hsl.reports.variance import variance_table

PRINTED = {"rank", "model", "folds", "miou", "miou_tta", "miou_pooled", "accuracy", "macro_f1"}  # a terminal is narrow


def report(cfg: DictConfig) -> Path:
    """Compare the models of the runs that match ``cfg.runs`` and write everything into ``cfg.output``.

    Returns:
        The page.

    Raises:
        ConfigError: ``metric`` or ``image_metric`` is none of the scores, ``pareto`` names no two tasks, or ``dpi`` or
            ``formats`` are none that plots can be saved in.
        DataError: no run folder matches.
    """
    if cfg.metric not in OVERALL:
        raise ConfigError(f"`metric` should be one of {', '.join(OVERALL)}. Found `metric = {cfg.metric}`.")
    if cfg.image_metric not in IMAGE_METRICS:
        raise ConfigError(
            f"`image_metric` should be one of {', '.join(IMAGE_METRICS)}. Found `image_metric = {cfg.image_metric}`."
        )
    check_plot_files(cfg.dpi, cfg.formats)
    patterns = [cfg.runs] if isinstance(cfg.runs, str) else [str(pattern) for pattern in cfg.runs]
    with OutputFolder(cfg.output, "report") as output:
        tables, notes = _write_report(cfg, gather(patterns), output.work)
    page = output.path / "index.html"
    _print([tables[name] for name in ("ranking", "image_ranking") if name in tables], notes, page)
    return page


def _write_report(cfg: DictConfig, runs: Sequence[Run], output: Path) -> tuple[dict[str, Table], list[Note]]:
    """Everything but what is printed."""
    models = models_of(runs, list(cfg.ignore), cfg.name_key)
    parts = sorted({part for run in runs if run.metrics for part in run.metrics.parts} | {cfg.part})
    chosen = (cfg.part, cfg.inference_name)
    images = image_report(models, cfg.image_metric, *chosen, parts, cfg.resamples, cfg.seed)
    ranked = contents.ranked(_dense(models, bool(images.ranked)), cfg.metric, *chosen)
    dense = [model for _, model in ranked]
    in_order = dense + [model for _, model in images.ranked if model not in dense]
    pairs = compare(dense, *chosen, cfg.resamples, cfg.seed, cfg.metric)
    notes = notes_on(runs, in_order, *chosen)
    tables = (_tables(cfg, ranked, pairs, parts) if dense else {}) | dict(images.tables)
    if (phases := phases_table(in_order)) is not None:
        tables["phases"] = phases
    for table in tables.values():
        write_table(table, output / "tables")
    order = ranked + [(None, model) for model in in_order if model not in dense]
    results = contents.cv_results(order, pairs, notes, runs, parts) | image_results(images, parts)
    write_atomically(output / "cv_results.json", json.dumps(results, indent=1, allow_nan=False).encode())
    ready = [model for model in in_order if model.finished]
    places = {model.label: i for i, model in enumerate(ready)}
    plots = report_plots(ready, cfg.metric, *chosen, cfg.pareto) | images.plots(places, cfg.image_metric, *chosen)
    save_plots(list(plots.values()), output / "plots", cfg.dpi, cfg.formats)
    settings = (cfg.num_pictures, cfg.metric, *chosen, images.title)
    write_page(output / "index.html", runs, in_order, tables, plots, pairs, notes, *settings)
    return tables, list(notes)


def _dense(models: Sequence[Model], with_images: bool) -> list[Model]:
    """Those with dense heads, and those that never finished; none where all that finished have image heads only."""
    found = [model for model in models if model.classes or not model.finished]
    return found if any(model.finished for model in found) or not with_images else []


def _tables(
    cfg: DictConfig, ranked: Sequence[tuple[int | None, Model]], pairs: Sequence[Comparison], parts: Sequence[str]
) -> dict[str, Table]:
    """The tables of the dense heads, by name."""
    chosen = (cfg.part, cfg.inference_name)
    models = [model for _, model in ranked]
    estimates = pooled_estimates(models, *chosen, cfg.resamples, cfg.seed, cfg.metric)
    tables = {
        "ranking": ranking_table(ranked, cfg.part, cfg.metric, estimates, pairs, cfg.inference_name),
        "per_class": contents.per_class_table(models, cfg.part),
        "folds": contents.folds_table(models, cfg.part),
        "pairwise": pairwise_table(pairs, cfg.metric),
        "pairwise_classes": pairwise_classes_table(pairs),
        "pictures": picture_table(models, *chosen),
        "variance": variance_table(models, cfg.metric, *chosen),
    }
    tables |= {table.name: table for table in object_tables(models, *chosen)}
    if (families := family_table(models, *chosen, cfg.metric)) is not None:
        tables["families"] = families
    if any(model.tasks for model in models):
        tables["tasks"] = task_table(models, *chosen)
    if "test" in parts and cfg.part != "test":
        test = contents.ranked(models, cfg.metric, "test", cfg.inference_name)
        tables["ranking_test"] = ranking_table(test, "test", cfg.metric)
    return tables


def _print(tables: Sequence[Table], notes: Sequence[Note], page: Path) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = 120  # a file has no edge
    for table in tables:
        console.print(_shown(table))
    for note in notes:
        if note.level == "warning":
            console.print(f"! {note.text}", style="yellow", markup=False)
    print(page)


def _shown(table: Table) -> RichTable:
    shown = RichTable()
    kept = [i for i, column in enumerate(table.columns) if column.key in PRINTED]
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
        shown.add_row(*[escape(row[i]) for i in kept])
    return shown
