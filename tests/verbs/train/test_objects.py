"""A run of the eight-part loss: what it logs, which heads it builds, the objects it scores."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from tests.conftest import composed
from tests.data.labels._inputs import write_data
from tests.tasks._inputs import points
from tests.verbs._asserts import only_run

from hsl.errors import DataError
from hsl.files.output_folder import MARKER
from hsl.heads import Head
from hsl.verbs.predict.predict import predict, write_further
from hsl.verbs.train.train import train

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
    assert heads_of(folder) == {"segmentation", "hv", "reconstruction", "object_embedding", "pixel_embedding"}
    assert len(json.loads((folder / "splits.json").read_text())["folds"]) == 3
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
            assert 0 <= found["object_ap"] <= found["object_ap50"] <= 1
    check_predict(folder, root, tmp_path, parts["val"]["plain"])


def heads_of(folder: Path) -> set[str]:
    state = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    return {name.split(".")[2] for name in state if name.startswith("network.heads.")}


def check_predict(folder: Path, root: Path, tmp_path: Path, scored: dict[str, Any]) -> None:
    """The objects are those that were scored, whatever the picture's size; other heads are no classes."""
    pictures, out = tmp_path / "pictures", tmp_path / "predicted"
    pictures.mkdir()
    val = json.loads((folder / "splits.json").read_text())["folds"][0]["val"]
    for name in val:
        shutil.copy(root / "images" / f"{name}.png", pictures)
    rng = np.random.default_rng(0)
    cv2.imwrite(str(pictures / "odd.png"), rng.integers(0, 255, (37, 91, 3), dtype=np.uint8))
    cfg = OmegaConf.load(folder / "config.yaml")
    cfg.task.network.evaluated = ["hv", "reconstruction"]
    OmegaConf.save(cfg, folder / "config.yaml")
    predict(composed([f"run={folder}", f"input={pictures}", f"output={out}"], "predict"))
    assert sorted(path.name for path in out.iterdir()) == [MARKER, "areas.csv", "instances", "masks", "overlays"]
    found = {path.stem: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (out / "instances").iterdir()}
    assert found["odd"].shape == (37, 91)
    for name, ids in found.items():
        assert ids.dtype == np.uint16
        assert np.array_equal(np.union1d(ids, 0), np.arange(ids.max() + 1))
        mask = cv2.imread(str(out / "masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(ids > 0, mask > 0)
    assert sum(found[name].max() for name in val) == scored["instances"]["tp"] + scored["instances"]["fp"]


HEADS = [Head("segmentation", "dense", ("background", "object")), Head("hv", "map")]


def test_more_objects_than_a_map_holds_are_one_error_and_the_rest_is_done(tmp_path: Path) -> None:
    logits, depth = torch.zeros(2, 514, 514), torch.zeros(1, 514, 514)
    logits[1], logits[1, ::2, ::2] = -1.0, 1.0  # 257 x 257 pixels apart
    with pytest.raises(DataError, match=r"`p0` should have at most 65535 objects.*Found 66049\."):
        write_further(tmp_path, "p0", {"segmentation": logits, "hv": depth}, HEADS)
    assert not list(tmp_path.iterdir())
    write_further(tmp_path, "p1", {"segmentation": logits[:, :510], "hv": depth[:, :510]}, HEADS)
    assert cv2.imread(str(tmp_path / "instances" / "p1.png"), cv2.IMREAD_UNCHANGED).max() == 255 * 257


def test_a_part_that_is_off_has_no_head(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    off = [f"loss.weights.{part}=0" for part in ("reconstruction", "object_embedding", "pixel_contrastive")]
    train(histology(root, tmp_path, *off, "metrics=none", "callbacks.tta_evaluation=null", "weighting=uncertainty"))
    assert heads_of(only_run(tmp_path)) == {"segmentation", "hv"}


def test_without_the_distance_part_data_need_no_instances(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    shutil.rmtree(root / "instances")
    off = ("loss.weights.hv=0", "metrics=none", "callbacks.tta_evaluation=null", "trainer.max_epochs=1")
    train(histology(root, tmp_path, *off))
    history = pd.read_csv(only_run(tmp_path) / "history.csv")
    logged = {name.rpartition("/")[2] for name in history if name.startswith("train/loss/")}
    assert logged == PARTS - {"hv"}


@pytest.mark.parametrize("weighting", ["fixed", "pcgrad"])
def test_nine_losses_of_every_step_and_what_each_part_weighs(tmp_path: Path, weighting: str) -> None:
    root = write_data(tmp_path / "data")
    quick = ["metrics=none", "callbacks.tta_evaluation=null", "trainer.max_epochs=1", "logger=tensorboard"]
    train(histology(root, tmp_path, f"weighting={weighting}", *quick))
    logged = points(only_run(tmp_path) / "tensorboard")
    steps = int(pd.read_csv(only_run(tmp_path) / "history.csv")["step"].iloc[-1])
    assert steps > 1
    for name in ["train_step/loss", *(f"train_step/loss/{part}" for part in PARTS)]:
        assert [step for step, _ in logged[name]] == list(range(steps))
    shares = [logged[f"parts/share/{part}"] for part in PARTS]  # of the first step only: it costs
    assert [step for points in shares for step, _ in points] == [0] * 8
    assert sum(share for ((_, share),) in shares) == pytest.approx(1)
    assert all(logged[f"parts/gradient/{part}"][0][1] > 0 for part in ("segmentation", "edge", "hv"))


def test_data_without_instances_are_refused(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    for path in (root / "instances").iterdir():
        path.unlink()
    (root / "instances").rmdir()
    with pytest.raises(DataError, match="map of instance ids"):
        train(histology(root, tmp_path))


@pytest.mark.parametrize("head", ["/elsewhere", "../../elsewhere"])
def test_a_head_that_is_a_path_is_not_written(tmp_path: Path, head: str) -> None:
    """Heads are named by the provenance of a run folder."""
    head = head.replace("/elsewhere", f"{tmp_path}/elsewhere") if head.startswith("/") else head
    with pytest.raises(DataError, match="should name a file below"):
        write_further(tmp_path / "out", "p0", {head: torch.zeros(2, 4, 4)}, [Head(head, "dense")])
    assert not (tmp_path / "elsewhere").exists()
