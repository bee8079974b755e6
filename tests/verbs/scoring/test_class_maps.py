"""What becomes of class maps and of names that read as formulas."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image

from hsl.batch import Batch
from hsl.data.formats.findings import Findings
from hsl.data.formats.tables import read_table
from hsl.data.labels.label_table import LabelRow, read_labels
from hsl.data.loading.sampling import HardExamples
from hsl.files.cells import csv_of
from hsl.files.io import write_atomically
from hsl.files.row_file import read_rows
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
from hsl.verbs.scoring.class_maps import class_map_path, object_scores, save_class_maps

HEAD = "segmentation"
ALONE: Any = SimpleNamespace(global_rank=0, world_size=1, is_global_zero=True, strategy=SimpleNamespace(barrier=int))
MASK = [[0, 1, 1], [0, 0, 255]]


def batch_of(name: str) -> Batch:
    masks = {HEAD: torch.tensor([MASK])}
    return {"id": [name], "image": torch.zeros(1, 3, 2, 2), "size": torch.tensor([[2, 3]]), "masks": masks}


def data_of(instances: Any = None) -> Any:
    return SimpleNamespace(classes={HEAD: ("clean", "crack")}, instances=lambda name: instances)


def settings(**metrics: str) -> Any:
    nodes = {name: {"_target_": target, "_partial_": True} for name, target in metrics.items()}
    return OmegaConf.create({"workers": 1, "metrics": nodes})


def test_ids_that_differ_end_in_files_that_differ() -> None:
    names = ["a/b", "a b", "a-b", "a" * 90, "a" * 91]
    assert len({class_map_path("val", "plain", name) for name in names}) == len(names)


def test_a_class_map_is_stored_as_indices(tmp_path: Path) -> None:
    classes = np.array([[0, 1, 0]], dtype=np.uint8)
    save_class_maps(tmp_path, "test/plain", batch_of("a"), [classes])
    with Image.open(tmp_path / class_map_path("test", "plain", "a")) as stored:
        assert stored.mode == "P"
        assert np.array(stored).tolist() == classes.tolist()


def test_the_pool_scores_what_the_sink_is_given(tmp_path: Path) -> None:
    path = tmp_path / "objects.jsonl"
    functions = {
        "panoptic": "hsl.metrics.objects.panoptic.panoptic_counts",
        "clustering": "hsl.metrics.objects.clustering.clustering_scores",
    }
    with object_scores(path, settings(**functions), HEAD, data_of(), ALONE) as (sink,):
        sink("val/plain", batch_of("a"), [np.array([[0, 1, 1], [0, 0, 1]], dtype=np.uint8)])
    (row,) = read_rows(path)
    assert (row["id"], row["part"], row["errors"]) == ("a", "val/plain", {})
    assert row["metrics"]["panoptic"]["tp"] == [0, 1]
    assert row["metrics"]["clustering"]["ari"] == 1.0


def test_object_ids_of_the_data_set_take_the_place_of_components(tmp_path: Path) -> None:
    path, ids = tmp_path / "objects.jsonl", np.array([[0, 1, 2], [0, 0, 0]], dtype=np.uint16)
    functions = {"panoptic": "hsl.metrics.objects.panoptic.panoptic_counts"}
    with object_scores(path, settings(**functions), HEAD, data_of(ids), ALONE) as (sink,):
        sink("val/plain", batch_of("a"), [np.array([[0, 1, 1], [0, 0, 0]], dtype=np.uint8)])
    (row,) = read_rows(path)
    assert (row["metrics"]["panoptic"]["tp"], row["metrics"]["panoptic"]["fn"]) == ([0, 0], [0, 2])


def test_a_metric_that_raises_is_told_and_the_others_stand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    functions = {
        "panoptic": "hsl.metrics.objects.panoptic.panoptic_counts",
        "clustering": "hsl.metrics.objects.clustering.clustering_scores",
    }
    path = tmp_path / "objects.jsonl"
    with object_scores(path, settings(**functions), HEAD, data_of(), ALONE) as (sink,):
        sink("val/plain", batch_of("a"), [np.full((2, 3), 7, dtype=np.uint8)])  # class 7 of 2
    row = json.loads(path.read_text())
    assert list(row["errors"]) == ["panoptic"]
    assert list(row["metrics"]) == ["clustering"]
    assert "1 of 1 pictures have an error record" in capsys.readouterr().out


def test_without_settings_there_is_no_pool(tmp_path: Path) -> None:
    with object_scores(tmp_path / "objects.jsonl", None, HEAD, data_of(), ALONE) as sinks:
        assert sinks == []
    assert not list(tmp_path.iterdir())


# A picture called as a formula goes through each of our tables and comes back under its name.


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
