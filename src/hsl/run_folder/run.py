"""Reading one run folder, as far as it can be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsl.errors import DataError
from hsl.files.io import read_json
from hsl.files.names import below, is_below
from hsl.files.split_file import Split, read_split
from hsl.run_folder.history import RunEvents, WeightingSteps, curves, read_events, read_history, read_weighting
from hsl.run_folder.layout import (
    HISTORY,
    PIXEL_COUNTS,
    PREDICTIONS,
    PROVENANCE,
    SPLITS,
    foldless,
    task_counts,
)
from hsl.run_folder.pictures import Example, ImagePictures, ImageRow, read_examples, read_image_predictions, read_images
from hsl.run_folder.provenance import PartTests, matching_run_folders, read_config, read_parts, run_status
from hsl.run_folder.scores import Metrics, StoredHead, StoredScores, read_metrics
from hsl.run_folder.stored_counts import ObjectRow, Pictures, read_objects, read_pixel_counts


class ScoredOn(NamedTuple):
    """What scores were taken on: a part of the split, val or test, by an inference, plain or tta."""

    part: str
    inference: str = "plain"

    def __str__(self) -> str:
        return f"{self.part}, {self.inference}"


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder.

    ``status`` is finished, failed, interrupted, running or unreadable; ``reason`` says why it is unfinished.
    ``problems`` are side files that could not be read. ``images`` maps (part, inference) to id to row,
    ``pictures`` to the pixel counts of every picture; ``rows`` maps them to the lines of ``objects.jsonl``.
    ``task_pictures`` has per task of a network of several heads what ``pictures`` has for the fused classes;
    ``weighting`` is what the task weighting did, none where it was not logged. ``image_pictures`` maps
    (part, inference) to what the image head said of each picture; ``events`` are phases, a rollback and lost memory;
    ``parts`` compares the classes of the parts of the split. ``of_images``: see `on_image_head`.
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
    pictures: Mapping[tuple[str, str], Pictures] = field(default_factory=dict)
    rows: Mapping[tuple[str, str], Sequence[ObjectRow]] = field(default_factory=dict)
    task_pictures: Mapping[str, Mapping[tuple[str, str], Pictures]] = field(default_factory=dict)
    weighting: WeightingSteps | None = None
    image_pictures: Mapping[tuple[str, str], ImagePictures] = field(default_factory=dict)
    events: RunEvents = field(default_factory=RunEvents)
    parts: PartTests | None = None
    of_images: bool = False

    @property
    def fold(self) -> int:
        return int(self.config["fold"])

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    def holds(self, path: Path) -> bool:
        """Whether a file is there and is one of the folder's own, not one that a link or a name leads to elsewhere."""
        return path.is_file() and is_below(self.folder, path)

    @property
    def state(self) -> str:
        """The status as a reader sees it."""
        return f"{self.status}, reverted" if self.events.reverted else self.status

    @property
    def image_head(self) -> str:
        """Name of the head that gives classes of a whole picture; empty where there is none."""
        return next(iter(self.metrics.image_classes), "") if self.metrics else ""

    @property
    def overlapping(self) -> bool:
        """Whether a pixel may show several of its classes."""
        return self.metrics is not None and self.metrics.overlapping

    @property
    def several(self) -> bool:
        """Whether the image head may find several classes in a picture."""
        return several_classes(self.metrics) if self.metrics else False

    @property
    def initialisation(self) -> str:
        """Source and hash of the encoder's first weights; ``unknown`` when the run ended before it knew.

        The checkpoint of a run of the same fold has another hash in every fold: its path without the fold stands there.
        """
        used = self.provenance.get("weights_used") or {}
        requested = str(used.get("requested"))
        if self.config and (path := foldless(requested, self.fold)) != requested:
            return f"file:{path}"
        digest = f" ({str(used['sha256'])[:8]})" if used.get("sha256") else ""
        return f"{used.get('source', 'unknown')}{digest}"

    @property
    def tasks(self) -> list[str]:
        """The heads that were scored each on its own mask, in the order of the task definition."""
        return scored_tasks(self.metrics) if self.metrics else []

    def on_task(self, task: str) -> "Run":
        """The run as if this task of `tasks` were all it was scored on; it has no rows of pictures or objects."""
        if self.metrics is None:
            return self
        parts = {
            part: {way: scores.tasks[task] for way, scores in inferences.items() if task in scores.tasks}
            for part, inferences in self.metrics.parts.items()
        }
        metrics = Metrics(monitor=self.metrics.monitor, classes=self.metrics.task_classes[task], parts=parts)
        pictures = self.task_pictures.get(task, {})
        return replace(self, metrics=metrics, pictures=pictures, images={}, rows={}, examples=(), task_pictures={})

    def on_image_head(self) -> "Run":
        """The run as if its `image_head` were all it was scored on: its classes, counts and scores are those."""
        return replace(self, of_images=True)

    @property
    def classes(self) -> list[str]:
        """Those that are scored; empty where the run has no such head, or no scores."""
        if self.metrics is None:
            return []
        return self.metrics.image_classes.get(self.image_head, []) if self.of_images else self.metrics.classes

    def stored(self, on: ScoredOn) -> StoredScores | StoredHead | None:
        """What ``metrics.json`` says."""
        scores = self.metrics.parts.get(on.part, {}).get(on.inference) if self.metrics else None
        return scores.image_heads.get(self.image_head) if scores and self.of_images else scores

    def confusion(self, on: ScoredOn) -> NDArray[np.int64] | None:
        """Pooled confusion matrix ``int64 (C, C)``, rows the truth; none where it was not scored.

        It is summed over the pictures; where their counts cannot be read, it is that of ``metrics.json``. An image head
        that may find several classes in a picture has none.
        """
        if self.of_images:
            pictures = self.image_pictures.get(on)
            return None if pictures is None else pictures.confusion
        if counts := self.pictures.get(on):
            matrix: NDArray[np.int64] = counts.totals["matrices"].sum(0)
            return matrix
        scores = self.stored(on)
        return np.array(scores.confusion, dtype=np.int64) if scores and scores.confusion else None

    def objects(self, on: ScoredOn) -> Sequence[ObjectRow]:
        """The rows of the metric pool, one per picture; empty for a run without the pool."""
        return self.rows.get(on, ())


