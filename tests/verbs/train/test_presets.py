"""Presets train and do what their files promise; runs of the eight-part loss."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tests.conftest import composed, points
from tests.data.labels._inputs import write_data
from tests.verbs._asserts import only_run

from hsl.errors import DataError
from hsl.files.output_folder import MARKER
from hsl.heads import Head
from hsl.verbs.predict.predict import predict, write_further
from hsl.verbs.train.train import train

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*",
    "ignore:.*does not have many workers.*",
    "ignore:Checkpoint directory.*",
    "ignore:.*have no pixel in the training part.*",
)

DEFECTS = ["defect_1", "defect_2", "defect_3", "defect_4"]


def write_steel(root: Path) -> Path:
    """Thirty pictures of 32 x 64, one defect each but for every fifth, which has none."""
    (root / "train_images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["ImageId,ClassId,EncodedPixels"]
    for i in range(30):
        Image.fromarray(rng.integers(0, 255, (32, 64, 3), np.uint8)).save(root / "train_images" / f"s{i:02d}.png")
        if i % 5:
            rows.append(f"s{i:02d}.png,{i % 5},{32 * 10 + 5} 8 {32 * 12 + 5} 8")
    (root / "train.csv").write_text("\n".join(rows) + "\n")
    return root


def test_steel_with_attention_and_focal_loss(tmp_path: Path) -> None:
    given = ["experiment=steel_cbam", f"data.root={write_steel(tmp_path / 'data')}", "data.image_size=[32,64]",
             f"output_root={tmp_path / 'outputs'}", "data.num_workers=0", "encoder.name=tu-test_convnext",
             "encoder.weights=null", "trainer.accelerator=cpu", "logger=none"]  # fmt: skip
    preset = composed(given)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = instantiate(preset.scheduler)(optimizer, total_steps=preset.trainer.max_epochs, steps_per_epoch=1)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert np.argmax(rates) in (4, 5)  # five of a hundred epochs up, then down
    assert rates[0] < 0.5
    assert rates[-1] < 0.01

    value = train(
        composed([*given, "trainer.max_epochs=1", "scheduler.warmup_epochs=0.5", "callbacks.tta_evaluation=null"])
    )
    folder = only_run(tmp_path)
    assert folder.parents[1].name == "steel_cbam"
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    stages = {name.split(".")[3] for name in best["state_dict"] if name.startswith("network.encoder.cbam.")}
    assert stages == {"3", "4"}
    stop = instantiate(OmegaConf.load(folder / "config.yaml").callbacks.early_stopping)
    assert (stop.patience, stop.monitor) == (15, "val/macro_f1")
    page = json.loads((folder / "metrics.json").read_text())
    head = page["parts"]["val"]["plain"]["image_heads"]["classification"]
    assert list(head["thresholds"]) == DEFECTS
    assert value == pytest.approx(pd.read_csv(folder / "history.csv")["val/macro_f1"].max())
    table = pd.read_csv(folder / "image_predictions.csv", keep_default_na=False)
    assert all(row.target == ("" if int(row.id[1:]) % 5 == 0 else f"defect_{int(row.id[1:]) % 5}")
               for row in table.itertuples())  # fmt: skip


def write_pairs(root: Path, images: str, masks: str, names: list[str], num_classes: int, ending: bool = False) -> None:
    """A picture of 64 x 64 and a mask of blocks of 8 for each name; ``ending`` puts the folder's name behind it."""
    rng = np.random.default_rng(0)
    for name in names:
        blocks = rng.integers(0, num_classes, (8, 8), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        for folder, array in ((images, rng.integers(0, 255, (64, 64, 3), np.uint8)), (masks, blocks)):
            path = root / folder / (f"{name}_{folder}.png" if ending else f"{name}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)


def write_art(root: Path) -> None:
    names = [f"a{i:02d}" for i in range(12)]
    write_pairs(root, "images", "annotations", names, 16)
    (root / "metadata.csv").write_text("id,material,content\n" + "".join(f"{name},Canvas,Abstract\n" for name in names))


def write_reef(root: Path) -> None:
    parts = {"train": 4, "val": 2, "test": 2}
    write_pairs(root, "leftImg8bit", "gtFine", [f"{p}/{p}/{p}_{i}" for p in parts for i in range(parts[p])], 40, True)


def write_leaves(root: Path) -> None:
    write_pairs(root, "images", "masks", [f"l{i:02d}" for i in range(18)], 3)
    (root / "dataset.yaml").write_text("classes: [background, leaf, symptom]\n")
    rows = "".join(f"l{i:02d},l{i:02d},{('healthy', 'rust', 'miner')[i % 3]}\n" for i in range(18))
    (root / "labels.csv").write_text("id,group,label\n" + rows)


SMALL = ["encoder=mit_b0", "encoder.weights=null", "data.image_size=64", "data.batch_size=4", "data.num_workers=0",
         "data.audit.missing_classes=warn", "data.audit.near_duplicates=off", "trainer.accelerator=cpu",
         "trainer.max_epochs=1", "callbacks.tta_evaluation=null", "callbacks.evaluation.num_examples=0",
         "logger=none", "metrics=none"]  # fmt: skip
WINDOWS = ["inference.window=64", "inference.stride=32"]
SHORT = [f"phases.{phase}.overrides.trainer.max_epochs=1" for phase in "ABC"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "write", "words"),
    [
        ("artefact_cv", write_art, ["decoder.channels=[16,16,16,16,16]"]),
        ("coral_flat", write_reef, [*WINDOWS, "decoder.channels=16"]),
        ("coral_focused", write_reef, [*WINDOWS, "decoder.width=16"]),
        ("coral_holistic", write_reef, [*WINDOWS, "decoder.width=16"]),
        (
            "leaf_dual_head",
            write_leaves,
            ["data/labels=masks", "decoder.channels=16", "decoder.skip_channels=8", *SHORT],
        ),
        ("leaf_classifier", write_leaves, []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_published_preset_trains(
    preset: str, write: Callable[[Path], None], words: list[str], tmp_path: Path
) -> None:
    write(tmp_path / "data")
    places = [f"data.root={tmp_path / 'data'}", f"output_root={tmp_path / 'outputs'}"]
    value = train(composed([f"experiment={preset}", *places, *SMALL, *words]))
    assert 0 <= value <= 1
    folder = only_run(tmp_path)
    history = pd.read_csv(next(folder.rglob("history.csv")))
    assert np.isfinite(history["train/loss"]).all()


# A run of the eight-part loss: what it logs, which heads it builds, the objects it scores.


PARTS = {"segmentation", "edge", "hv", "reconstruction", "object_embedding", "pixel_contrastive", "total_variation",
         "small_hole"}  # fmt: skip


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
