"""Reading one run folder, as far as it can be read."""

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from hsl.config import DataError
from hsl.reports.pictures import Example, read_index

STATUSES = ("finished", "failed", "interrupted", "running")
Page = TypeVar("Page", bound=BaseModel)


class Monitor(BaseModel):
    """What chose the checkpoint."""

    name: str
    mode: str
    value: float | None
    epoch: int


class StoredScores(BaseModel):
    """What a report needs of ``metrics.json``; every other score follows from the confusion matrix."""

    num_images: int
    miou: float | None
    confusion: list[list[int]]


class Metrics(BaseModel):
    """``metrics.json``: part (val, test) to inference (plain, tta) to scores."""

    monitor: Monitor
    classes: list[str]
    parts: dict[str, dict[str, StoredScores]]


class Fold(BaseModel):
    """One entry of ``splits.json``."""

    name: str
    train: list[str]
    val: list[str]


class Split(BaseModel):
    """``splits.json``."""

    method: str
    groups: str | None = None
    folds: list[Fold]
    test: list[str]
    sha256: str

    @property
    def assignment(self) -> str:
        """Names who is in which fold; ``sha256`` names the pictures alone."""
        parts = [[sorted(fold.train), sorted(fold.val)] for fold in self.folds] + [[sorted(self.test)]]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class ImageRow:
    """One picture in ``per_image.csv``."""

    group: str
    miou: float


@dataclass(frozen=True)
class Run:
    """One run folder.

    ``status`` is finished, failed, interrupted, running or unreadable; ``reason`` says why it is unfinished.
    ``problems`` are side files that could not be read. ``images`` maps (part, inference) to id to row.
    """

    folder: Path
    status: str = "unreadable"
    reason: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Metrics | None = None
    split: Split | None = None
    images: Mapping[tuple[str, str], Mapping[str, ImageRow]] = field(default_factory=dict)
    history: Mapping[str, list[float]] = field(default_factory=dict)
    examples: Sequence[Example] = ()
    problems: Sequence[str] = ()

    @property
    def fold(self) -> int:
        return int(self.config["fold"])

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def initialisation(self) -> str:
        """Source and hash of the encoder's first weights; ``unknown`` when the run ended before it knew."""
        used = self.provenance.get("weights_used") or {}
        digest = f" ({str(used['sha256'])[:8]})" if used.get("sha256") else ""
        return f"{used.get('source', 'unknown')}{digest}"

    def confusion(self, part: str, inference: str) -> NDArray[np.int64] | None:
        """Pooled confusion matrix ``int64 (C, C)``, rows the truth; none where it was not scored."""
        scores = self.metrics.parts.get(part, {}).get(inference) if self.metrics else None
        return None if scores is None else np.array(scores.confusion, dtype=np.int64)


def read_run(folder: Path) -> Run:
    """Read one run folder as far as it can be read."""
    run = Run(folder)
    try:
        run = Run(folder, config=_read_config(folder / "config.yaml"))
        provenance = _read_json(folder / "provenance.json")
        run = Run(folder, config=run.config, provenance=provenance)
        status, reason = _status(provenance, folder)
        metrics = _read_metrics(folder / "metrics.json") if status == "finished" else None
    except DataError as error:
        return Run(folder, reason=str(error), config=run.config, provenance=run.provenance)
    problems: list[str] = []
    split = _or_problem(problems, _read_page, folder / "splits.json", Split)
    return Run(
        folder,
        status,
        reason,
        run.config,
        provenance,
        metrics,
        split,
        images=_or_problem(problems, _read_images, folder / "per_image.csv") or {} if metrics else {},
        history=_or_problem(problems, _read_history, folder / "history.csv") or {},
        examples=_or_problem(problems, _read_examples, folder / "predictions") or (),
        problems=problems if status == "finished" else (),
    )


def _status(provenance: Mapping[str, Any], folder: Path) -> tuple[str, str]:
    status = provenance.get("status")
    if status not in STATUSES:
        raise DataError(
            f"`{folder}/provenance.json`: `status` should be one of {', '.join(STATUSES)}. Found {status!r}."
        )
    seen = datetime.fromtimestamp((folder / "provenance.json").stat().st_mtime, UTC)
    reasons = {
        "finished": "",
        "failed": str(provenance.get("error", "no error recorded")),
        "interrupted": "stopped by a signal; resume=last goes on",
        "running": f"still running, or killed: last sign of life {seen:%Y-%m-%d %H:%M} UTC",
    }
    return status, reasons[status]


def _or_problem(problems: list[str], read: Any, *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except DataError as error:
        problems.append(str(error))
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf8")
    except FileNotFoundError:
        raise DataError(f"`{path}` is missing.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"`{path}` cannot be read: {error}.") from None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise DataError(f"`{path}` is no YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(key), int) for key in ("fold", "seed")):
        raise DataError(f"`{path}` should be a run's config with the integers `fold` and `seed`.")
    return content


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"`{path}` is no JSON: {error}. Evaluate the run again.") from None
    if not isinstance(content, dict):
        raise DataError(f"`{path}` should be a JSON object. Found {type(content).__name__}.")
    return content


def _read_page(path: Path, kind: type[Page]) -> Page:
    try:
        return kind.model_validate(_read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"])
        raise DataError(f"`{path}`: `{place}`: {first['msg']}. Evaluate the run again.") from None


def _read_metrics(path: Path) -> Metrics:
    metrics = _read_page(path, Metrics)
    size = len(metrics.classes)
    for part, inferences in metrics.parts.items():
        for inference, scores in inferences.items():
            rows = scores.confusion
            if len(rows) != size or any(len(row) != size or min(row) < 0 for row in rows):
                raise DataError(
                    f"`{path}`: the confusion matrix of {part}/{inference} should be {size} x {size} "
                    "counts, one per class. Evaluate the run again."
                )
    return metrics


def _read_table(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    try:
        rows = list(csv.DictReader(io.StringIO(_text(path), newline="")))
    except csv.Error as error:
        raise DataError(f"`{path}` is no table: {error}.") from None
    absent = [name for name in needed if rows and rows[0].get(name) is None]
    if absent or not rows:
        raise DataError(f"`{path}` should have rows with the columns {', '.join(needed)}. Found {len(rows)} rows.")
    return rows


def _number(text: str | None, path: Path) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        raise DataError(f"`{path}` should hold numbers. Found `{text}`.") from None


def _read_images(path: Path) -> dict[tuple[str, str], dict[str, ImageRow]]:
    images: dict[tuple[str, str], dict[str, ImageRow]] = {}
    for row in _read_table(path, ("id", "group", "part", "inference", "miou")):
        rows = images.setdefault((row["part"], row["inference"]), {})
        if row["id"] in rows:
            raise DataError(f"`{path}` should have one row per picture. Found `{row['id']}` twice.")
        rows[row["id"]] = ImageRow(row["group"], _number(row["miou"], path))
    return images


def _read_history(path: Path) -> dict[str, list[float]]:
    rows = _read_table(path, ("epoch",))
    return {name: [_number(row.get(name), path) for row in rows] for name in rows[0] if name}


def _read_examples(folder: Path) -> list[Example]:
    try:
        return read_index(folder)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(f"`{folder}/index.csv` cannot be read: {error}.") from None
