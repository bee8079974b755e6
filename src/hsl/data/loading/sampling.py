"""How often each class occurs in a part, and how often each training picture is drawn."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hsl.channels import class_pixels
from hsl.config.ranges import FractionAboveZero
from hsl.data.files.scan import Scan
from hsl.data.labels.image_labels import HEAD, ImageLabels
from hsl.data.splits.grouping import name_some
from hsl.data.tasks import Heads
from hsl.errors import ConfigError, DataError
from hsl.files.cells import original, read_rows_of_table
from hsl.run_folder.layout import IMAGE_PREDICTIONS

Counts = dict[str, NDArray[np.int64]]


def class_counts(heads: Heads, scan: Scan, ids: Sequence[str], labels: ImageLabels | None) -> Counts:
    """By head ``int64 (C,)``: pixels of each class, ignored ones left out; pictures, for the image head."""
    rows = scan.rows(ids)
    counts = {head: n.sum(0) for head, n in heads.count(scan.class_counts[rows]).items()}
    return counts if labels is None else counts | {HEAD: labels.count(rows.tolist())}


def presence(heads: Heads, scan: Scan, ids: Sequence[str], labels: ImageLabels | None) -> Counts:
    """By head ``int64 (C,)``: valid pixels of the pictures that show the class (Eigen & Fergus 2015).

    For the image head: pictures of which it is known whether they show the class.
    """
    rows = scan.rows(ids)
    found = heads.count_presence(scan.class_counts[rows])
    return found if labels is None else found | {HEAD: labels.count_known(rows.tolist())}


def mask_presence(heads: Heads, scan: Scan, ids: Sequence[str]) -> NDArray[np.bool_]:
    """``(N, C)``: whether a picture's mask shows a class of the data set."""
    counts = scan.class_counts[scan.rows(ids)]
    num_classes = len(heads.classes[heads.global_head]) if heads.overlapping else heads.num_source_classes
    return class_pixels(counts, num_classes, heads.overlapping) > 0


