"""A preset trains, on data the test writes, and does what its file promises. (Histology: `test_objects`.)"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from tests.conftest import composed
from tests.verbs._asserts import only_run

from hsl.verbs.train.train import train

DEFECTS = ["defect_1", "defect_2", "defect_3", "defect_4"]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*", "ignore:Checkpoint directory.*"
)


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
