"""A whole run: what it leaves, and that an interrupted one ends like an undisturbed one."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tests.verbs._asserts import QUICK, assert_same_training, interrupt_after_epoch, only_run, weights

from hsl.data.files.run_lengths import encode_classes
from hsl.errors import ConfigError, DataError
from hsl.files.output_folder import MARKER
from hsl.files.row_file import read_rows
from hsl.losses.cross_entropy import Focal
from hsl.metrics.pixels.formulas import dice_empty_one
from hsl.tasks.segmentation import SegmentationTask
from hsl.verbs.evaluate import evaluate
from hsl.verbs.predict.predict import predict
from hsl.verbs.train.train import train

Make = Callable[..., DictConfig]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*", "ignore:Checkpoint directory.*"
)


LIGHT = (*QUICK, "metrics=none", "encoder=mobilenetv3_small", "encoder.weights=null")


@pytest.fixture(scope="module")
def uninterrupted(module_tiny: Make) -> Path:
    """The run that the interrupted ones have to equal."""
    cfg = module_tiny(*LIGHT)
    train(cfg)
    return only_run(Path(cfg.output_root).parent)


def test_a_run_leaves_everything(tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn: None) -> None:
    value = train(tiny())
    folder = only_run(tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["monitor"]["value"] == value
    assert f"(epoch {metrics['monitor']['epoch'] + 1})  {folder}" in capsys.readouterr().out
    assert metrics["parts"]["val"]["plain"]["miou"] == pytest.approx(value, abs=1e-6)
    history = pd.read_csv(folder / "history.csv")
    assert history["epoch"].tolist() == [0, 1, 2]
    assert history["val/miou"].max() == pytest.approx(value, abs=1e-6)
    assert {"train/loss", "train/loss/dice", "train/loss/focal", "lr"} <= set(history)

    results = json.loads((folder / "results.json").read_text())
    stored = np.load(folder / "pixel_counts.npz")
    rows = pd.read_csv(folder / "per_image.csv")
    assert len(rows) == len(stored["ids"])
    for part in ("val", "test"):
        for inference in ("plain", "tta"):
            chosen = (stored["part"] == part) & (stored["inference"] == inference)
            page = metrics["parts"][part][inference]
            assert stored["matrices"][chosen].sum((0, 1)).tolist() == page["confusion"]
            assert page["num_images"] == chosen.sum()
            assert 0 <= page["boundary_f1"] <= 1
            errors = [page[name] for name in page if name.startswith("error_")]
            assert sum(errors) == pytest.approx(1 - page["pixel_accuracy"])
            both = dice_empty_one(stored["matrices"][chosen].sum(1))
            for told in (page, results[part][inference]):  # never one without the other
                assert (told["dice_empty_one"], told["dice_empty_one_predicting_nothing"]) == both
    objects = list(read_rows(folder / "objects.jsonl"))
    assert {(row["part"], row["id"]) for row in objects} == {
        (f"{part}/{inference}", name) for part, inference, name in rows[["part", "inference", "id"]].values
    }
    assert not any(row["errors"] for row in objects)
    assert metrics["objects"] == {"num_pictures": len(rows), "failed": []}
    plain = rows[rows["inference"] == "plain"]
    for row in plain.itertuples():
        class_map = np.array(Image.open(folder / str(row.prediction)))
        truth_pixels = row.valid_pixels
        assert class_map.size >= truth_pixels
    assert rows.loc[rows["inference"] == "tta", "prediction"].isna().all()
    split = json.loads((folder / "splits.json").read_text())
    assert set(rows.loc[rows["part"] == "test", "id"]) == set(split["test"])
    assert set(rows.loc[rows["part"] == "val", "id"]) == set(split["folds"][0]["val"])

    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["status"] == "finished"
    assert provenance["split_sha256"] == split["sha256"]
    assert provenance["weights_used"]["source"] == "random"
    assert {"encoder": "mit_b0", "data": "demo", "data/split": "kfold"}.items() <= provenance["choices"].items()
    assert not any(group.startswith("hydra/") for group in provenance["choices"])
    assert weights(folder, "best")["provenance"]["config"]["encoder"]["name"] == "mit_b0"
    for name in ("confusion_matrix", "iou_per_class", "class_distribution", "training_curves"):
        Image.open(folder / f"{name}.png").verify()
    views = sorted(path.name.split("_")[-1] for path in (folder / "predictions").glob("best_01_*.png"))
    assert views == ["input.png", "overlay.png", "prediction.png", "truth.png"]
    assert not list(folder.rglob(".*.ckpt*"))  # no temporary file is left

    check_result_page(folder, metrics, history)
    check_evaluate(folder, tiny)
    check_predict(folder, tiny, tmp_path)
    check_predict_leaves_alone(folder, tiny, tmp_path, capsys)


def check_result_page(folder: Path, metrics: dict[str, Any], history: pd.DataFrame) -> None:
    """The one file for an interface repeats the numbers of the others."""
    page = json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)
    assert {"val": page["val"], "test": page["test"]} == metrics["parts"]
    assert page["monitor"] == metrics["monitor"]
    pd.testing.assert_frame_equal(pd.DataFrame(page["history"]), history)
    assert page["config"] == OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))


def check_evaluate(folder: Path, tiny: Make) -> None:
    """Scoring the run again gives its own numbers; with tta those of its tta scores."""
    metrics = json.loads((folder / "metrics.json").read_text())
    evaluate(tiny(f"run={folder}", verb="evaluate"))
    again = json.loads((folder / "evaluations" / "plain" / "metrics.json").read_text())
    assert again["parts"]["test"]["plain"] == metrics["parts"]["test"]["plain"]
    evaluate(tiny(f"run={folder}", "inference=tta", verb="evaluate"))
    again = json.loads((folder / "evaluations" / "tta" / "metrics.json").read_text())
    assert again["parts"]["val"]["tta"] == metrics["parts"]["val"]["tta"]


TOOLS = {
    "labelme": ["labelme"], "coco": ["coco.json"], "cvat": ["annotations.xml"], "yolo": ["data.yaml", "labels"],
    "label_studio": ["label_studio.json", "label_studio.xml"], "geotiff": ["masks"],
}  # fmt: skip


def check_predict(folder: Path, tiny: Make, tmp_path: Path) -> None:
    """Any size, grey and colour; a broken picture is named and the others are done."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (37, 91, 3), np.uint8)).save(pictures / "odd.png")
    Image.fromarray(rng.integers(0, 255, (130, 64), np.uint8)).save(pictures / "grey.jpg")
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    out = tmp_path / "predicted"
    with pytest.raises(ValueError, match=r"1 of 3 pictures could not be done.*broken\.png"):
        predict(tiny(f"run={folder}", f"input={pictures}", f"output={out}", verb="predict"))
    assert np.asarray(Image.open(out / "masks" / "odd.png")).shape == (37, 91)
    Image.open(out / "overlays" / "grey.png").verify()
    table = pd.read_csv(out / "areas.csv").set_index("id")
    assert sorted(table.index) == ["grey", "odd"]
    np.testing.assert_allclose(table.filter(like="share/").sum(axis=1), 1.0)
    assert table.filter(like="pixels/").loc["odd"].sum() == 37 * 91
    (pictures / "broken.png").unlink()
    predict(tiny(f"run={folder}", f"input={pictures}", f"output={tmp_path / 'rle'}", "format=rle", verb="predict"))
    assert sorted(path.name for path in (tmp_path / "rle").iterdir()) == [MARKER, "areas.csv", "predictions.csv"]
    runs = pd.read_csv(tmp_path / "rle" / "predictions.csv")
    for path in (pictures / "odd.png", pictures / "grey.jpg"):
        mask = np.asarray(Image.open(out / "masks" / f"{path.stem}.png"))
        rows = runs[runs.ImageId == path.name]
        assert dict(zip(rows.ClassId, rows.EncodedPixels, strict=True)) == encode_classes(mask)
    for tool, files in TOOLS.items():
        where = tmp_path / tool
        predict(tiny(f"run={folder}", f"input={pictures}", f"output={where}", f"format={tool}", verb="predict"))
        assert sorted(each.name for each in where.iterdir()) == sorted([MARKER, "areas.csv", *files])
    annotations = json.loads((tmp_path / "coco" / "coco.json").read_text())["annotations"]
    drawn = pd.DataFrame(annotations).groupby("category_id")["area"].sum()
    counted = table.filter(like="pixels/").sum().to_numpy()
    assert {label: counted[label] for label in range(1, len(counted)) if counted[label]} == drawn.to_dict()
    with pytest.raises(ConfigError, match=r"`format` should be one of png, rle, .*, geotiff. Found `format = tif`"):
        predict(tiny(f"run={folder}", f"input={pictures}", f"output={out}", "format=tif", verb="predict"))


