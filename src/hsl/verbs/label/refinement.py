"""Refinement: the pseudo-labels of a round are what the segmentation trained on the round before predicts."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX
from hsl.data.datamodule import DataModule
from hsl.data.files.decoding import Decoding
from hsl.data.files.records import Record
from hsl.data.labels.label_table import (
    TIERS,
    LabelRow,
    LabelTable,
    check_origin,
    place_of,
    read_labels,
    read_labels_json,
    read_labels_page,
)
from hsl.errors import DataError
from hsl.files.cells import csv_of
from hsl.files.io import write_atomically
from hsl.pseudo_labels.quality import Judgement
from hsl.pseudo_labels.refine import (
    Agreement,
    Decision,
    changed_share,
    decide,
    flagged,
    mean_iou,
    transitions,
    upgraded,
    write_agreement,
)
from hsl.pseudo_labels.store import LabelFolder, read_mask
from hsl.reports.page.label_sheets import drift_plot
from hsl.tasks.segmentation import SegmentationTask
from hsl.terminal import say
from hsl.verbs.label.label_audit import write_label_audit

LOG, ROUNDS, OSCILLATING = "refinement_log.json", "refinement.csv", "oscillating.json"
SOURCE = "segmentation"
SETTLED = 0.15


def refine_round(task: SegmentationTask, data: DataModule, earlier: Sequence[Path], output: Path) -> float:
    """Label the pictures of a folder anew by what a trained segmentation sees in them.

    The class is the most probable one, 255 where its probability is below the ``uncertain_below`` of the labelling; the
    probability is the confidence. Quality, rules and tiers are those of the labelling; a label in tier B that agrees
    with the first one is lifted to A.

    Args:
        task: trained on the last of the ``earlier`` labels; left in eval mode.
        data: the pictures, prepared.
        earlier: the labels of the rounds before, the first ones first.
        output: a folder of the same layout, made anew. Beside the labels it holds ``refinement_log.json`` and
            ``refinement.csv`` (all rounds so far), ``agreement.csv`` (each picture), ``audit/drift.png``, and
            ``oscillating.json`` where the labels do not settle (the pictures that still change).

    Returns:
        The drift: changed pixels / pixels of all pictures.

    Raises:
        DataError: the last labels are no folder of labels, belong to other data, or hold a picture that does not train.
    """
    previous = earlier[-1]
    page, table = read_labels_page(previous), read_labels(previous)
    ids, known = [row.id for row in table.rows], data.prepared
    check_origin(previous, page, ids, known.catalogue.classes, known.fold_assignment, known.fold)
    names = page["parameters"]["image_classes"]
    judgement = Judgement.of(page["rules"], page["tiers"], page["classes"], names)
    task = task.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    settings = {
        **{key: value for key, value in page.items() if key not in ("format", "created", "folder")},
        "round": page["round"] + 1,
        "sources": {SOURCE: 1.0},
        "weights_sha256": _sha256(task),
        "reviewed": str(place_of(page.get("reviewed", "."), previous, page.get("folder")).resolve()),
        "first": str(earlier[0].resolve()),
    }
    folder = LabelFolder(output, settings, in_run=True)
    try:
        rows = {row.id: row for row in table.rows}
        records = [record for record in data.prepared.catalogue.records if record.id in rows]
        moved = _Moved(earlier[0], previous, len(page["classes"]))
        for name, mask, confidence in _predicted(task, data, records, page["uncertain_below"]):
            row = judgement.row(name, rows[name].label, mask, [SOURCE], rows[name].image)
            folder.add(moved.compared(row, mask), mask, confidence)
        write_label_audit(folder, data.prepared)
        entry = _write_log(folder, moved, settings["round"])
        folder.finish()
    finally:
        folder.close()
    say(
        f"refinement, round {entry['round']}: {entry['drift']:.1%} of the pixels changed, mean IoU with the first "
        f"labels {entry['agreement']:.3f}; {entry['upgraded']} labels lifted to tier A, {entry['flagged']} to look at: "
        f"hsl label review labels={output}"
    )
    return float(entry["drift"])


class _Moved:
    """How each label of a round differs from the first one and from the one before.

    Args:
        first: the labels before any refinement.
        previous: those of the round before.
        num_classes: C.
    """

    def __init__(self, first: Path, previous: Path, num_classes: int) -> None:
        self.first, self.previous, self.num_classes = first, previous, num_classes
        self.table: LabelTable = read_labels(first)
        self.lifted: set[str] = set()
        self.since_first: dict[str, NDArray[np.int64]] = {}
        self.since_previous: dict[str, NDArray[np.int64]] = {}

    def compared(self, row: LabelRow, mask: NDArray[np.uint8]) -> LabelRow:
        """The row, in tier A if the mask's agreement with the first label lifts it there."""
        self.since_first[row.id] = transitions(read_mask(self.first, row.id), mask, self.num_classes)
        self.since_previous[row.id] = transitions(read_mask(self.previous, row.id), mask, self.num_classes)
        judged = upgraded(row, mean_iou(self.since_first[row.id]))
        if judged != row:
            self.lifted.add(row.id)
        return judged

    def pictures(self, rows: Sequence[LabelRow]) -> list[Agreement]:
        """The comparison of every label."""
        agreement = {name: mean_iou(counts) for name, counts in self.since_first.items()}
        drifts = {name: changed_share(counts) for name, counts in self.since_previous.items()}
        first = {row.id: row.tier for row in self.table.rows}
        looked_at = set(flagged(rows, agreement))
        return [
            Agreement(
                row.id, row.label, first[row.id], row.tier, agreement[row.id], drifts[row.id], row.id in self.lifted,
                row.id in looked_at,
            )
            for row in rows
        ]  # fmt: skip