class Sampling(Protocol):
    """What an epoch of the training part is drawn by, with replacement."""

    def chances(self, ids: Sequence[str], shown: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Chance of each picture to be the next that is drawn; they sum to 1.

        Args:
            ids: ``N`` pictures.
            shown: ``(N, C)``: whether a picture shows a class.
        """
        ...


@dataclass(frozen=True)
class RareClasses:
    """Draws pictures of rare classes more often: repeat factor sampling (Gupta 2019, LVIS, section 5).

    With f the share of the training pictures that show a class, a picture is drawn in proportion to the largest
    ``sqrt(threshold / f)`` of its classes, and to 1 where that is less.

    Args:
        threshold: Classes in a smaller share of the pictures count as rare, in (0, 1].

    Raises:
        ConfigError: The threshold is out of range.
    """

    threshold: FractionAboveZero = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ConfigError(
                "`data.sampling.threshold` is a share of the training pictures and should be in (0, 1]. "
                f"Found {self.threshold}."
            )

    def chances(self, ids: Sequence[str], shown: NDArray[np.bool_]) -> NDArray[np.float64]:
        """See `Sampling`."""
        del ids
        share = shown.mean(axis=0).clip(1 / len(shown))  # a class that no picture shows counts for none
        factors = (shown * np.sqrt(self.threshold / share)).max(axis=1, initial=1.0)
        return np.asarray(factors / factors.sum())


@dataclass(frozen=True)
class HardExamples:
    """Draws an epoch's pictures with replacement: a share of them evenly, the rest by their out-of-fold loss.

    Only rows of a run's validation part are read: there the run says what it thinks of pictures that it was not trained
    on. So the runs of the other folds, together, cover the training part of this one. (Those runs were trained on
    pictures that are held out here; their losses are no label, but keep them out of a stacked model.)

    Args:
        runs: Run folders with an image head, each with ``image_predictions.csv``.
        share: Share of the draws that follows the loss, in (0, 1].
        by: ``loss``, or ``error``: 1 where the picture was wrong and 0 where it was right.

    Raises:
        ConfigError: An argument is out of range.
    """

    runs: Sequence[str]
    share: FractionAboveZero = 0.5
    by: str = "loss"

    def __post_init__(self) -> None:
        if not self.runs or not 0 < self.share <= 1 or self.by not in ("loss", "error"):
            raise ConfigError(
                "`data.sampling` by hard examples should have run folders, a share in (0, 1] and `by` loss or error. "
                f"Found runs = {list(self.runs)}, share = {self.share}, by = {self.by}."
            )

    def chances(self, ids: Sequence[str], shown: NDArray[np.bool_]) -> NDArray[np.float64]:
        """See `Sampling`.

        Raises:
            DataError: A table is missing, or a picture is in none of the validation parts.
        """
        del shown
        known: dict[str, list[float]] = {}
        for run in self.runs:
            for name, value in self._read(Path(run) / IMAGE_PREDICTIONS).items():
                known.setdefault(name, []).append(value)
        if missing := [name for name in ids if name not in known]:
            raise DataError(
                f"`data.sampling.runs` should have validated every training picture. Found none that validated "
                f"{name_some(missing)}. Add the runs of the other folds."
            )
        badness = np.array([np.mean(known[name]) for name in ids])
        even = np.full(len(ids), 1 / len(ids))
        return even if badness.sum() == 0 else (1 - self.share) * even + self.share * badness / badness.sum()

    def _read(self, path: Path) -> dict[str, float]:
        if not path.is_file():
            raise DataError(f"`{path}` should be the table of a run with an image head. Found none. Name another run.")
        table = pd.read_csv(path, dtype={"id": str})
        rows = table[(table["part"] == "val") & table["loss"].notna()]
        rows = rows[rows["inference"] == rows["inference"].iloc[0]] if len(rows) else rows
        values = rows["loss"] if self.by == "loss" else 1 - rows["correct"]
        ids = rows["id"].map(original)
        return {name: value for name, value in zip(ids, values, strict=True) if math.isfinite(value)}


@dataclass(frozen=True)
class Weighted:
    """Draws an epoch's pictures with replacement, each in proportion to its weight in a table.

    Args:
        table: A CSV file with a column ``id`` and perhaps ``weight``. With weights every training picture has its row,
            and 0 leaves it out; without weights the pictures that are listed are drawn alike, and no other.
    """

    table: str

    def chances(self, ids: Sequence[str], shown: NDArray[np.bool_]) -> NDArray[np.float64]:
        """See `Sampling`.

        Raises:
            DataError: The table is missing or broken, names other pictures or one twice, lacks one that trains here, or
                leaves none.
        """
        del shown
        weights, weighed = self._read()
        training = set(ids)
        if unknown := sorted(weights.keys() - training):
            raise DataError(
                f"`{self.table}` should name training pictures of this fold only. Found {name_some(unknown)}. "
                "Remove them, or choose the table of this fold."
            )
        if weighed and (missing := sorted(training - weights.keys())):
            raise DataError(
                f"`{self.table}` should have a weight of every training picture. Found none of {name_some(missing)}. "
                "Give them weight 0 to leave them out."
            )
        values = np.array([weights.get(name, 0.0) for name in ids])
        if not values.sum() > 0:
            raise DataError(f"`{self.table}` should leave a picture to train on. Found weights of 0 only. Raise one.")
        return np.asarray(values / values.sum())

    def _read(self) -> tuple[dict[str, float], bool]:
        """The weight of each id that is listed, and whether the table has weights."""
        rows = read_rows_of_table(Path(self.table))
        if not rows or "id" not in rows[0]:
            raise DataError(f"`{self.table}` should have rows with a column `id`. Found {len(rows)} rows. Add them.")
        weighed = "weight" in rows[0]
        weights: dict[str, float] = {}
        for row in rows:
            weight = _weight(row["weight"]) if weighed else 1.0
            if row["id"] in weights or weight is None:
                found = "the second time" if row["id"] in weights else f"with weight `{row['weight']}`"
                raise DataError(
                    f"`{self.table}` should name each picture once, with a finite weight of at least 0. Found "
                    f"`{row['id']}` {found}. Correct the row."
                )
            weights[row["id"]] = weight
        return weights, weighed


def _weight(cell: str | None) -> float | None:
    try:
        value = float(cell or "")
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None


def lost_classes(counts: Counts, drawn: Counts, classes: Mapping[str, Sequence[str]]) -> list[str]:
    """The classes that the training part shows, but none of the pictures that are ever drawn; see `class_counts`.

    Args:
        counts: Over the training part.
        drawn: Over the pictures with a chance above 0.
        classes: Of every head the names.

    Example:
        >>> lost_classes({"health": np.array([9, 2, 0])}, {"health": np.array([4, 0, 0])}, {"health": ["a", "b", "c"]})
        ['b']
    """
    lost = {head: (counts[head] > 0) & (drawn[head] == 0) for head in counts}
    pairs = [pair for head, gone in lost.items() for pair in zip(classes[head], gone.tolist(), strict=True)]
    return list(dict.fromkeys(name for name, one in pairs if one))
