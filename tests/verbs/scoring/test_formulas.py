"""A picture called as a formula goes through each of our tables and comes back under its name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from hsl.data.formats.findings import Findings
from hsl.data.formats.tables import read_table
from hsl.data.labels.label_table import LabelRow, read_labels
from hsl.data.loading.sampling import HardExamples
from hsl.files.cells import csv_of
from hsl.files.io import write_atomically
from hsl.pseudo_labels.store import labels_csv
from hsl.reports.page.pictures import write_examples
from hsl.reports.tables.score_tables import Column, Table
from hsl.run_folder.pictures import (
    read_examples,
    read_image_predictions,
    read_images,
    write_image_predictions,
    write_images,
)

IDS = ["=HYPERLINK(1)", "@a", "+b", "-c", "'=d", "plain", "-5"]
DANGEROUS = ("=", "@", "+b", "-c")


class Predicted:
    miou = -0.5
    prediction: NDArray[np.uint8] = np.zeros((4, 4), np.uint8)
    confidence: NDArray[np.float32] = np.ones((4, 4), np.float32)

    def __init__(self, name: str) -> None:
        self.id = name


def neutral(text: str) -> bool:
    return not any(cell.startswith(DANGEROUS) for line in text.splitlines() for cell in line.split(","))


def written(path: Path, frame: pd.DataFrame) -> Path:
    write_atomically(path, csv_of(frame).encode())
    assert neutral(path.read_text())
    return path


def test_scores_of_pictures(tmp_path: Path) -> None:
    rows = [{"id": name, "group": name, "part": "val", "inference": "plain", "miou": 0.5} for name in IDS]
    write_images(tmp_path, rows)
    assert neutral((tmp_path / "per_image.csv").read_text())
    images = read_images(tmp_path)["val", "plain"]
    assert {name: row.group for name, row in images.items()} == {name: name for name in IDS}


def test_classes_of_pictures(tmp_path: Path) -> None:
    where = {"group": "@g", "part": "val", "inference": "plain", "head": "classification", "correct": 1, "loss": 0.25}
    probabilities = {"probability/=a": 0.9, "probability/-b": 0.1}
    rows = [{"id": name, "target": "=a", "prediction": "=a", **where, **probabilities} for name in IDS]
    write_image_predictions(tmp_path, rows)
    assert neutral((tmp_path / "image_predictions.csv").read_text())
    found = read_image_predictions(tmp_path, "classification", ["=a", "-b"], False)["val", "plain"]
    assert (sorted(found.ids), set(found.groups)) == (sorted(IDS), {"@g"})
    assert found.predicted[:, 0].all()
    assert HardExamples([str(tmp_path)]).chances(IDS, np.ones((1, 1), bool)) == pytest.approx(1 / len(IDS))


def test_examples(tmp_path: Path) -> None:
    blank = np.zeros((4, 4, 3), np.uint8)
    write_examples(tmp_path, [Predicted(name) for name in IDS], [], lambda _: (blank, None), ["a", "b"])
    assert neutral((tmp_path / "index.csv").read_text())
    assert [(one.id, one.miou) for one in read_examples(tmp_path)] == [(name, -0.5) for name in IDS]


def test_pseudo_labels(tmp_path: Path) -> None:
    rows = [LabelRow(name, "=rust", "A", 0.5, 0, 0, True, "@x", "-y.png") for name in sorted(IDS)]
    (tmp_path / "labels.csv").write_text(labels_csv(rows), encoding="utf8")
    (tmp_path / "labels.json").write_text('{"data": "x", "classes": ["a"]}')
    assert neutral(labels_csv(rows))
    image = str(tmp_path / "-y.png")  # a relative path is one in the folder of the labels
    assert list(read_labels(tmp_path).rows) == [replace(row, image=image) for row in rows]


def test_labels_of_a_data_set(tmp_path: Path) -> None:
    """Those of exported patches are read by `data=folder`."""
    path = written(tmp_path / "labels.csv", pd.DataFrame({"id": IDS, "group": ["=g"] * len(IDS)}))
    findings = Findings()
    assert read_table(path, IDS, findings) == {name: {"group": "=g"} for name in IDS}
    findings.raise_if_any(tmp_path)


def test_tables_of_the_report() -> None:
    table = Table("x", "", [Column("=key", "t", "text"), Column("n", "n", "share")], [["=1", -0.5], ["-model", None]])
    assert table.to_csv() == "'=key,n\n'=1,-0.5\n'-model,\n"
