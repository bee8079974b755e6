"""`hsl report`: from run folders to tables and a page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from hsl.errors import ConfigError
from hsl.files.io import write_atomically
from hsl.files.output_folder import OutputFolder
from hsl.reports import contents
from hsl.reports.data_sets import UNNAMED, DataSet, data_sets
from hsl.reports.gather import gather
from hsl.reports.images.image_report import ImageReport, image_report, image_results
from hsl.reports.images.model_scores import IMAGE_METRICS, image_summary
from hsl.reports.models import OVERALL, Model, models_of
from hsl.reports.page.answer import Standing, answer
from hsl.reports.page.notes import Note, few_resamples, notes_on, warnings_of
from hsl.reports.page.overview import Overview, names_of_folders, write_overview
from hsl.reports.page.report_page import write_page
from hsl.reports.plots.plot_files import check_plot_files, save_plots
from hsl.reports.plots.report_plots import report_plots
from hsl.reports.statistics.ablation import ablation_table, check_base, find_base
from hsl.reports.statistics.comparisons import Comparison, compare, pooled_estimates
from hsl.reports.statistics.ranking import ranking_table
from hsl.reports.statistics.resampling import Estimate
from hsl.reports.statistics.variance import variance_table
from hsl.reports.tables.comparison_tables import pairwise_classes_table, pairwise_table
from hsl.reports.tables.family_table import family_table
from hsl.reports.tables.object_tables import object_tables
from hsl.reports.tables.part_tables import parts_of, parts_table
from hsl.reports.tables.phases_table import phases_table
from hsl.reports.tables.picture_table import picture_table
from hsl.reports.tables.score_tables import Table, write_table
from hsl.reports.tables.task_table import task_table
from hsl.reports.tables.terminal_table import RANKINGS, print_report
from hsl.run_folder.run import Run, ScoredOn
from hsl.terminal import say


@dataclass(frozen=True)
class _Written:
    """What a report on one data set says."""

    data: str
    answers: Mapping[str, Sequence[str]]
    tables: Mapping[str, Table]
    notes: Sequence[Note]
    results: Mapping[str, Any]


def report(cfg: DictConfig) -> Path:
    """Compare the models of the runs that match ``cfg.runs`` and write everything into ``cfg.output``.

    Returns:
        The page.

    Raises:
        ConfigError: ``metric`` or ``image_metric`` is none of the scores, ``base`` no model, ``pareto`` names no two
            tasks, or ``dpi`` or ``formats`` are none that plots can be saved in.
        DataError: no run folder matches.
    """
    if cfg.metric is not None and cfg.metric not in OVERALL:
        raise ConfigError(f"`metric` should be one of {', '.join(OVERALL)}. Found `metric = {cfg.metric}`.")
    if cfg.image_metric not in IMAGE_METRICS:
        raise ConfigError(
            f"`image_metric` should be one of {', '.join(IMAGE_METRICS)}. Found `image_metric = {cfg.image_metric}`."
        )
    check_plot_files(cfg.dpi, cfg.formats)
    patterns = [cfg.runs] if isinstance(cfg.runs, str) else [str(pattern) for pattern in cfg.runs]
    runs = gather(patterns)
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
    parts = sorted({part for run in runs if run.metrics for part in run.metrics.parts} | {cfg.part})
    on = ScoredOn(cfg.part, cfg.inference_name)
    overlapping = any(run.overlapping for run in runs)
    metric = cfg.metric or ("foreground_iou" if overlapping else "miou")
    images = image_report(models, cfg.image_metric, on, parts, cfg.resamples, cfg.seed)
    ranked = contents.ranked(_dense(models, bool(images.ranked)), metric, on)
    dense = [model for _, model in ranked]
    in_order = dense + [model for _, model in images.ranked if model not in dense]
    pairs = compare(dense, on, cfg.resamples, cfg.seed, metric)
    estimates = pooled_estimates(dense, on, cfg.resamples, cfg.seed, metric)
    notes = notes_on(runs, in_order, on)
    notes = few_resamples(cfg.resamples, max(len(pairs), len(images.comparisons))) + notes
    notes += [Note("info", f"No model here is called {cfg.base}.")] if cfg.base is not None and base is None else []
    warnings = warnings_of(notes, runs, models)
    unit = "groups" if any(model.split and model.split.groups for model in models) else "pictures"
    answers: dict[str, Sequence[str]] = {}
    if dense:
        labels = [model.label for model in dense if model.finished]
        answers["pixels"] = answer(Standing(data, metric, labels, estimates, pairs, warnings, unit=unit))
    if images.ranked:
        labels, of = [model.label for model in images.models], "image heads"
        standing = Standing(data, images.metric, labels, images.estimates, images.comparisons, warnings, of, unit)
        answers[of] = answer(standing)
    tables = (_tables(cfg, metric, ranked, pairs, estimates, parts) if dense else {}) | dict(images.tables)
    if base is not None:
        tables |= _ablations(cfg, metric, base, dense, pairs, estimates, images)
    if (phases := phases_table(in_order)) is not None:
        tables["phases"] = phases
    if compared := parts_of(runs):
        tables["parts"] = parts_table(compared)
    for table in tables.values():
        write_table(table, output / "tables")
    order = ranked + [(None, model) for model in in_order if model not in dense]
    results = {"data": data, "answer": answers} | contents.cv_results(order, pairs, notes, runs, parts, estimates)
    results |= image_results(images, parts)
    write_atomically(output / "cv_results.json", json.dumps(results, indent=1, allow_nan=False).encode())
    ready = [model for model in in_order if model.finished]
    places = {model.label: i for i, model in enumerate(ready)}
    plots = report_plots(ready, metric, on, cfg.pareto) | images.plots(places, cfg.image_metric, on)
    save_plots(list(plots.values()), output / "plots", cfg.dpi, cfg.formats)
    settings = (cfg.num_pictures, metric, on, images.title)
    write_page(output / "index.html", runs, in_order, tables, plots, pairs, notes, *settings, data, answers)
    return _Written(data, answers, tables, notes, results)


def _ablations(
    cfg: DictConfig,
    metric: str,
    base: Model,
    dense: Sequence[Model],
    pairs: Sequence[Comparison],
    estimates: Mapping[str, Estimate],
    images: ImageReport,
) -> dict[str, Table]:
    """Of pixels and of image heads, as far as the base has them."""
    on = ScoredOn(cfg.part, cfg.inference_name)
    tables = {}
    if any(model is base for model in dense):
        means = {model.label: model.summary(metric, on) for model in dense}
        tables["ablation"] = ablation_table(dense, base, metric, means, estimates, pairs)
    if any(model is base for model in images.models):
        means = {model.label: image_summary(model, images.metric, on) for model in images.models}
        of = (images.models, base, images.metric, means, images.estimates, images.comparisons)
        tables["image_ablation"] = ablation_table(*of, name="image_ablation")
    return tables


def _dense(models: Sequence[Model], with_images: bool) -> list[Model]:
    """Those with dense heads, and those that never finished; none where all that finished have image heads only."""
    found = [model for model in models if model.classes or not model.finished]
    return found if any(model.finished for model in found) or not with_images else []


def _tables(
    cfg: DictConfig,
    metric: str,
    ranked: Sequence[tuple[int | None, Model]],
    pairs: Sequence[Comparison],
    estimates: Mapping[str, Estimate],
    parts: Sequence[str],
) -> dict[str, Table]:
    """The tables of the dense heads, by name."""
    on = ScoredOn(cfg.part, cfg.inference_name)
    models = [model for _, model in ranked]
    tables = {
        "ranking": ranking_table(ranked, cfg.part, metric, estimates, pairs, cfg.inference_name),
        "per_class": contents.per_class_table(models, cfg.part),
        "folds": contents.folds_table(models, cfg.part),
        "pairwise": pairwise_table(pairs, metric),
        "pairwise_classes": pairwise_classes_table(pairs),
        "pictures": picture_table(models, on),
        "variance": variance_table(models, metric, on),
    }
    tables |= {table.name: table for table in object_tables(models, on)}
    if (families := family_table(models, on, metric)) is not None:
        tables["families"] = families
    if any(model.tasks for model in models):
        tables["tasks"] = task_table(models, on)
    if "test" in parts and cfg.part != "test":
        test = contents.ranked(models, metric, ScoredOn("test", cfg.inference_name))
        tables["ranking_test"] = ranking_table(test, "test", metric)
    return tables
