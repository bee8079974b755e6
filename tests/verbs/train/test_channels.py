"""Overlapping channels from the masks on disk to the report: what two channels show at one pixel is never lost."""

import base64
import io
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image
from tests.conftest import composed

from hsl.cli import conf_dir
from hsl.config.targets import named_targets
from hsl.data.files.decoding import Decoding
from hsl.data.formats.channels import read_channels
from hsl.errors import ConfigError
from hsl.files.split_file import read_split
from hsl.reports.models import models_of
from hsl.reports.page.galleries import galleries
from hsl.reports.plots.palette import palette
from hsl.run_folder.member_rows import read_map
from hsl.run_folder.run import gather
from hsl.verbs.ensemble.member_rows import RowSettings, keep_rows
from hsl.verbs.evaluate import evaluate
from hsl.verbs.patches import patches
from hsl.verbs.predict.predict import predict
from hsl.verbs.report import report
from hsl.verbs.train.train import train

CHANNELS = ("leaf", "symptom", "margin")
COLOURS = np.array([[20, 160, 20], [160, 20, 20], [20, 20, 160]])
RUN = (
    "experiment=leaf_channels", "encoder=mit_b0", "encoder.weights=null", "decoder.channels=16",
    "decoder.skip_channels=8", "data.image_size=32",
    "data.batch_size=4", "data.num_workers=0", "data.split.groups=null",
    "data.audit.near_duplicates=off", "augmentation=none", "trainer.accelerator=cpu", "trainer.max_epochs=1",
    "scheduler.warmup_epochs=0", "optimizer.lr=0.01", "logger=none", "callbacks.evaluation.num_examples=2",
)  # fmt: skip

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*", "ignore:Checkpoint directory.*"
)


