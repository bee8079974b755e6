"""Run folders with known confusion matrices, written in the layout that every run leaves."""

import csv
import hashlib
import io
import json

import numpy as np
import pytest
import yaml

from hsl.reports import pictures

CLASSES = ["background", "crack", "stain"]


def confusion_of(correct, wrong):
    """Two classes with pixels: ``correct`` on the diagonal, ``wrong`` cracks taken for background."""
    return [[correct, 0, 0], [wrong, correct, 0], [0, 0, 0]]


def scores(confusion, num_images):
    matrix = np.array(confusion, dtype=float)
    hits, union = np.diag(matrix), matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    iou = [h / u if u else None for h, u in zip(hits, union, strict=True)]
    known = [value for value in iou if value is not None]
    return {
        "num_images": num_images,
        "miou": sum(known) / len(known),
        "classes_scored": len(known),
        "confusion": confusion,
    }


def split_of(num_folds=3, per_fold=4, prefix="p"):
    ids = [[f"{prefix}{fold}_{i}" for i in range(per_fold)] for fold in range(num_folds)]
    folds = [
        {
            "name": str(fold),
            "train": sorted(name for other in range(num_folds) if other != fold for name in ids[other]),
            "val": ids[fold],
        }
        for fold in range(num_folds)
    ]
    sha256 = hashlib.sha256(prefix.encode()).hexdigest()
    return {"method": "kfold", "seed": 0, "groups": "group", "folds": folds, "test": [], "sha256": sha256}


def image_rows(split, fold, offset=0.0, part="val"):
    """Per-image mIoU: 0.5 plus the offset plus a little that depends on the picture alone."""
    ids = split["folds"][fold]["val"] if part == "val" else split["test"]
    return [(name, f"g{name[:-1]}{i // 2}", 0.5 + offset + 0.01 * i) for i, name in enumerate(ids)]


@pytest.fixture
def make_run(tmp_path):
    """``make_run(name, encoder, fold, confusion, ...)`` writes one run folder below ``tmp_path/outputs``."""

    def make(
        name="a",
        encoder="resnet50",
        fold=0,
        confusion=None,
        tta=None,
        test=None,
        seed=0,
        status="finished",
        source="random",
        split=None,
        rows=None,
        config=None,
        provenance=None,
        time="2026-01-01_00-00-00",
    ):
        folder = tmp_path / "outputs" / name / f"fold{fold}" / f"{time}-s{seed}"
        folder.mkdir(parents=True)
        content = {"name": name, "fold": fold, "seed": seed, "encoder": {"name": encoder}, "lr": 0.001}
        (folder / "config.yaml").write_text(yaml.safe_dump({**content, **(config or {})}))
        split = split_of() if split is None else split
        facts = {
            "status": status,
            "started": time,
            "wall_time_s": 61.0,
            "split_sha256": split["sha256"],
            "weights_used": {"source": source, "sha256": None if source == "random" else "ab" * 32},
            "git": {"commit": "0123456789abcdef", "dirty": False},
            "command": f"train.py encoder={encoder} fold={fold}",
        }
        (folder / "provenance.json").write_text(json.dumps({**facts, **(provenance or {})}))
        (folder / "splits.json").write_text(json.dumps(split))
        history = "epoch,lr,train/loss,val/loss,val/miou\n0,0.001,1.0,1.1,0.3\n1,0.001,0.8,0.9,0.5\n"
        (folder / "history.csv").write_text(history)
        if status == "finished":
            write_scores(folder, split, fold, confusion or confusion_of(50, 50), tta, test, rows)
        return folder

    return make


def write_scores(folder, split, fold, confusion, tta, test, rows):
    parts = {"val": {"plain": scores(confusion, len(split["folds"][fold]["val"]))}}
    if tta is not None:
        parts["val"]["tta"] = scores(tta, len(split["folds"][fold]["val"]))
    if test is not None:
        parts["test"] = {"plain": scores(test, 2)}
    page = {
        "monitor": {"name": "val/miou", "mode": "max", "value": 0.5, "epoch": 1},
        "classes": CLASSES,
        "parts": parts,
    }
    (folder / "metrics.json").write_text(json.dumps(page))
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["id", "group", "part", "inference", "miou", "pixel_accuracy", "confidence"])
    for name, group, miou in image_rows(split, fold) if rows is None else rows:
        table.writerow([name, group, "val", "plain", miou, 0.9, 0.8])
    (folder / "per_image.csv").write_text(text.getvalue())


class Predicted:
    def __init__(self, name, miou):
        self.id, self.miou = name, miou
        self.prediction = np.zeros((30, 40), dtype=np.uint8)
        self.prediction[10:20] = 1
        self.confidence = np.linspace(0.4, 1, 1200, dtype=np.float32).reshape(30, 40)


@pytest.fixture
def add_pictures():
    """``add_pictures(folder, best, worst)``: example pictures with the given per-image mIoU."""

    def original(name):
        mask = np.zeros((30, 40), dtype=np.uint8)
        mask[12:22] = 1
        return np.full((30, 40, 3), 90, dtype=np.uint8), mask

    def add(folder, best=(0.9,), worst=(0.1,)):
        kinds = [[Predicted(f"p{value}", value) for value in kind] for kind in (best, worst)]
        pictures.write_examples(folder / "predictions", *kinds, original, CLASSES)

    return add


@pytest.fixture(name="split_of")
def _split_of():
    return split_of
