"""What an evaluation leaves of the image heads: a table of all pictures, scores, thresholds."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hsl.callbacks.evaluation import Evaluation, ImageResult
from hsl.data.prepared import PreparedData
from hsl.errors import DataError
from hsl.heads import Head
from hsl.metrics.images.image_scores import image_scores, one_hot_labels, predicted_labels
from hsl.metrics.images.imagewise import probabilities_of
from hsl.run_folder.layout import METRICS
from hsl.run_folder.pictures import class_names, write_image_predictions
from hsl.run_folder.scores import read_metrics
from hsl.terminal import say


def write_image_results(
    folder: Path, evaluations: Sequence[Evaluation], data: PreparedData
) -> dict[str, dict[str, dict[str, Any]]]:
    """`write_image_tables` of what the evaluations saw."""
    return write_image_tables(folder, _results(evaluations, data), data.group, data.choosing_part)


def write_image_tables(
    folder: Path,
    results: Iterable[tuple[str, str, ImageResult]],
    group: Callable[[str], str],
    tuned_on: str,
    limits: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Write ``image_predictions.csv`` and return the scores: part -> inference -> head -> score.

    Where a picture may show several classes, each class has the threshold with the best F1 on the part that chose the
    epoch; the others are scored with the same one. Nothing is written without image heads.

    Args:
        folder: where the table is written.
        results: part, inference and what was seen there; the part that tunes the thresholds first.
        group: the group of a picture, by its id.
        tuned_on: the part that chose the epoch.
        limits: thresholds by head, in place of those that this part chooses.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    rows: list[dict[str, Any]] = []
    thresholds: dict[tuple[str, str], Sequence[float]] = {}
    for part, inference, result in results:
        head, classes = result.head.name, result.head.classes
        probabilities, targets = np.stack(result.probabilities), np.stack(result.targets)
        if result.head.several and limits is not None:
            thresholds[inference, head] = limits[head]
        elif result.head.several and part == tuned_on:
            thresholds[inference, head] = tune_thresholds(probabilities, targets)
        chosen = thresholds.get((inference, head))
        scores = image_scores(probabilities, targets, chosen)
        found.setdefault(part, {}).setdefault(inference, {})[head] = _table(scores, classes, chosen)
        where = {"part": part, "inference": inference, "head": head}
        rows += _rows(result, probabilities, targets, chosen, group, where)
    if rows:
        write_image_predictions(folder, rows)
    return found


def tune_thresholds(probabilities: NDArray[np.floating[Any]], targets: NDArray[Any]) -> list[float]:
    """For each class the threshold with the best F1; among equals the one nearest to 0.5.

    Thresholds lie half-way between neighbouring probabilities. A class that no picture shows, or that all do, keeps
    0.5.

    Args:
        probabilities: ``(N, K)``.
        targets: ``(N, K)`` of 0, 1 and NaN.

    Example:
        >>> tune_thresholds(np.array([[0.1], [0.3], [0.2]]), np.array([[0.0], [1.0], [0.0]]))
        [0.25]
    """
    found = []
    for column, truth in zip(probabilities.T, targets.T, strict=True):
        known = ~np.isnan(truth)
        values, shown = column[known].astype(np.float64), truth[known] == 1
        if not shown.any() or shown.all():
            found.append(0.5)
            continue
        steps = np.unique(values)
        candidates = np.concatenate([(steps[1:] + steps[:-1]) / 2, [0.5]])
        predicted = values[None] >= candidates[:, None]
        hits = (predicted & shown).sum(1)
        f1 = 2 * hits / (predicted.sum(1) + shown.sum())
        best = candidates[f1 >= f1.max() - 1e-12]
        found.append(float(best[np.abs(best - 0.5).argmin()]))
    return found


def image_row(logits: Tensor, head: Head, thresholds: Sequence[float] | None) -> dict[str, Any]:
    """What a trained image head says of one picture: ``prediction`` and the probability of each class.

    Args:
        logits: ``(K,)``.
        head: what it is.
        thresholds: of each class, where a picture may show several.
    """
    probabilities = probabilities_of(logits[None], head.several).numpy()
    shown = predicted_labels(probabilities, head.several, thresholds)
    row: dict[str, Any] = {"prediction": class_names(shown[0].astype(np.float64), head.classes)}
    return row | {f"probability/{each}": float(p) for each, p in zip(head.classes, probabilities[0], strict=True)}


def stored_thresholds(run: Path, head: str, classes: Sequence[str], inference: str | None) -> list[float]:
    """The threshold of each class that the part that chose the epoch chose, too, from metrics.json.

    Args:
        run: its folder.
        head: the image head.
        classes: of the head.
        inference: the scores that the thresholds belong to; without such scores the run's first are taken, which is
            said.
    """
    parts = read_metrics(run).parts
    scores = parts.get("stop", parts.get("val", {}))
    heads = {name: one.image_heads[head].thresholds or {} for name, one in scores.items() if head in one.image_heads}
    taken = str(inference if inference in heads else next(iter(heads), inference))
    limits = [heads.get(taken, {}).get(name) for name in classes]
    known = [limit for limit in limits if limit is not None]
    if len(known) < len(limits):
        raise DataError(
            f"`{run / METRICS}` should have a threshold of `{head}` for each of {', '.join(classes)}. Restore it."
        )
    if taken != inference:
        say(
            f"! The run has no thresholds of `{head}` for this way of predicting: those of `{taken}` are used, and "
            "scores may shift."
        )
    return known


def _results(evaluations: Sequence[Evaluation], data: PreparedData) -> Iterator[tuple[str, str, ImageResult]]:
    for i, part in enumerate(data.evaluation_parts):  # the choosing part comes first: it tunes the thresholds
        for evaluation in evaluations:
            for result in evaluation.images.get(i, {}).values():
                yield part, evaluation.inference, result


def _table(scores: dict[str, Any], classes: Sequence[str], thresholds: Sequence[float] | None) -> dict[str, Any]:
    per_class = scores.pop("per_class")
    confusion = scores.pop("confusion", None)
    table = {"kind": "single" if confusion is not None else "multi", **scores}
    table["per_class"] = {
        name: {score: float(values[i]) for score, values in per_class.items()} for i, name in enumerate(classes)
    }
    if confusion is not None:
        table["confusion"] = confusion.tolist()
    if thresholds is not None:
        table["thresholds"] = dict(zip(classes, thresholds, strict=True))
    return table


def _rows(
    result: ImageResult,
    probabilities: NDArray[np.float32],
    targets: NDArray[Any],
    thresholds: Sequence[float] | None,
    group: Callable[[str], str],
    where: dict[str, str],
) -> list[dict[str, Any]]:
    """A row per picture; of one of which nothing is known, ``target``, ``correct`` and ``loss`` are empty."""
    classes, several = result.head.classes, result.head.several
    predicted = predicted_labels(probabilities, several, thresholds)
    truth = targets.astype(np.float64) if several else one_hot_labels(targets, len(classes))
    known = ~np.isnan(truth)
    right = ((truth == predicted) | ~known).all(axis=1)
    tiny = np.finfo(np.float32).tiny
    surprise = -np.log(np.maximum(np.where(truth == 1, probabilities, 1 - probabilities), tiny))
    counted = known if several else truth == 1  # cross-entropy looks at the true class alone
    rows = []
    for i, name in enumerate(result.ids):
        row: dict[str, Any] = {"id": name, "group": group(name), **where}
        row["target"] = class_names(truth[i], classes) if known[i].any() else None
        row["prediction"] = class_names(predicted[i].astype(np.float64), classes)
        row["correct"] = int(right[i]) if known[i].any() else None
        row["loss"] = float(surprise[i][counted[i]].mean()) if known[i].any() else None
        rows.append(row | {f"probability/{each}": float(p) for each, p in zip(classes, probabilities[i], strict=True)})
    return rows
