"""What an evaluation leaves in a run folder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.callbacks import ModelCheckpoint

from hsl.callbacks.evaluation import Evaluation, PartResult
from hsl.data.datamodule import DataModule
from hsl.data.prepared import PreparedData
from hsl.errors import ConfigError
from hsl.files.io import null_for_nan
from hsl.files.names import below
from hsl.files.split_file import Split, read_split
from hsl.metrics.objects.average_precision import NAMED, pool_precision
from hsl.metrics.objects.jaccard import pool_objects
from hsl.metrics.objects.panoptic import pool_panoptic
from hsl.reports.page import pictures
from hsl.reports.plots import run_plots as plots
from hsl.run_folder.checkpoint import read_checkpoint
from hsl.run_folder.history import curves, read_history
from hsl.run_folder.layout import (
    HISTORY,
    METRICS,
    OBJECTS,
    PIXEL_COUNTS,
    PREDICTIONS,
    SPLITS,
    best_checkpoint,
    task_counts,
)
from hsl.run_folder.pictures import write_images
from hsl.run_folder.provenance import read_provenance
from hsl.run_folder.scores import read_metrics, write_metrics
from hsl.run_folder.stored_counts import read_lines, write_pixel_counts
from hsl.verbs.scoring.dense_results import dense_scores, image_rows, pixel_counts
from hsl.verbs.scoring.image_results import write_image_results


@dataclass
class Monitored:
    """The value that chose the best checkpoint."""

    name: str
    mode: str
    value: float
    epoch: int
    checkpoint: str

    @classmethod
    def of(cls, callback: ModelCheckpoint, folder: Path) -> "Monitored":
        """Read it off the checkpoint callback after training.

        Raises:
            ConfigError: the value never existed, so no checkpoint was chosen.
        """
        value = callback.best_model_score
        if value is None or not math.isfinite(float(value)):
            raise ConfigError(
                f"`monitor` should be a value that is logged and finite. Found `monitor = {callback.monitor}` with "
                f"{value}. {HISTORY} in the run folder lists what is logged; a training that `trainer.max_time` ends "
                "before its first validation logs nothing."
            )
        best = read_checkpoint(Path(callback.best_model_path), ("epoch",))
        checkpoint = str(best_checkpoint(folder))
        return cls(str(callback.monitor), callback.mode, float(value), int(best["epoch"]), checkpoint)

    @classmethod
    def read(cls, folder: Path) -> "Monitored":
        """Read it from a finished run folder.

        Raises:
            ConfigError: the run has not finished.
        """
        if not (folder / METRICS).is_file():
            raise ConfigError(f"`run` should be a finished run. Found `run = {folder}` without {METRICS}.")
        monitor = read_metrics(folder).monitor
        checkpoint = str(best_checkpoint(folder))
        value = math.nan if monitor.value is None else monitor.value
        return cls(monitor.name, monitor.mode, value, monitor.epoch, checkpoint)


def check_same_split(run: Path, split: Split) -> None:
    """Refuse data, or a fold assignment, that the run was not trained on.

    Raises:
        ConfigError: the pictures differ, or a picture changed sides.
    """
    trained = read_split(run / SPLITS)
    if split.sha256 != trained.sha256:
        raise ConfigError(
            f"The data should be those of the run (split {trained.sha256[:12]}). Found split {split.sha256[:12]}: "
            "pictures were added, removed or changed. Point `data_root` to the data the run was trained on."
        )
    if (split.folds, split.test) != (trained.folds, trained.test):
        raise ConfigError(
            f"The fold assignment should be that of `{run / SPLITS}`. Found another, so a picture that was "
            "trained on could be scored. Restore the labels and groups of the data set."
        )


def check_same_classes(run: Path, data: PreparedData) -> None:
    """Refuse a task definition, or a class list, that is not the one that the run was trained on.

    Raises:
        ConfigError: the classes of a head differ.
    """
    trained = read_provenance(run)["classes"]
    found = {head: list(names) for head, names in data.classes.items()}
    if found != trained:
        raise ConfigError(
            f"The classes should be those that the run was trained on, {trained}. Found {found}. Restore the data "
            "set's class list, or the file that `data.tasks` names."
        )


def write_results(folder: Path, evaluations: list[Evaluation], data: DataModule, monitored: Monitored) -> None:
    """Write tables, plots, example pictures, results.json, and last metrics.json: its presence means complete."""
    tables: dict[str, dict[str, Any]] = {
        part: {e.inference: {} for e in evaluations} for part in data.prepared.evaluation_parts
    }
    dense = any(evaluation.parts for evaluation in evaluations)  # a classifier has no dense head
    if dense:
        _write_dense(folder, evaluations, data, tables)
    for part, by_inference in write_image_results(folder, evaluations, data.prepared).items():
        for inference, found in by_inference.items():
            tables[part][inference]["image_heads"] = found
    objects = read_lines(folder) if (folder / OBJECTS).is_file() else None
    for part, by_inference in _instance_scores(objects or []).items():
        for inference, found in by_inference.items():
            tables[part][inference]["instances"] = found
    _plot_curves(folder, monitored)
    classes = data.prepared.classes if dense else {}
    page = {
        "monitor": {
            "name": monitored.name,
            "mode": monitored.mode,
            "value": monitored.value,
            "epoch": monitored.epoch,
        },
        "classes": list(classes.get("segmentation", ())),
        "task_classes": {head: list(names) for head, names in classes.items() if head != "segmentation"},
        "image_classes": {head: list(names) for head, names in data.prepared.image_classes.items()},
        "overlapping": dense and data.prepared.heads.overlapping,
        "parts": {part: {name: one for name, one in found.items() if one} for part, found in tables.items()},
        "objects": None if objects is None else _object_summary(objects),
    }
    write_metrics(folder, null_for_nan(page))


def _write_dense(
    folder: Path,
    evaluations: list[Evaluation],
    data: DataModule,
    tables: dict[str, dict[str, Any]],
) -> None:
    """The dense heads: rows, counts, plots and examples into the folder, their scores into ``tables``."""
    parts = data.prepared.evaluation_parts
    results = [(part, e.inference, e.parts[i]) for i, part in enumerate(parts) for e in evaluations if i in e.parts]
    classes = data.prepared.classes["segmentation"]
    kept = evaluations[0].inference  # the predictor whose class maps are in the folder
    write_images(
        folder,
        [
            row
            for part, inference, result in results
            for row in image_rows(part, inference, result, classes, data.prepared.group, inference == kept)
        ],
    )
    write_pixel_counts(folder / PIXEL_COUNTS, pixel_counts(results))
    for part, inference, result in results:
        tables[part][inference] |= dense_scores(result, classes)
    for head, found in _task_results(parts, evaluations).items():
        write_pixel_counts(below(folder, task_counts(head)), pixel_counts(found))
        for part, inference, result in found:
            tables[part][inference].setdefault("tasks", {})[head] = dense_scores(result, data.prepared.classes[head])
    _plot(folder, tables, data)
    for part, _, result in results:
        best, worst = result.examples()
        if part == parts[-1] and best:
            pictures.write_examples(
                folder / PREDICTIONS, best, worst, data.original, classes, data.prepared.heads.overlapping
            )


def _task_results(parts: Sequence[str], evaluations: list[Evaluation]) -> dict[str, list[tuple[str, str, PartResult]]]:
    """By task what a multi-task model knows beside the global space; empty for a model of one head."""
    found: dict[str, list[tuple[str, str, PartResult]]] = {}
    for i, part in enumerate(parts):
        for evaluation in evaluations:
            for head, result in sorted(evaluation.tasks.get(i, {}).items()):
                found.setdefault(head, []).append((part, evaluation.inference, result))
    return found


def _plot(folder: Path, tables: dict[str, dict[str, Any]], data: DataModule) -> None:
    """The pictures of the last part: the test part where there is one, else validation."""
    part, classes = data.prepared.evaluation_parts[-1], data.prepared.classes["segmentation"]
    shown = tables[part]
    first = next(iter(shown))
    confusion = np.array(shown[first]["confusion"], dtype=np.int64)
    plots.confusion_plot(confusion, classes, folder / "confusion_matrix.png", f"{part}, {first}")
    ious = {name: [row["iou"] for row in one["per_class"].values()] for name, one in shown.items()}
    plots.iou_per_class(ious, classes, folder / "iou_per_class.png", part)
    plots.class_distribution(data.prepared.pixels_per_part(), classes, folder / "class_distribution.png")


def _plot_curves(folder: Path, monitored: Monitored) -> None:
    if found := curves(read_history(folder)):
        plots.training_curves(found, folder / "training_curves.png", monitored.name, monitored.epoch)


def _instance_scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Part -> inference -> AJI, F1, PQ and AP of the objects, where the pool counted them (``metrics=instances``)."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for where in sorted({row["part"] for row in rows}):
        counted = [row["metrics"] for row in rows if row["part"] == where and "objects" in row["metrics"]]
        if counted:
            part, inference = where.split("/")
            pooled = pool_objects([each["objects"] for each in counted])
            matched = [each["panoptic"] for each in counted if "panoptic" in each]
            values = pool_panoptic(matched) | pool_precision(matched)
            pooled |= {name: float(values[name][1]) for name in ("pq", *NAMED)}
            found.setdefault(part, {})[inference] = pooled
    return found


def _object_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many pictures the metric pool scored, and which have an error record instead of a score."""
    failed = [{"part": row["part"], "id": row["id"], "metrics": sorted(row["errors"])} for row in rows if row["errors"]]
    return {"num_pictures": len(rows), "failed": failed}
