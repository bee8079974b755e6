"""A preset trains, on data the test writes, and does what its file promises. (Histology: `test_objects`.)"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from tests.conftest import composed
from tests.run.test_train import only_run

from hsl.run import train

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
