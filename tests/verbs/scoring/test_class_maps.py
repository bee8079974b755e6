"""What becomes of the class maps of an evaluation."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from hsl.batch import Batch
from hsl.files.row_file import read_rows
from hsl.verbs.scoring.class_maps import class_map_path, object_scores, save_class_maps

HEAD = "segmentation"
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
    with object_scores(path, settings(**functions), HEAD, data_of()) as (sink,):
        sink("val/plain", batch_of("a"), [np.array([[0, 1, 1], [0, 0, 1]], dtype=np.uint8)])
    (row,) = read_rows(path)
    assert (row["id"], row["part"], row["errors"]) == ("a", "val/plain", {})
    assert row["metrics"]["panoptic"]["tp"] == [0, 1]
    assert row["metrics"]["clustering"]["ari"] == 1.0


def test_object_ids_of_the_data_set_take_the_place_of_components(tmp_path: Path) -> None:
    path, ids = tmp_path / "objects.jsonl", np.array([[0, 1, 2], [0, 0, 0]], dtype=np.uint16)
    functions = {"panoptic": "hsl.metrics.objects.panoptic.panoptic_counts"}
    with object_scores(path, settings(**functions), HEAD, data_of(ids)) as (sink,):
        sink("val/plain", batch_of("a"), [np.array([[0, 1, 1], [0, 0, 0]], dtype=np.uint8)])
    (row,) = read_rows(path)
    assert (row["metrics"]["panoptic"]["tp"], row["metrics"]["panoptic"]["fn"]) == ([0, 0], [0, 2])


def test_a_metric_that_raises_is_told_and_the_others_stand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    functions = {
        "panoptic": "hsl.metrics.objects.panoptic.panoptic_counts",
        "clustering": "hsl.metrics.objects.clustering.clustering_scores",
    }
    path = tmp_path / "objects.jsonl"
    with object_scores(path, settings(**functions), HEAD, data_of()) as (sink,):
        sink("val/plain", batch_of("a"), [np.full((2, 3), 7, dtype=np.uint8)])  # class 7 of 2
    row = json.loads(path.read_text())
    assert list(row["errors"]) == ["panoptic"]
    assert list(row["metrics"]) == ["clustering"]
    assert "1 of 1 pictures have an error record" in capsys.readouterr().out


def test_without_settings_there_is_no_pool(tmp_path: Path) -> None:
    with object_scores(tmp_path / "objects.jsonl", None, HEAD, data_of()) as sinks:
        assert sinks == []
    assert not list(tmp_path.iterdir())