def check_predict_leaves_alone(folder: Path, tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is left out is counted; nothing that others wrote is replaced; masks of pictures that are gone go."""
    pictures, out = tmp_path / "shots", tmp_path / "out"
    (pictures / "more").mkdir(parents=True)
    names = ("a$b.png", "c d.PNG", "e'<f>&.png", "more/g.png", "h.jxl", "ü" * 120 + ".tif")
    for name in names:
        Image.new("RGB", (40, 40)).save(pictures / name, "PNG" if name == "h.jxl" else None)
    (pictures / "notes.txt").touch()

    def call(where: Path, output: Path) -> None:
        predict(tiny(f"run={folder}", f"input='{where}'", f"output={output}", verb="predict"))

    with pytest.raises(DataError, match=r"3 not read: 1 in a sub-folder, 1 jxl, 1 that is no picture. Point to"):
        call(pictures, out)
    left = {"a$b", "c d", "e'<f>&", "ü" * 120}
    assert {path.stem for path in (out / "masks").iterdir()} == left == set(pd.read_csv(out / "areas.csv")["id"])
    for name in ("more/g.png", "h.jxl", "a$b.png"):
        (pictures / name).unlink()
    call(pictures, out)
    assert {path.stem for path in (out / "overlays").iterdir()} == left - {"a$b"}
    assert "1 not read: 1 that is no picture" in capsys.readouterr().out
    before = (pictures / "c d.PNG").read_bytes()
    for output, said in ((pictures, "neither be nor hold"), (folder, "neither be"), (out / "masks", "`hsl predict`")):
        with pytest.raises(ConfigError, match=said):
            call(pictures, output)
    Image.new("L", (40, 40), 1).save(out / "masks" / "c d.png")  # corrected by hand
    with pytest.raises(ConfigError, match=r"changed since: `masks/c d\.png`"):
        call(pictures, out)
    assert (pictures / "c d.PNG").read_bytes() == before
    call(pictures / "c d.PNG", tmp_path / "one")
    assert [path.name for path in (tmp_path / "one" / "masks").iterdir()] == ["c d.png"]
    assert "1 picture done" in capsys.readouterr().out


def warn_at_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """What SIGTERM does: Lightning notes it, and the batch under way is finished."""
    original = SegmentationTask.training_step

    def noted(self: SegmentationTask, batch: Any, batch_idx: int) -> Any:
        if self.global_step == step:
            self.trainer._signal_connector.received_sigterm = True
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationTask, "training_step", noted)


def signal_in_validation(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """SIGTERM in the validation of an epoch, in the first epoch in its second batch."""
    original = SegmentationTask._predict

    def interrupted(self: SegmentationTask, batch: Any, predictor: Any = None) -> Any:
        seen.append(self.trainer.state.stage)
        if self.trainer.validating and self.trainer.current_epoch == epoch and seen[-2] == seen[-1]:
            torch.rand(1)  # as a predictor that draws would
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("the validation went on")
        return original(self, batch, predictor)

    seen: list[Any] = [None]
    monkeypatch.setattr(SegmentationTask, "_predict", interrupted)


@pytest.mark.parametrize(
    ("interrupt", "at"),
    [
        (signal_in_validation, 0),
        pytest.param(signal_in_validation, 1, marks=pytest.mark.slow),
        pytest.param(signal_in_validation, 2, marks=pytest.mark.slow),
        pytest.param(interrupt_after_epoch, 0, marks=pytest.mark.slow),
        pytest.param(interrupt_after_epoch, 1, marks=pytest.mark.slow),
        pytest.param(warn_at_step, 1, marks=pytest.mark.slow),
        (warn_at_step, 5),
    ],
)
def test_resumed_equals_uninterrupted(
    tiny: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uninterrupted: Path,
    interrupt: Callable[..., None],
    at: int,
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, at)
        with pytest.raises(SystemExit):
            train(tiny(*LIGHT))
    folder = only_run(tmp_path)
    assert json.loads((folder / "provenance.json").read_text())["status"] == "interrupted"
    assert not (folder / "metrics.json").exists()
    train(tiny(*LIGHT, "resume=last"))
    assert only_run(tmp_path) == folder
    assert_same_training(folder, uninterrupted)


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Focal, "forward", lambda self, logits, *rest: logits.sum() * float("nan"))
    with pytest.raises(ArithmeticError, match=r"focal.*panel_"):
        train(tiny())
    provenance = json.loads((only_run(tmp_path) / "provenance.json").read_text())
    assert provenance["status"] == "failed"
    assert "focal" in provenance["error"]


def test_a_monitor_that_is_never_logged_is_an_error(tiny: Make) -> None:
    with pytest.raises(ConfigError, match=r"`monitor` should be .*val/miou.*`monitor = val/dream`"):
        train(tiny("monitor=val/dream"))


def test_other_data_than_the_run_s_are_refused(tiny: Make, tmp_path: Path, uninterrupted: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(uninterrupted, folder)
    cfg = tiny(f"run={folder}", verb="evaluate")
    page = (folder / "config.yaml").read_text().replace("seed: 0\n    views", "seed: 1\n    views")
    (folder / "config.yaml").write_text(page)
    with pytest.raises(ConfigError, match="split"):
        evaluate(cfg)


@pytest.mark.parametrize("key", ["resume={}/checkpoints/last.ckpt", "encoder.weights={}"])
def test_nothing_is_taken_over_from_a_run_that_learned_from_held_out_pictures(
    tiny: Make, tmp_path: Path, uninterrupted: Path, key: str
) -> None:
    with pytest.raises(ConfigError, match=r"learned from"):
        train(tiny(*LIGHT, "fold=1", key.format(uninterrupted)))
    assert not list(tmp_path.rglob("provenance.json"))


@pytest.mark.slow
def test_a_resumed_run_remembers_its_first_weights(tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "first.pth"
    cfg = tiny(*LIGHT)
    torch.save(instantiate(cfg.encoder).body.state_dict(), weights)
    with monkeypatch.context() as patch:
        interrupt_after_epoch(patch, 0)
        with pytest.raises(SystemExit):
            train(tiny(*LIGHT, f"encoder.weights={weights}"))
    weights.unlink()  # nobody needs it any more
    train(tiny(*LIGHT, f"encoder.weights={weights}", "resume=last"))
    folder = only_run(tmp_path)
    used = json.loads((folder / "provenance.json").read_text())["weights_used"]
    assert str(weights) in json.dumps(used)
    evaluate(tiny(f"run={folder}", verb="evaluate"))


def test_a_run_that_nothing_scores_is_refused(tiny: Make) -> None:
    with pytest.raises(ConfigError, match=r"callbacks\.tta_evaluation"):
        train(tiny("callbacks.evaluation=null", "callbacks.tta_evaluation=null"))
