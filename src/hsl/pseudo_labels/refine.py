"""How far refinement moves pseudo-labels: what follows from it, what it confirms, and what is to be looked at."""

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsl.data.labels.label_table import LabelRow, LabelTable
from hsl.errors import DataError
from hsl.files.cells import neutral_row, original_rows
from hsl.files.io import write_atomically

AGREEMENT = "agreement.csv"


@dataclass(frozen=True)
class Agreement:
    """A refined label beside the first one.

    Attributes:
        id: of the picture.
        label: its class as a whole.
        first_tier: of the label before any refinement.
        tier: of the refined one.
        agreement: mean IoU with the label before any refinement.
        drift: changed pixels / pixels, from the round before.
        upgraded: whether its agreement lifted it from tier B to A.
        flagged: whether a person should look at it.
    """

    id: str
    label: str
    first_tier: str
    tier: str
    agreement: float
    drift: float
    upgraded: bool
    flagged: bool


def write_agreement(folder: Path, rows: Sequence[Agreement]) -> None:
    """Write the table, of each image class the largest disagreement first."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Agreement)], lineterminator="\n")
    table.writeheader()
    for row in sorted(rows, key=lambda row: (row.label, row.agreement, row.id)):
        shares = {"agreement": f"{row.agreement:.6f}", "drift": f"{row.drift:.6f}"}
        marks = {"upgraded": int(row.upgraded), "flagged": int(row.flagged)}
        table.writerow(neutral_row(asdict(row) | shares | marks))
    write_atomically(folder / AGREEMENT, text.getvalue().encode())


def read_agreement(labels: LabelTable) -> list[Agreement]:
    """The table of a folder of labels in its order; empty for labels that no round of refinement made.

    Raises:
        DataError: it is damaged, or names other pictures than the labels.
    """
    path = labels.folder / AGREEMENT
    if not path.is_file():
        return []
    try:
        found = original_rows(csv.DictReader(io.StringIO(path.read_text(encoding="utf8"), newline="")))
        rows = [
            Agreement(
                cells["id"], cells["label"], cells["first_tier"], cells["tier"], float(cells["agreement"]),
                float(cells["drift"]), cells["upgraded"] == "1", cells["flagged"] == "1",
            )
            for cells in found
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"`{path}` is damaged: {error!r}. Move it away; the labels can be used without it.") from error
    if {row.id for row in rows} != {row.id for row in labels.rows}:
        raise DataError(f"`{path}` should name the pictures of labels.csv. Found others. Move it away.")
    return rows


SETTLED_ROUND = 3  # from here on labels that still change much are taken to oscillate
AGREED = 0.85  # no number is published; that of the drift at which labels have settled, 15 %, the other way round
NUM_FLAGGED = 20


class Decision(StrEnum):
    """What a round of refinement leads to."""

    AGAIN = "again"
    """Refine once more."""
    CONVERGED = "converged"
    """Keep this round: it changed little."""
    DIVERGED = "diverged"
    """Keep the round before: this one changed more than it did."""
    OSCILLATING = "oscillating"
    """Stop with an error: the labels do not settle."""
    EXHAUSTED = "exhausted"
    """Keep this round: it was the last one allowed."""


def transitions(before: NDArray[np.uint8], after: NDArray[np.uint8], num_classes: int) -> NDArray[np.int64]:
    """Pixels of one image by their class in two masks.

    Args:
        before: class indices ``(H, W)``, 255 = uncertain.
        after: the same.
        num_classes: C.

    Returns:
        ``(C + 1, C + 1)``, rows before, columns after; the last one is uncertain.

    Raises:
        ValueError: the masks differ in size.

    Example:
        >>> transitions(np.array([[0, 1, 255]], np.uint8), np.array([[0, 255, 1]], np.uint8), 2).tolist()
        [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    """
    if before.shape != after.shape:
        raise ValueError(f"`after` should have the size of `before`, {before.shape}. Found {after.shape}.")
    side = num_classes + 1
    rows, columns = (np.minimum(mask, num_classes).astype(np.int64) for mask in (before, after))
    return np.bincount((side * rows + columns).ravel(), minlength=side * side).reshape(side, side)


def changed_share(counts: NDArray[np.int64]) -> float:
    """Changed pixels / pixels of `transitions`; from a class to uncertain and back is a change.

    Example:
        >>> changed_share(np.array([[1, 0, 0], [0, 0, 1], [0, 1, 1]]))
        0.5
    """
    return float(1 - np.trace(counts) / counts.sum())


def mean_iou(counts: NDArray[np.int64]) -> float:
    """Mean IoU of the classes that either mask of `transitions` has; 0 without any.

    A pixel that is uncertain in one mask disagrees with the class in the other; in both it counts nowhere.

    Example:
        >>> mean_iou(np.array([[6, 2, 0], [0, 1, 1], [0, 0, 5]]))  # 6 of 8 and 1 of 4
        0.5
    """
    both = np.diag(counts)[:-1]
    either = (counts.sum(axis=0) + counts.sum(axis=1) - np.diag(counts))[:-1]
    return float((both[either > 0] / either[either > 0]).mean()) if either.any() else 0.0


def upgraded(row: LabelRow, agreement: float) -> LabelRow:
    """The label in tier A if it is in B, its class rule holds, and it agrees with the first one; else as it is.

    Args:
        row: of the refined label.
        agreement: `mean_iou` with the label before any refinement.

    Example:
        >>> row = LabelRow("p", "rust", "B", 0.7, 0.0, 0.1, True, "segmentation", "")
        >>> upgraded(row, 0.85).tier, upgraded(row, 0.84).tier
        ('A', 'B')
    """
    return replace(row, tier="A") if row.tier == "B" and row.rule_passed and agreement >= AGREED else row


def flagged(rows: Sequence[LabelRow], agreement: Mapping[str, float]) -> list[str]:
    """Ids of the labels that a person should look at: those that agree least with the first ones.

    Args:
        rows: of the refined labels.
        agreement: id -> `mean_iou` with the label before any refinement.

    Returns:
        Of each image class, in their order, 20 at most of those that do not agree; the largest disagreement first.
    """
    classes: dict[str, list[LabelRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.label, agreement[row.id], row.id)):
        if agreement[row.id] < AGREED:
            classes[row.label].append(row)
    return [row.id for group in classes.values() for row in group[:NUM_FLAGGED]]


def decide(drifts: Sequence[float], max_rounds: int = 3, converged_below: float = 0.15) -> Decision:
    """What follows from the drift of the rounds so far.

    The last round decides; the first of these that holds: its drift is below ``converged_below``: converged; it is
    round 3 or later and the drift above: oscillating, whether it grows or not; the drift grew: diverged; it was round
    ``max_rounds``: exhausted; else again.

    Args:
        drifts: changed pixels / pixels of each round, the first round first.
        max_rounds: rounds at most.
        converged_below: share of the pixels.

    Raises:
        ValueError: there is no round, or a drift is no share.

    Example:
        >>> [str(decide(drifts)) for drifts in ([0.4], [0.4, 0.1], [0.4, 0.5], [0.4, 0.3, 0.2])]
        ['again', 'converged', 'diverged', 'oscillating']
    """
    if not drifts or not all(0 <= value <= 1 for value in drifts):
        raise ValueError(f"`drifts` should hold a share in [0, 1] for each round. Found `drifts = {list(drifts)}`.")
    number, last = len(drifts), drifts[-1]
    if last < converged_below:
        return Decision.CONVERGED
    if number >= SETTLED_ROUND and last > converged_below:
        return Decision.OSCILLATING
    if number > 1 and last > drifts[-2]:
        return Decision.DIVERGED
    return Decision.EXHAUSTED if number >= max_rounds else Decision.AGAIN
