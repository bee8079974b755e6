"""Training pictures drawn by how wrong other models were about them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hsl.config import ConfigError, DataError
from hsl.data.grouping import name_some

TABLE = "image_predictions.csv"


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
    share: float = 0.5
    by: str = "loss"

    def __post_init__(self) -> None:
        if not self.runs or not 0 < self.share <= 1 or self.by not in ("loss", "error"):
            raise ConfigError(
                "`data.hard_examples` should have run folders, a share in (0, 1] and `by` loss or error. "
                f"Found runs = {list(self.runs)}, share = {self.share}, by = {self.by}."
            )

    def chances(self, ids: Sequence[str]) -> NDArray[np.float64]:
        """Chance of each picture to be the next that is drawn; they sum to 1.

        Raises:
            DataError: A table is missing, or a picture is in none of the validation parts.
        """
        known: dict[str, list[float]] = {}
        for run in self.runs:
            for name, value in self._read(Path(run) / TABLE).items():
                known.setdefault(name, []).append(value)
        if missing := [name for name in ids if name not in known]:
            raise DataError(
                f"`data.hard_examples.runs` should have validated every training picture. Found none that validated "
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
        return {name: value for name, value in zip(rows["id"], values, strict=True) if math.isfinite(value)}