def draw(root: Path, number: int = 18, size: int = 32) -> dict[str, np.ndarray]:
    """Pictures with a rectangle for each channel, which overlap; id to the true channels ``bool (3, H, W)``."""
    rng, truths = np.random.default_rng(0), {}
    for name in ("images", *(f"masks/{channel}" for channel in CHANNELS)):
        (root / name).mkdir(parents=True)
    (root / "dataset.yaml").write_text(
        yaml.safe_dump({"channels": list(CHANNELS), "values": {0: "absent", 255: "present", 128: "ignore"}})
    )
    for i in range(number):
        truth = np.zeros((3, size, size), bool)
        for plane in truth:
            y, x = rng.integers(0, size // 2, 2)
            plane[y : y + size // 2, x : x + size // 2] = True
        truth[:, size // 2, size // 2] = True  # at least this pixel shows all
        image = 120 + np.tensordot(truth.astype(int), COLOURS - 60, axes=(0, 0)) // 3
        image += rng.integers(-9, 9, image.shape)
        cv2.imwrite(str(root / "images" / f"p{i:02}.png"), image.clip(0, 255).astype(np.uint8))
        for channel, plane in zip(CHANNELS, truth, strict=True):
            mask = np.where(plane, 255, 0).astype(np.uint8)
            mask[0, : i % 3] = 128
            cv2.imwrite(str(root / "masks" / channel / f"p{i:02}.png"), mask)
        truths[f"p{i:02}"] = truth
    return truths


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("channels")


@pytest.fixture(scope="module")
def truths(place: Path) -> dict[str, np.ndarray]:
    return draw(place / "data")


@pytest.fixture(scope="module")
def run(place: Path, truths: dict[str, np.ndarray]) -> Path:
    """Its class maps are kept for all pictures of the validation and test parts."""
    train(config(place))
    (folder,) = (path.parent for path in place.glob("outputs/*/fold0/*/metrics.json"))
    return folder


def config(place: Path, *overrides: str) -> DictConfig:
    return composed([*RUN, f"data.root={place / 'data'}", f"output_root={place / 'outputs'}", *overrides])


def stored_codes(folder: Path, part: str, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / "predictions" / "classes" / f"{part}_plain" / f"{name}.png"))


def valid(name: str, size: int = 32) -> np.ndarray:
    counted = np.ones((size, size), bool)
    counted[0, : int(name[1:]) % 3] = False
    return counted


def test_the_scores_of_a_run_are_those_of_scikit_learn_on_its_class_maps(
    run: Path, truths: dict[str, np.ndarray]
) -> None:
    page = json.loads((run / "metrics.json").read_text())
    assert page["classes"] == ["absent", *CHANNELS]
    assert page["overlapping"]
    assert page["task_classes"] == {channel: ["absent", channel] for channel in CHANNELS}
    names = json.loads((run / "splits.json").read_text())["folds"][0]["val"]
    maps = {name: stored_codes(run, "val", name) for name in names}
    ious = []
    for k, channel in enumerate(CHANNELS):
        truth = np.concatenate([truths[name][k][valid(name)] for name in names])
        predicted = np.concatenate([(maps[name] >> k & 1)[valid(name)] for name in names]) > 0
        for found in (page["parts"]["val"]["plain"]["per_class"][channel],
                      page["parts"]["val"]["plain"]["tasks"][channel]["per_class"][channel]):  # fmt: skip
            assert found["iou"] == pytest.approx(sklearn.metrics.jaccard_score(truth, predicted))
            assert found["dice"] == pytest.approx(sklearn.metrics.f1_score(truth, predicted))
            assert found["recall"] == pytest.approx(sklearn.metrics.recall_score(truth, predicted))
            assert found["precision"] == pytest.approx(
                sklearn.metrics.precision_score(truth, predicted, zero_division=0)
            )
        ious.append(found["iou"])
    plain = page["parts"]["val"]["plain"]
    assert plain["foreground_iou"] == pytest.approx(np.mean(ious)) == pytest.approx(page["monitor"]["value"], abs=1e-6)
    history = pd.read_csv(run / "history.csv").iloc[-1]
    assert history["val/foreground_iou"] == pytest.approx(plain["foreground_iou"], abs=1e-6)
    assert history["val/miou/leaf"] == pytest.approx(plain["tasks"]["leaf"]["miou"], abs=1e-6)
    assert history["val/ece"] == pytest.approx(plain["ece"], abs=1e-6)
    rows = pd.read_csv(run / "per_image.csv")
    assert {f"iou/{channel}" for channel in CHANNELS} <= set(rows)


def test_an_ensemble_keeps_the_probability_of_every_channel(run: Path) -> None:
    keep_rows([run], "val", RowSettings(allowed=named_targets(conf_dir())))
    for name in read_split(run / "splits.json").folds[0].val:
        probabilities = read_map(run, "val", name).astype(int)
        bits = stored_codes(run, "val", name)[None] >> np.arange(len(probabilities))[:, None, None] & 1
        assert (np.abs(probabilities - 127.5) <= 0.5)[(probabilities > 127) != bits].all()


def test_the_examples_show_every_channel_of_a_pixel(run: Path, truths: dict[str, np.ndarray]) -> None:
    index = pd.read_csv(run / "predictions" / "index.csv")
    for row in index.itertuples():
        truth = np.asarray(Image.open(run / "predictions" / f"{row.stem}_truth.png"))
        expected = sum(plane.astype(int) << k for k, plane in enumerate(truths[row.id]))
        expected[~valid(row.id)] = 255
        assert np.array_equal(truth, expected)
        assert truth[16, 16] == 7


def test_tta_and_sliding_windows_score_channels_too(run: Path) -> None:
    parts = json.loads((run / "metrics.json").read_text())["parts"]
    assert set(parts["val"]) == {"plain", "tta"}
    assert set(parts["val"]["tta"]["tasks"]) == set(CHANNELS)
    kept = [f"run={run}", f"output_root={run.parents[2]}"]
    evaluate(composed(kept, "evaluate"))
    again = json.loads((run / "evaluations" / "plain" / "metrics.json").read_text())
    assert again["parts"]["val"]["plain"] == parts["val"]["plain"]
    sliding = ["inference=sliding_window", "inference.window=32", "inference.stride=16", "evaluation_size=source"]
    evaluate(composed([*kept, *sliding], "evaluate"))
    again = json.loads((run / "evaluations" / "sliding_window" / "metrics.json").read_text())
    assert again["parts"]["val"]["sliding_window"]["confusion"] == parts["val"]["plain"]["confusion"]


def test_a_prediction_has_a_mask_for_each_channel_that_can_be_read_again(
    run: Path, place: Path, truths: dict[str, np.ndarray], tmp_path: Path
) -> None:
    out = tmp_path / "predicted"
    predict(composed([f"run={run}", f"input={place / 'data' / 'images'}", f"output={out}"], "predict"))
    names = json.loads((run / "splits.json").read_text())["folds"][0]["val"]
    areas = pd.read_csv(out / "areas.csv", index_col="id")
    for name in names:
        codes = stored_codes(run, "val", name)
        for k, channel in enumerate(CHANNELS):
            mask = np.asarray(Image.open(out / "masks" / channel / f"{name}.png"))
            assert np.array_equal(mask, (codes >> k & 1) * 255)
            assert areas.loc[name, f"pixels/{channel}"] == (mask > 0).sum()
    assert not (out / "tasks").exists()
    again = tmp_path / "again"
    shutil.copytree(out / "masks", again / "masks")
    shutil.copytree(place / "data" / "images", again / "images")
    (again / "dataset.yaml").write_text(yaml.safe_dump({"channels": list(CHANNELS)}))
    catalogue = read_channels(again)
    read = {record.id: Decoding.of(catalogue).mask(record.mask) for record in catalogue.records}
    assert all(np.array_equal(read[name], stored_codes(run, "val", name)) for name in names)
    predict(composed([f"run={run}", f"input={place / 'data' / 'images'}", f"output={out}", "format=rle"], "predict"))
    rows = pd.read_csv(out / "predictions.csv")
    assert set(rows["ClassId"]) <= {1, 2, 3}
    assert rows["ImageId"].str.removesuffix(".png").isin(truths).all()
    predict(composed([f"run={run}", f"input={place / 'data' / 'images'}", f"output={out}", "format=coco"], "predict"))
    drawn = (
        pd.DataFrame(json.loads((out / "coco.json").read_text())["annotations"]).groupby("category_id")["area"].sum()
    )
    counted = areas.filter(like="pixels/").sum().to_numpy()
    assert {k + 1: number for k, number in enumerate(counted) if number} == drawn.to_dict()
    with pytest.raises(ConfigError, match="`format=geotiff` should be for classes that do not overlap"):
        predict(
            composed([f"run={run}", f"input={place / 'data' / 'images'}", f"output={out}", "format=geotiff"], "predict")
        )


def test_a_data_set_of_patches_keeps_every_channel(place: Path, truths: dict[str, np.ndarray], tmp_path: Path) -> None:
    out = tmp_path / "patches"
    given = ["data=channels", f"data.root={place / 'data'}", "data/patches=poisson_disk", "data.split.groups=null"]
    drawn = ["data.patches.size=16", "data.patches.min_distance=12", "data.patches.foreground=[symptom]"]
    patches(composed([*given, *drawn, f"output={out}", "workers=1"], "patches"))
    table = pd.read_csv(out / "labels.csv")
    assert len(table) > 18
    for row in table.itertuples():
        for k, channel in enumerate(CHANNELS):
            mask = np.asarray(Image.open(out / "masks" / channel / f"{row.id}.png"))
            window = slice(row.y, row.y + 16), slice(row.x, row.x + 16)
            counted = valid(row.source)[window]
            assert np.array_equal(mask[counted] == 255, truths[row.source][k][window][counted])
            assert (mask[~counted] == 128).all()
    shares = pd.read_csv(out / "statistics" / "class_shares.csv", index_col="class")
    leaf = sum((truth[0] & valid(name)).sum() for name, truth in truths.items())
    assert shares.loc["leaf", "pixels_before"] == leaf
    exported = read_channels(out)
    assert exported.classes == ("absent", *CHANNELS)
    record = exported.records[0]
    masks = [np.asarray(Image.open(out / "masks" / channel / f"{record.id}.png")) for channel in CHANNELS]
    codes = Decoding.of(exported).mask(record.mask)
    assert codes[codes != 255].tolist() == (np.array(masks) == 255)[:, codes != 255].T.dot([1, 2, 4]).tolist()


def test_patches_of_the_training_keep_every_channel(place: Path, truths: dict[str, np.ndarray]) -> None:
    drawn = ["data.patches.size=32", "data.patches.min_distance=9", "data.patches.foreground=[margin]"]
    data = instantiate(config(place, "data/patches=poisson_disk", *drawn).data)
    data.prepare()
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert data.prepared.heads.overlapping
    for i, patch in enumerate(batch["id"]):
        name = patch.split("@")[0]
        for k, channel in enumerate(CHANNELS):
            mask = batch["masks"][channel][i].numpy()
            assert np.array_equal(mask == 1, truths[name][k] & valid(name))
            assert np.array_equal(mask == 255, ~valid(name))
        assert batch["masks"]["segmentation"][i][16, 16] == 7


def test_augmentation_moves_all_channels_together(place: Path, truths: dict[str, np.ndarray]) -> None:
    turned = "augmentation.rotation={degrees: 30, fill: 0, probability: 1.0}"
    data = instantiate(config(place, "augmentation=default", turned).data)
    data.prepare()
    seen = {int(code) for planes in truths.values() for code in np.unique(planes.T.dot([1, 2, 4]))}
    for batch in data.train_dataloader():
        codes = data.on_after_batch_transfer(batch, 0)["masks"]["segmentation"]
        assert set(codes.unique().tolist()) <= seen | {255}
        assert (codes == 7).flatten(1).any(1).all()  # the place that all show is still one


def test_a_report_ranks_by_the_mean_iou_of_the_channels_and_shows_each(run: Path, tmp_path: Path) -> None:
    report(
        composed(
            [f"runs={run.parents[1]}", f"output={tmp_path / 'report'}", "resamples=100", "formats=[svg]"], "report"
        )
    )
    ranking = pd.read_csv(tmp_path / "report" / "tables" / "ranking.csv")
    plain = json.loads((run / "metrics.json").read_text())["parts"]["val"]["plain"]
    assert ranking["foreground_iou_mean"].iloc[0] == pytest.approx(plain["foreground_iou"])
    per_class = pd.read_csv(tmp_path / "report" / "tables" / "per_class.csv")
    assert list(per_class["class"]) == ["absent", *CHANNELS]
    tasks = pd.read_csv(tmp_path / "report" / "tables" / "tasks.csv")
    assert list(tasks["role"]) == ["pooled", "primary", "primary", "primary"]
    assert list(tasks["task"]) == ["global", *CHANNELS]
    assert tasks["classes_ungrouped"].isna().all()
    page = (tmp_path / "report" / "index.html").read_text()
    assert "ranked by mIoU of the foreground" in page
    assert "<dt>Overlapping channels</dt>" in page
    models = models_of(gather([str(run.parents[1])]), ["fold", "seed"], "encoder.name")
    shown = [one for kind in galleries(models, ["absent", *CHANNELS], 1).values() for one in kind]
    assert shown
    for one in shown:
        assert one.classes == ["absent", *CHANNELS]
        content = base64.b64decode(one.views[1].uri.split(",")[1])
        truth = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        middle = truth[truth.shape[0] // 2 + 2, truth.shape[1] // 2 + 2]  # of the pixel that shows all
        assert middle.tolist() == palette()[[1, 2, 3]].mean(0).round().tolist()


def test_other_heads_and_objects_are_refused_with_what_to_set(place: Path, truths: dict[str, np.ndarray]) -> None:
    assert truths
    with pytest.raises(ConfigError, match="Set `task=channels loss=channels metrics=none`"):
        train(config(place, "task=segmentation", "loss=dice_focal"))
    with pytest.raises(ConfigError, match="Set `metrics=none`"):
        train(config(place, "metrics=objects"))
    with pytest.raises(ConfigError, match=r"`data.tasks` should be null"):
        train(config(place, "data.tasks=demo"))
