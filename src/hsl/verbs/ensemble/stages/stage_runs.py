"""What a stage says of pictures it was not fitted on, as a run folder of each fold: a report takes it for a model."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from hsl.callbacks.evaluation import ImageResult, PartResult
from hsl.ensembles.rows import Rows
from hsl.files.io import null_for_nan
from hsl.files.split_file import write_split
from hsl.heads import Head
from hsl.run_folder.layout import PIXEL_COUNTS, SPLITS
from hsl.run_folder.pictures import write_images
from hsl.run_folder.provenance import write_config, write_provenance
from hsl.run_folder.run import Run
from hsl.run_folder.scores import write_metrics
from hsl.run_folder.stored_counts import write_pixel_counts
from hsl.verbs.scoring.dense_results import dense_scores, image_rows, pixel_counts
from hsl.verbs.scoring.image_results import tune_thresholds, write_image_tables

INFERENCE = "plain"
OF_MEMBERS = "members"
"""Where the first weights of a stage come from, as `hsl.run_folder.run.Run.initialisation` tells it."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Rows of a part and the ``(N, K)`` probabilities that a combination gives them."""

    rows: Rows
    probabilities: NDArray[np.float64]


def write_image_stage(
    folder: Path, label: str, nested: Predictions, test: Predictions | None, head: Head, runs: Mapping[int, Run]
) -> list[Path]:
    """Write a run folder ``fold<k>`` for each fold, with the predictions of its validation pictures.

    Where a picture may show several classes, the thresholds of a fold are those of the pictures of all other folds.

    Args:
        folder: of the stage.
        label: what the report calls it.
        nested: what the stage says of out-of-fold rows, each without having been fitted on it.
        test: what it says, fitted on all of those, of the test part: the same in every folder.
        head: the image head.
        runs: a run of each fold, whose data and split these are.

    Returns:
        The run folders.
    """
    made, rows = [], nested.rows
    for fold, run in sorted(runs.items()):
        limits = None
        if head.several:
            rest = np.flatnonzero(rows.folds != fold)
            limits = {head.name: tune_thresholds(nested.probabilities[rest], np.asarray(rows.labels)[rest])}
        path = folder / f"fold{fold}"
        _write_facts(path, label, fold, run)
        known = [rows] if test is None else [rows, test.rows]
        groups = {name: group for some in known for name, group in zip(some.ids, some.groups, strict=True)}
        results = [("val", INFERENCE, image_result(head, nested, np.flatnonzero(rows.folds == fold)))]
        if test is not None:
            results.append(("test", INFERENCE, image_result(head, test, np.arange(len(test.rows.ids)))))
        tables = write_image_tables(path, results, groups.__getitem__, "val", limits)
        parts = {part: {way: {"image_heads": heads} for way, heads in ways.items()} for part, ways in tables.items()}
        score = "macro_f1" if head.several else "accuracy"
        value = parts["val"][INFERENCE]["image_heads"][head.name][score]
        page = metrics_page(f"val/{score}", value, parts, image_classes={head.name: list(head.classes)})
        write_metrics(path, null_for_nan(page))
        made.append(path)
    return made


def write_dense_stage(
    folder: Path,
    label: str,
    nested: PartResult,
    test: PartResult | None,
    head: Head,
    runs: Mapping[int, Run],
    groups: Mapping[str, str],
) -> list[Path]:
    """Write a run folder ``fold<k>`` for each fold, with the scores and counts of its validation pictures.

    Args:
        folder: of the stage.
        label: what the report calls it.
        nested: the pictures of all folds, each by what was not fitted on it.
        test: those of the test part, by what was fitted on all: the same in every folder.
        head: the dense head.
        runs: a run of each fold, whose data and split these are.
        groups: id -> group.
    """
    made = []
    for fold, run in sorted(runs.items()):
        path = folder / f"fold{fold}"
        _write_facts(path, label, fold, run)
        own = set(run.split.folds[fold].val) if run.split else set()
        results = [("val", INFERENCE, part_of(nested, own))] + ([("test", INFERENCE, test)] if test else [])
        of_group = groups.__getitem__
        rows = [row for each in results for row in image_rows(*each, head.classes, of_group, kept=False)]
        write_images(path, rows)
        write_pixel_counts(path / PIXEL_COUNTS, pixel_counts(results))
        parts = {part: {way: dense_scores(result, head.classes)} for part, way, result in results}
        page = metrics_page("val/miou", parts["val"][INFERENCE]["miou"], parts, classes=head.classes)
        write_metrics(path, null_for_nan(page))
        made.append(path)
    return made


def part_of(result: PartResult, ids: Collection[str]) -> PartResult:
    """Some of the pictures of a result."""
    chosen = PartResult(num_examples=0)
    for name, counts, confidence in zip(result.ids, result.counts, result.confidences, strict=True):
        if name in ids:
            chosen.ids.append(name)
            chosen.counts.append(counts)
            chosen.confidences.append(confidence)
    return chosen


def image_result(head: Head, predictions: Predictions, chosen: NDArray[np.int64]) -> ImageResult:
    """Some of the rows as an evaluation would have seen them."""
    result, labels = ImageResult(head), np.asarray(predictions.rows.labels)
    result.ids = [predictions.rows.ids[i] for i in chosen]
    result.probabilities = [predictions.probabilities[i].astype(np.float32) for i in chosen]
    result.targets = [labels[i] for i in chosen]
    return result


def metrics_page(
    monitor: str,
    value: float,
    parts: Mapping[str, Any],
    classes: Sequence[str] = (),
    image_classes: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """The content of ``metrics.json`` of what was combined, not trained: no epoch was chosen."""
    return {
        "monitor": {"name": monitor, "mode": "max", "value": value, "epoch": 0},
        "classes": list(classes),
        "task_classes": {},
        "image_classes": dict(image_classes or {}),
        "overlapping": False,
        "parts": parts,
        "objects": None,
    }


def _write_facts(path: Path, label: str, fold: int, run: Run) -> None:
    """Config, provenance and split; what says on which data, split and annotations is that of a member's run."""
    config: dict[str, Any] = {"name": label, "fold": fold, "seed": 0, "encoder": {"name": label}}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    known = ("data", "split_sha256", "annotations_sha256", "classes", "image_classes", "several", "overlapping")
    facts = {key: run.provenance[key] for key in known if key in run.provenance}
    facts |= {"name": label, "fold": fold, "seed": 0, "started": now, "finished": now, "wall_time_s": 0.0}
    facts |= {"status": "finished", "config": config, "weights_used": {"source": OF_MEMBERS, "requested": None}}
    path.mkdir(parents=True, exist_ok=True)
    write_config(path, OmegaConf.create(config))
    write_provenance(path, facts)
    if run.split is not None:
        write_split(path / SPLITS, run.split)