def next_round(drifts: Sequence[float]) -> bool:
    """Whether another round is to be made after those with these drifts.

    Example:
        >>> next_round([0.4]), next_round([0.4, 0.1])
        (True, False)
    """
    return decide(drifts) == Decision.AGAIN


def kept_round(folders: Sequence[Path], drifts: Sequence[float]) -> Path:
    """The labels to go on with once no further round is made.

    Args:
        folders: of the rounds 0 (before any refinement), 1, 2 ...
        drifts: of the rounds 1, 2 ...

    Raises:
        DataError: the labels do not settle.

    Example:
        >>> kept_round([Path("labels"), Path("round_1"), Path("round_2")], [0.3, 0.5]).name  # the drift grew
        'round_1'
    """
    decision = decide(drifts)
    if decision == Decision.OSCILLATING:
        raise DataError(
            f"Refined labels should change by less than {SETTLED:.0%} of the pixels in round {len(drifts)}. Found "
            f"{drifts[-1]:.1%}: they oscillate. `{folders[-1] / OSCILLATING}` lists the pictures; correct or remove "
            "them, or train without refinement."
        )
    return folders[len(drifts) - (decision == Decision.DIVERGED)]


@torch.inference_mode()
def _predicted(
    task: SegmentationTask, data: DataModule, records: Sequence[Record], uncertain_below: float
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.float32]]]:
    """Id, mask and confidence at the size of the source, by the path that ``predict`` takes."""
    for batch in data.predict_dataloader(records, Decoding.of(data.prepared.catalogue)):
        batch["image"] = batch["image"].to(task.device)
        logits = task.predict(data.on_after_batch_transfer(batch, 0))[data.prepared.head]
        for i, (name, (height, width)) in enumerate(zip(batch["id"], batch["size"].tolist(), strict=True)):
            confidence, best = logits[i, :, :height, :width].softmax(dim=0).max(dim=0)
            mask = torch.where(confidence < uncertain_below, IGNORE_INDEX, best)
            yield name, mask.to(torch.uint8).cpu().numpy(), confidence.cpu().numpy()


def _write_log(folder: LabelFolder, moved: _Moved, number: int) -> dict[str, Any]:
    """The log of all rounds as JSON, CSV and plot, and the comparison of each picture; returns this round's entry."""
    earlier: list[dict[str, Any]] = [] if moved.previous == moved.first else read_labels_json(moved.previous / LOG)
    rows: list[LabelRow] = list(folder.rows.values())
    pictures = moved.pictures(rows)
    since_previous = np.sum(list(moved.since_previous.values()), axis=0)
    drift = changed_share(since_previous)
    drifts = [*(one["drift"] for one in earlier), drift]
    entry = {
        "round": number,
        "previous": str(moved.previous),
        "drift": drift,
        "miou": mean_iou(since_previous),
        "agreement": mean_iou(np.sum(list(moved.since_first.values()), axis=0)),
        **_state(rows),
        "upgraded": len(moved.lifted),
        "flagged": sum(one.flagged for one in pictures),
        "decision": str(decide(drifts)),
    }
    write_agreement(folder.work, pictures)
    pages: dict[str, Any] = {LOG: [*earlier, entry]}
    if entry["decision"] == Decision.OSCILLATING:
        moving = sorted((one for one in pictures if one.drift > SETTLED), key=lambda one: (-one.drift, one.id))
        pages[OSCILLATING] = {one.id: one.drift for one in moving}
    for name, page in pages.items():
        write_atomically(folder.work / name, json.dumps(page, indent=1, ensure_ascii=False).encode())
    start = {"round": number - len(drifts), **_state(moved.table.rows)}
    table = pd.json_normalize([entry, *earlier, start], sep="_").sort_values("round").drop(columns="previous")
    write_atomically(folder.work / ROUNDS, csv_of(table).encode())
    drift_plot(folder.audit / "drift.png", table, SETTLED, f"{number} round{'s' if number > 1 else ''} of refinement")
    return entry


def _state(rows: Sequence[LabelRow]) -> dict[str, Any]:
    """What labels are, whatever they were before."""
    tiers = {tier: sum(row.tier == tier for row in rows) for tier in TIERS}
    return {"quality": float(np.mean([row.quality for row in rows])), "pictures": len(rows), "tiers": tiers}


def _sha256(task: SegmentationTask) -> str:
    """Of all weights: labels of other weights are other labels."""
    digest = hashlib.sha256()
    for name, tensor in task.network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
