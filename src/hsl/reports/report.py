"""`hsl report`: from run folders to tables and a page."""

import json
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table as RichTable

from hsl.config import ConfigError
from hsl.files import write_atomically
from hsl.reports import contents
from hsl.reports.comparison_tables import pairwise_classes_table, pairwise_table
from hsl.reports.comparisons import compare, pooled_intervals
from hsl.reports.gather import gather
from hsl.reports.notes import Note, notes_on
from hsl.reports.object_tables import object_tables
from hsl.reports.page import write_page
from hsl.reports.picture_table import picture_table
from hsl.reports.plot_files import save_plots
from hsl.reports.report_plots import report_plots
from hsl.reports.results import OVERALL, models_of
from hsl.reports.tables import Table, write_table
from hsl.reports.task_table import task_table
from hsl.reports.variance import variance_table

PRINTED = ("rank", "model", "folds", "miou", "miou_tta", "miou_pooled")  # a terminal is narrow


def report(cfg: DictConfig) -> Path:
    """Compare the models of the runs that match ``cfg.runs`` and write everything into ``cfg.output``.

    Returns:
        The page.

    Raises:
        ConfigError: ``metric`` is none of the overall scores, or ``pareto`` names no two tasks.
        DataError: no run folder matches.
    """
    if cfg.metric not in OVERALL:
        raise ConfigError(f"`metric` should be one of {', '.join(OVERALL)}. Found `metric = {cfg.metric}`.")
    patterns = [cfg.runs] if isinstance(cfg.runs, str) else [str(pattern) for pattern in cfg.runs]
    output = Path(cfg.output)
    runs = gather(patterns)
    models = models_of(runs, list(cfg.ignore), cfg.name_key)
    ranked = contents.ranked(models, cfg.metric, cfg.part, cfg.inference_name)
    in_order = [model for _, model in ranked]
    parts = sorted({part for run in runs if run.metrics for part in run.metrics.parts} | {cfg.part})
    pairs = compare(in_order, cfg.part, cfg.inference_name, cfg.resamples, cfg.seed, cfg.metric)
    intervals = pooled_intervals(in_order, cfg.part, cfg.inference_name, cfg.resamples, cfg.seed, cfg.metric)
    notes = notes_on(runs, in_order, cfg.part, cfg.inference_name)
    tables = {
        "ranking": contents.ranking_table(ranked, cfg.part, cfg.metric, intervals),
        "per_class": contents.per_class_table(in_order, cfg.part),
        "folds": contents.folds_table(in_order, cfg.part),
        "pairwise": pairwise_table(pairs, cfg.metric),
        "pairwise_classes": pairwise_classes_table(pairs),
        "pictures": picture_table(in_order, cfg.part, cfg.inference_name),
        "variance": variance_table(in_order, cfg.metric, cfg.part, cfg.inference_name),
    }
    tables |= {table.name: table for table in object_tables(in_order, cfg.part, cfg.inference_name)}
    if any(model.tasks for model in in_order):
        tables["tasks"] = task_table(in_order, cfg.part, cfg.inference_name)
    if "test" in parts and cfg.part != "test":
        test = contents.ranked(models, cfg.metric, "test", cfg.inference_name)
        tables["ranking_test"] = contents.ranking_table(test, "test")
    for table in tables.values():
        write_table(table, output / "tables")
    results = contents.cv_results(ranked, pairs, notes, runs, parts)
    write_atomically(output / "cv_results.json", json.dumps(results, indent=1, allow_nan=False).encode())
    page = output / "index.html"
    ready = [model for model in in_order if model.finished]
    plots = report_plots(ready, cfg.metric, cfg.part, cfg.inference_name, cfg.pareto)
    save_plots(list(plots.values()), output / "plots")
    settings = (cfg.num_pictures, cfg.metric, cfg.part, cfg.inference_name)
    write_page(page, runs, in_order, tables, plots, pairs, notes, *settings)
    _print(tables["ranking"], notes, page)
    return page


def _print(table: Table, notes: Sequence[Note], page: Path) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = 120  # a file has no edge
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
        shown.add_row(*[row[i] for i in kept])
    console.print(shown)
    for note in notes:
        if note.level == "warning":
            console.print(f"! {note.text}", style="yellow", markup=False)
    print(page)