def read_run(folder: Path) -> Run:
    """Read one run folder as far as it can be read."""
    run = Run(folder)
    try:
        run = Run(folder, config=read_config(folder))
        provenance = read_json(folder / PROVENANCE)
        run = Run(folder, config=run.config, provenance=provenance)
        status, reason = run_status(provenance, folder)
        metrics = read_metrics(folder) if status == "finished" else None
    except DataError as error:
        return Run(folder, reason=str(error), config=run.config, provenance=run.provenance)
    problems: list[str] = []
    num_classes = len(metrics.classes) if metrics else 0
    dense = metrics is not None and num_classes > 0
    split = _or_problem(problems, read_split, folder / SPLITS)
    task_pictures = (
        {}
        if metrics is None
        else {
            task: _or_problem(problems, _read_task, folder, task_counts(task), len(metrics.task_classes[task])) or {}
            for task in scored_tasks(metrics)
        }
    )
    return Run(
        folder,
        status,
        reason,
        run.config,
        provenance,
        metrics,
        split,
        images=_or_problem(problems, read_images, folder) or {} if dense else {},
        history=_or_problem(problems, _curves, folder) or {},
        examples=_or_problem(problems, read_examples, folder / PREDICTIONS) or (),
        pictures=(_or_problem(problems, read_pixel_counts, folder / PIXEL_COUNTS, num_classes) or {}) if dense else {},
        rows=_or_problem(problems, read_objects, folder, num_classes) or {} if dense else {},
        task_pictures=task_pictures,
        weighting=_or_problem(problems, read_weighting, folder),
        image_pictures=_image_pictures(problems, folder, metrics) if metrics else {},
        events=_or_problem(problems, read_events, folder) or RunEvents(),
        parts=_or_problem(problems, read_parts, folder),
        problems=problems if status == "finished" else (),
    )


def _curves(folder: Path) -> Mapping[str, list[float]]:
    if not (folder / HISTORY).is_file():
        raise DataError(f"`{folder / HISTORY}` is missing.")
    return curves(read_history(folder))


def reverted_mark(runs: Sequence[Run]) -> str:
    """What is put behind the name of a model whose runs, or some of them, were taken back; empty where none was."""
    folds = sorted({run.fold for run in runs if run.events.reverted})
    listed = ", ".join(str(fold) for fold in folds)
    every = folds and all(run.events.reverted for run in runs)
    return " (reverted)" if every else f" (reverted in fold {listed})" if folds else ""


def several_classes(metrics: Metrics) -> bool:
    """Whether the image head may find several classes in a picture."""
    scores = [way for ways in metrics.parts.values() for way in ways.values()]
    return any(head.several for way in scores for head in way.image_heads.values())


def _image_pictures(problems: list[str], folder: Path, metrics: Metrics) -> Mapping[tuple[str, str], ImagePictures]:
    for head, classes in metrics.image_classes.items():
        arguments = (folder, head, classes, several_classes(metrics))
        return _or_problem(problems, read_image_predictions, *arguments) or {}
    return {}


def scored_tasks(metrics: Metrics) -> list[str]:
    """The tasks that have scores of their own, in the order of ``task_classes``."""
    found = {task for ways in metrics.parts.values() for scores in ways.values() for task in scores.tasks}
    return [task for task in metrics.task_classes if task in found]


def _read_task(folder: Path, name: str, num_classes: int) -> Mapping[tuple[str, str], Pictures]:
    return read_pixel_counts(below(folder, name), num_classes)


def _or_problem(problems: list[str], read: Any, *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except DataError as error:
        problems.append(str(error))
        return None


def gather(patterns: Sequence[str]) -> list[Run]:
    """Read every run folder that the globs match, or that lies below a match.

    Raises:
        DataError: there is none.
    """
    return [read_run(folder) for folder in matching_run_folders(patterns)]
