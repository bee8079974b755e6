"""Pictures of five channels from files to predictions: what is to be found shows in one that nobody sees."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tests.conftest import composed

from hsl.data.datamodule import DataModule
from hsl.errors import ConfigError, DataError
from hsl.verbs.evaluate import evaluate
from hsl.verbs.export.export import export
from hsl.verbs.predict.predict import predict
from hsl.verbs.predict.served import ServedRun
from hsl.verbs.train.train import train

BANDS = {"red": None, "green": None, "blue": None, "nir": [0, 4000], "depth": [0, 4000]}
RUN = (
    "data=folder", "encoder=mit_b0", "encoder.weights=null", "decoder=unet_small",
    "data.image_size=32", "data.batch_size=6", "data.num_workers=0", "data.split.groups=null",
    "data.audit.near_duplicates=off", "augmentation=default", "trainer.accelerator=cpu", "trainer.max_epochs=12",
    "optimizer.lr=0.003", "logger=none", "callbacks.evaluation.num_examples=1",
)  # fmt: skip

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*", "ignore:Checkpoint dir.*"
    ),
    pytest.mark.slow,
]


def draw(root: Path, number: int = 24, size: int = 32) -> None:
    """Noise, and a rectangle that is brighter in the fourth channel alone; 16 bits."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for i in range(number):
        mask = np.zeros((size, size), np.uint8)
        y, x = rng.integers(0, size // 2, 2)
        mask[y : y + size // 2, x : x + size // 2] = 1
        picture = rng.integers(500, 1500, (size, size, 5)).astype(np.uint16)
        picture[..., 3] += mask * np.uint16(2000)
        tifffile.imwrite(root / "images" / f"p{i:02}.tif", picture, photometric="minisblack", planarconfig="contig")
        cv2.imwrite(str(root / "masks" / f"p{i:02}.png"), mask)
    page = {"classes": ["ground", "leaf"], "bands": BANDS, "value_range": [0, 3000]}
    (root / "dataset.yaml").write_text(yaml.safe_dump(page, sort_keys=False))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bands")
    draw(root / "data")
    return root


def config(place: Path, *overrides: str, verb: str = "train") -> DictConfig:
    return composed([*RUN, f"data.root={place / 'data'}", f"output_root={place / 'outputs'}", *overrides], verb)


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    train(config(place))
    (folder,) = (path.parent for path in place.glob("outputs/*/fold0/*/metrics.json"))
    return folder


def test_a_run_learns_from_a_channel_that_is_not_shown(
    run: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = json.loads((run / "metrics.json").read_text())["parts"]
    assert scores["val"]["plain"]["miou"] > 0.8
    facts = json.loads((run / "provenance.json").read_text())
    assert facts["weights_used"]["channels"] == 5
    training = json.loads((run / "splits.json").read_text())["folds"][0]["train"]
    pixels = np.concatenate([tifffile.imread(place / "data" / "images" / f"{name}.tif").reshape(-1, 5)
                             for name in training])  # fmt: skip
    np.testing.assert_allclose(facts["bands"]["mean"], (pixels / [3000, 3000, 3000, 4000, 4000]).mean(0), atol=2e-3)
    out = tmp_path / "predicted"
    call = [f"run={run}", f"input={place / 'data' / 'images'}", f"output={out}"]
    predict(composed(call, "predict"))
    masks = {path.stem: np.asarray(Image.open(path)) for path in (out / "masks").iterdir()}
    truths = {name: np.asarray(Image.open(place / "data" / "masks" / f"{name}.png")) for name in masks}
    assert np.mean([(masks[name] == truths[name]).mean() for name in masks]) > 0.9
    assert np.asarray(Image.open(out / "overlays" / "p00.png")).shape[2] == 3
    evaluate(composed([f"run={run}", f"output_root={place / 'outputs'}"], "evaluate"))
    again = json.loads((run / "evaluations" / "plain" / "metrics.json").read_text())
    assert again["parts"]["val"]["plain"] == scores["val"]["plain"]
    sliding = ["inference=sliding_window", "inference.window=32", "inference.stride=16", "evaluation_size=source"]
    predict(composed([*call, *sliding], "predict"))
    assert len(pd.read_csv(out / "areas.csv")) == 24


def test_other_channels_and_what_takes_three_are_refused(run: Path, place: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "pictures" / "a.png")
    call = [f"run={run}", f"input={tmp_path / 'pictures'}", f"output={tmp_path / 'out'}"]
    with pytest.raises(DataError, match=r"a.png` should have the 5 channels red.* Found 3. .* model of other channels"):
        predict(composed(call, "predict"))
    with pytest.raises(ConfigError, match=r"exported model should take red, green and blue. Found one of 5 channels"):
        export(composed([f"run={run}", f"output={tmp_path / 'exported'}", "format=torch_export"], "export"))
    served = composed([f"model={run}"], "serve")
    OmegaConf.set_struct(served, False)
    with pytest.raises(ConfigError, match="served model should take red"):
        ServedRun.open(served)


def test_a_run_keeps_its_statistics_and_refuses_other_bands(run: Path, place: Path) -> None:
    data: DataModule = instantiate(config(place, "data.cache=disk", f"cache_dir={place / 'cache'}").data)
    data.prepare()
    batch = next(iter(data.part_dataloader("val")))
    assert batch["image"].shape[1] == 5
    first = data.on_after_batch_transfer(dict(batch), 0)["image"]
    mean, std = (np.array(getattr(data.bands, name)).reshape(5, 1, 1) for name in ("mean", "std"))
    np.testing.assert_allclose(first, (batch["image"].numpy() / 255 - mean) / std, atol=1e-5)
    path = place / "data" / "dataset.yaml"
    before = path.read_text()
    path.write_text(before.replace("depth", "height"))
    try:
        with pytest.raises(ConfigError, match=r"`bands` should be those of the run, .*'depth'.* Found .*'height'"):
            evaluate(composed([f"run={run}", f"output_root={place / 'outputs'}"], "evaluate"))
    finally:
        path.write_text(before)


def test_patches_and_the_audit_take_all_channels(place: Path) -> None:
    cut = ["data/patches=poisson_disk", "data.patches.size=16", "data.patches.min_distance=9", "data.image_size=32"]
    data: DataModule = instantiate(config(place, *cut, "data.patches.foreground=[leaf]").data)
    data.prepare()
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape[1:] == (5, 32, 32)
    image, mask = data.original("p00")
    stored = tifffile.imread(place / "data" / "images" / "p00.tif")
    np.testing.assert_allclose(image, np.rint(stored[..., :3] * (255 / 3000)), atol=1)
    assert mask is not None
    assert data.prepared.audit is not None
