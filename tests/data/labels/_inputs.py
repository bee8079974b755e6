"""Data sets with pseudo-labels, and with objects."""

import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hsl.batch import IGNORE_INDEX
from hsl.data.audit.audit import audit
from hsl.data.datamodule import DataModule
from hsl.data.formats.folder import read_folder
from hsl.data.labels.label_table import COLUMNS
from hsl.data.labels.pseudo_labels import PseudoLabels
from hsl.data.loading.transforms import training_transform
from hsl.data.splits.folds import kfold

TIERS = {"A": 1.0, "B": 0.5, "C": None}


def make(root: Path, labels: PseudoLabels | None, **changed: Any) -> DataModule:
    split = partial(kfold, num_folds=3, groups=None, stratify=None, test_from="fraction", test_fraction=0.2, seed=0)
    whole = dict.fromkeys(("flips", "rot90", "resized_crop", "rotation", "colour", "blur"))
    given: dict[str, Any] = {
        "root": root,
        "reader": read_folder,
        "split": split,
        "fold": 0,
        "image_size": 16,
        "batch_size": 1,
        "num_workers": 0,
        "cache": "ram",
        "cache_gigabytes": 1.0,
        "cache_dir": None,
        "audit": partial(audit, near_duplicates="warn", threshold=0.98, missing_classes="warn", cache_dir=None),
        "augmentation": partial(training_transform, **whole),
        "normalization": {"mean": [0.5] * 3, "std": [0.25] * 3},
        "seed": 0,
        "labels": labels,
        "image_labels": "label",
    }
    return DataModule(**(given | changed))


def write_labels(folder: Path, data: DataModule, tiers: dict[str, str], **changed: Any) -> Path:
    """A folder as `hsl label` writes it: class 1 in the left half, uncertain in the right."""
    for name in ("masks", "confidence"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    mask = np.full((16, 16), IGNORE_INDEX, np.uint8)
    mask[:, :8] = 1
    for name in tiers:
        cv2.imwrite(str(folder / f"masks/{name}.png"), mask)
        cv2.imwrite(str(folder / f"confidence/{name}.png"), np.full((16, 16), 204, np.uint8))
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = [[name, "ill", tier, 0.7, 0.5, 0.5, 1, "grabcut", ""] for name, tier in tiers.items()]
        csv.writer(file).writerows([COLUMNS, *rows])
    facts = {
        "format": 1,
        "data": data.prepared.catalogue.name,
        "classes": list(data.prepared.catalogue.classes),
        "split_sha256": data.prepared.fold_assignment.sha256,
        "fold": 0,
    }
    (folder / "labels.json").write_text(json.dumps(facts | changed))
    return folder


def write_data(root: Path, classes: str = "[background, nucleus]") -> Path:
    """Eight pictures with sixteen square objects each; a corner of every mask is ignored."""
    for folder in ("images", "masks", "instances"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    ids = np.zeros((32, 32), np.uint16)
    for i in range(16):
        y, x = divmod(i, 4)
        ids[8 * y + 1 : 8 * y + 6, 8 * x + 1 : 8 * x + 6] = i + 1
    mask = (ids > 0).astype(np.uint8)
    mask[:1, :1] = 255
    for i in range(8):
        cv2.imwrite(str(root / f"images/p{i}.png"), rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        cv2.imwrite(str(root / f"masks/p{i}.png"), mask)
        cv2.imwrite(str(root / f"instances/p{i}.png"), ids)
    (root / "dataset.yaml").write_text(f"classes: {classes}\n")
    return root
