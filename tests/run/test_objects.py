"""A run of the eight-part loss: what it logs, which heads it builds, the objects it scores."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from tests.conftest import composed
from tests.data.test_object_labels import write_data
from tests.run.test_train import only_run

from hsl.config import DataError
from hsl.run import train

PARTS = {"segmentation", "edge", "hv", "reconstruction", "object_embedding", "pixel_contrastive", "total_variation",
         "small_hole"}  # fmt: skip

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*",
    "ignore:.*does not have many workers.*",
    "ignore:Checkpoint directory.*",
    "ignore:.*have no pixel in the training part.*",
)


def histology(root: Path, folder: Path, *overrides: str) -> DictConfig:
    chosen = [
        "experiment=histology", f"data.root={root}", f"output_root={folder / 'outputs'}", "data.image_size=32",
        "data.batch_size=2", "data.num_workers=0", "data.audit.near_duplicates=off", "data.split.groups=null",
        "encoder=mobilenetv3_small", "encoder.weights=null", "decoder.channels=[16,8,8,8,8]", "trainer.max_epochs=2",
        "trainer.accelerator=cpu", "logger=none", "callbacks.evaluation.num_examples=0", *overrides,
    ]  # fmt: skip
    return composed(chosen)


def test_weak_labels_from_training_to_scored_objects(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    train(histology(root, tmp_path, "data.labels.annotated_fraction=0.5", "metrics.pool.workers=1"))
    folder = only_run(tmp_path)
    history = pd.read_csv(folder / "history.csv")
    assert {f"train/loss/{part}" for part in PARTS} <= set(history)
    weights = {"segmentation": 2, "edge": 10, "hv": 1, "reconstruction": 0.5, "object_embedding": 0.5,
               "pixel_contrastive": 0.1, "total_variation": 0.1, "small_hole": 0.1}  # fmt: skip
    total = sum(weight * history[f"train/loss/{part}"] for part, weight in weights.items())
    np.testing.assert_allclose(history["train/loss"], total, rtol=1e-5)
    parts = json.loads((folder / "metrics.json").read_text())["parts"]
    for part in ("val", "test"):
        for inference in ("plain", "tta"):
            found = parts[part][inference]["instances"]
            assert found["tp"] + found["fn"] == 16 * parts[part][inference]["num_images"]
            assert 0 <= found["aji"] <= 1


def test_a_part_that_is_off_has_no_head(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    off = [f"loss.weights.{part}=0" for part in ("reconstruction", "object_embedding", "pixel_contrastive")]
    train(histology(root, tmp_path, *off, "metrics=none", "callbacks.tta_evaluation=null", "weighting=uncertainty"))
    state = torch.load(only_run(tmp_path) / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    heads = {name.split(".")[2] for name in state if name.startswith("network.heads.")}
    assert heads == {"segmentation", "hv"}


def test_data_without_instances_are_refused(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    for path in (root / "instances").iterdir():
        path.unlink()
    (root / "instances").rmdir()
    with pytest.raises(DataError, match="map of instance ids"):
        train(histology(root, tmp_path))
