"""`hsl label score`: pseudo-labels against the masks of the data set, where it has some."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.markup import escape
from rich.table import Table

from hsl.batch import IGNORE_INDEX
from hsl.console import PlainConsole
from hsl.data.files.decoding import Decoding
from hsl.data.labels.label_table import TIERS, LabelTable, read_labels
from hsl.data.prepared import PreparedData
from hsl.errors import DataError
from hsl.files.cells import csv_of
from hsl.files.io import write_atomically
from hsl.files.output_folder import OutputFolder
from hsl.metrics.pixels.counts import confusion_matrix
from hsl.metrics.pixels.formulas import confusion_scores
from hsl.pseudo_labels.store import read_mask
from hsl.terminal import say

SCORES = "audit/scores.csv"
Counts = NDArray[np.int64]


def score_labels(cfg: DictConfig) -> None:
    """Compare pseudo-labels with true masks: IoU per class, of all pictures and of each tier; read only, for people.

    Uncertain pixels of the labels count nowhere; their share stands beside.

    Raises:
        DataError: the labels belong to other classes, or no labelled picture has a mask.
    """
    labels, way_out = read_labels(Path(cfg.labels)), "Move that file away."
    with OutputFolder(labels.folder, "label score", only=[SCORES], way_out=way_out) as output:
        table = _scores(cfg, labels)
        write_atomically(output.work / SCORES, csv_of(table).encode())
    _print(table)
    say(f"{labels.folder / SCORES}")


def _scores(cfg: DictConfig, labels: LabelTable) -> pd.DataFrame:
    data: PreparedData = instantiate(cfg.data).prepared
    if labels.classes != data.catalogue.classes:
        raise DataError(
            f"`{labels.folder}` should have the classes of the data, {list(data.catalogue.classes)}. "
            f"Found {list(labels.classes)}. Point `data.root` to the data that were labelled."
        )
    catalogue, known = data.catalogue, {record.id: record for record in data.catalogue.records}
    decoding = Decoding.of(catalogue)
    counts: dict[str, list[tuple[Counts, int, int]]] = {tier: [] for tier in TIERS}
    for row in labels.rows:
        record = known.get(row.id)
        if record is None or record.mask is None:
            continue
        truth = decoding.mask(record.mask)
        counts[row.tier].append(_compare(read_mask(labels.folder, row.id), truth, len(labels.classes)))
    if not any(counts.values()):
        raise DataError(
            f"`{catalogue.name}` should have masks of labelled pictures. Found none: nothing to compare with."
        )
    return _table(counts, labels.classes)


def _compare(label: NDArray[np.uint8], truth: NDArray[np.uint8], num_classes: int) -> tuple[Counts, int, int]:
    """Confusion ``(C, C)`` (rows truth) over the pixels that both know, uncertain pixels, known pixels of the truth."""
    valid, unsure = truth != IGNORE_INDEX, label == IGNORE_INDEX
    compared = torch.from_numpy(np.where(unsure, IGNORE_INDEX, truth)).long()
    matrix = confusion_matrix(torch.from_numpy(np.where(unsure, 0, label)).long(), compared, num_classes)
    return matrix.numpy(), int((valid & unsure).sum()), int(valid.sum())


def _table(counts: Mapping[str, list[tuple[Counts, int, int]]], classes: tuple[str, ...]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for tier, found in (("all", [one for each in counts.values() for one in each]), *counts.items()):
        row: dict[str, Any] = {"tier": tier, "pictures": len(found)}
        if found:
            pooled = confusion_scores(np.sum([matrix for matrix, _, _ in found], axis=0))
            row["uncertain"] = sum(unsure for _, unsure, _ in found) / sum(number for _, _, number in found)
            row["miou"] = float(pooled["miou"])
            row |= {f"iou/{name}": float(pooled["iou"][i]) for i, name in enumerate(classes)}
        rows.append(row)
    return pd.DataFrame(rows)


def _print(table: pd.DataFrame) -> None:
    shown = Table(*(escape(str(name)) for name in table.columns))
    for row in table.itertuples(index=False):
        shown.add_row(*(_cell(value) for value in row))
    PlainConsole().print(shown)


def _cell(value: Any) -> str:
    return "" if pd.isna(value) else f"{value:.3f}" if isinstance(value, float) else str(value)
