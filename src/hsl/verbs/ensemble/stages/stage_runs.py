"""What a stage says of pictures it was not fitted on, as a run folder of each fold: a report takes it for a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from hsl.callbacks.evaluation import ImageResult
from hsl.ensembles.rows import Rows
from hsl.files.io import null_for_nan
from hsl.files.split_file import Split, write_split
from hsl.heads import Head
from hsl.run_folder.layout import SPLITS
from hsl.run_folder.provenance import write_config, write_provenance
from hsl.run_folder.run import Run
from hsl.run_folder.scores import write_metrics
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
    if isinstance(run.split, Split):
        write_split(path / SPLITS, run.split)
