"""``metrics.json``: the scores of a run; ``results.json``: all of it that another program may want to open."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hsl.errors import DataError
from hsl.files.io import null_for_nan, write_atomically
from hsl.run_folder.history import read_history
from hsl.run_folder.layout import CONFIG, METRICS, RESULTS
from hsl.run_folder.provenance import read_config, read_page


class Monitor(BaseModel):
    """What chose the checkpoint."""

    name: str
    mode: str
    value: float | None
    epoch: int


class StoredHead(BaseModel, extra="allow"):
    """What a report needs of ``image_heads`` in ``metrics.json``; null for NaN.

    The scores are not shown where ``image_predictions.csv`` is there: they are made from it, and have to agree.
    """

    __pydantic_extra__: dict[str, float | None]
    kind: str
    num_images: int
    per_class: dict[str, dict[str, float | None]] = {}
    confusion: list[list[int]] = []
    thresholds: dict[str, float | None] | None = None

    @property
    def scores(self) -> dict[str, float | None]:
        """Every other number, by name."""
        return self.__pydantic_extra__

    @property
    def several(self) -> bool:
        """Whether a picture may show several classes."""
        return self.kind == "multi"


class StoredScores(BaseModel, extra="allow"):
    """What a report needs of ``metrics.json``; null for NaN.

    The scores are not shown: those in the report are made from the counts of each picture, and have to agree.
    """

    __pydantic_extra__: dict[str, float | None]
    num_images: int | None = None
    confusion: list[list[int]] = []
    per_class: dict[str, dict[str, float | None]] = {}
    tasks: dict[str, "StoredScores"] = {}
    image_heads: dict[str, StoredHead] = {}
    instances: dict[str, float | None] = {}

    @property
    def scores(self) -> dict[str, float | None]:
        """Every other number, by name."""
        return self.__pydantic_extra__


class Metrics(BaseModel):
    """``metrics.json``: part (stop, val, test) to inference (plain, tta) to scores.

    A network of several heads has scores of its own per task, beside those of the space in which they are fused.
    ``classes`` is empty where it has no dense head, ``image_classes`` where it has no image head. ``overlapping``: a
    pixel may show several of them, and the masks in the run folder hold the codes of `hsl.channels`.
    """

    monitor: Monitor
    classes: list[str]
    task_classes: dict[str, list[str]] = {}
    image_classes: dict[str, list[str]] = {}
    overlapping: bool = False
    parts: dict[str, dict[str, StoredScores]]


def write_metrics(folder: Path, page: Mapping[str, Any]) -> None:
    """Write ``metrics.json``, whose presence means complete; before it, in a run folder, ``results.json``."""
    if (folder / CONFIG).is_file():  # a run, not another evaluation of one
        write_atomically(folder / RESULTS, _json(result_page(folder, page)))
    write_atomically(folder / METRICS, _json(page))


def read_metrics(folder: Path) -> Metrics:
    """``metrics.json``, whose confusion matrices fit its classes and those of its tasks."""
    path = folder / METRICS
    metrics = read_page(path, Metrics)
    if len(metrics.image_classes) > 1:
        raise DataError(f"`{path}` should have one image head at most. Found {', '.join(metrics.image_classes)}.")
    for part, inferences in metrics.parts.items():
        for inference, scores in inferences.items():
            place = f"{part}/{inference}"
            if scores.confusion or not scores.image_heads:  # a part may have labels of pictures and no masks
                _check_confusion(path, place, scores.confusion, len(metrics.classes))
            for task, found in scores.tasks.items():
                _check_confusion(path, f"{place}/{task}", found.confusion, len(metrics.task_classes.get(task, ())))
    return metrics


def result_page(folder: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What ``results.json`` says: config, scores of the best checkpoint, and a row per epoch.

    Nothing is computed here: the numbers are those of metrics.json and history.csv. Infinity and NaN are null.

    Args:
        folder: a run folder with config.yaml, and with history.csv if the run kept one.
        metrics: what metrics.json says, or is about to say.

    Returns:
        ``name``, ``fold``, ``seed``, ``config``, ``monitor``, ``classes`` and ``task_classes`` and ``image_classes``,
        ``val`` and ``test`` (inference to scores; null without such a part; ``stop`` only where there is one),
        ``history`` (a list of epochs).
    """
    config = read_config(folder)
    page = {
        **{key: config[key] for key in ("name", "fold", "seed")},
        "config": config,
        **{key: metrics[key] for key in ("monitor", "classes", "task_classes", "image_classes")},
        **{part: scores for part, scores in metrics["parts"].items() if part == "stop"},
        **{part: metrics["parts"].get(part) for part in ("val", "test")},
        "history": read_history(folder),
    }
    finite: dict[str, Any] = null_for_nan(page)
    return finite


def _json(page: Mapping[str, Any]) -> bytes:
    return json.dumps(page, indent=2, allow_nan=False).encode()


def _check_confusion(path: Path, place: str, rows: Sequence[Sequence[int]], size: int) -> None:
    if len(rows) != size or any(len(row) != size or min(row) < 0 for row in rows):
        raise DataError(
            f"`{path}`: the confusion matrix of {place} should be {size} x {size} counts, one per class. "
            "Evaluate the run again."
        )
