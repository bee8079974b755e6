"""Runs with an image head: alone with several classes per picture, and beside a dense head."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig
from PIL import Image
from sklearn.metrics import f1_score
from tests.verbs._asserts import QUICK, only_run

from hsl.errors import ConfigError
from hsl.files.output_folder import MARKER
from hsl.verbs.evaluate import evaluate
from hsl.verbs.predict.predict import predict
from hsl.verbs.scoring.image_results import tune_thresholds
from hsl.verbs.train.train import train

Make = Callable[..., DictConfig]
LIGHT = ("encoder=mobilenetv3_small", "encoder.weights=null", "trainer.max_epochs=2")
KINDS = ["crack", "scratch", "paint_loss", "stain", "puncture"]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*",
    "ignore:.*does not have many workers.*",
    "ignore:Checkpoint directory.*",
    "ignore:.*have no pixel in the training part.*",
)


@pytest.mark.slow
def test_several_classes_per_picture_beside_a_dense_head(tiny: Make, tmp_path: Path) -> None:
    both = ("task=dual_head", f"data.image_labels=[{','.join(KINDS)}]", "trainer.max_epochs=1", "metrics=none",
            "monitor=val/macro_f1", *QUICK)  # fmt: skip
    with pytest.raises(ConfigError, match=r"since `data\.image_labels` lists columns.*`loss=dual_head_multilabel`"):
        train(tiny(*both, "loss=dual_head", f"run_dir={tmp_path / 'refused'}"))
    train(tiny(*both, "loss=dual_head_multilabel"))
    folder = only_run(tmp_path)
    found = json.loads((folder / "metrics.json").read_text())["parts"]["val"]["plain"]
    assert found["miou"] >= 0
    assert list(found["image_heads"]["classification"]["thresholds"]) == KINDS
    history = pd.read_csv(folder / "history.csv").iloc[0]
    parts = 0.4 * history["train/loss/segmentation"] + 0.6 * history["train/loss/classification"]
    assert history["train/loss"] == pytest.approx(parts, rel=1e-5)


def test_a_dense_and_an_image_head_on_one_encoder(tiny: Make, tmp_path: Path) -> None:
    cfg = tiny(*LIGHT, "task=dual_head", "loss=dual_head", "data.image_labels=label", "monitor=val/accuracy",
               "callbacks.evaluation.num_examples=0", "metrics=none")  # fmt: skip
    value = train(cfg)
    folder = only_run(tmp_path)
    page = json.loads((folder / "metrics.json").read_text())
    assert page["parts"]["val"]["plain"]["image_heads"]["classification"]["accuracy"] == pytest.approx(value)
    for part, ways in page["parts"].items():
        for way, found in ways.items():
            assert found["miou"] >= 0
            head = found["image_heads"]["classification"]
            assert head["kind"] == "single"
            assert np.sum(head["confusion"]) == head["num_images"] == found["num_images"], (part, way)
    history = pd.read_csv(folder / "history.csv")
    assert history["val/accuracy"].max() == pytest.approx(value)
    assert {"train/loss/segmentation", "train/loss/classification", "val/miou", "val/macro_f1"} <= set(history)
    table = pd.read_csv(folder / "image_predictions.csv")
    plain = table[(table["part"] == "val") & (table["inference"] == "plain")]
    assert plain["correct"].mean() == pytest.approx(value)
    assert (plain["correct"] == (plain["target"] == plain["prediction"])).all()

    evaluate(tiny(f"run={folder}", verb="evaluate"))
    again = json.loads((folder / "evaluations" / "plain" / "metrics.json").read_text())
    assert again["parts"]["val"]["plain"] == page["parts"]["val"]["plain"]
    out = predicted(folder, tiny, tmp_path)
    assert (out / "masks" / "odd.png").is_file()
    assert pd.read_csv(out / "labels.csv")["prediction"].iloc[0] in page["image_classes"]["classification"]


def test_several_classes_per_picture_without_a_dense_head(
    tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = tiny(*LIGHT, "task=classifier", "loss=focal_multilabel", f"data.image_labels=[{','.join(KINDS)}]",
               "monitor=val/accuracy", "callbacks.evaluation.num_examples=0")  # fmt: skip
    train(cfg)
    folder = only_run(tmp_path)
    page = json.loads((folder / "metrics.json").read_text())
    assert page["classes"] == []
    head = page["parts"]["val"]["plain"]["image_heads"]["classification"]
    assert head["kind"] == "multi"
    assert list(head["thresholds"]) == KINDS
    assert page["parts"]["test"]["plain"]["image_heads"]["classification"]["thresholds"] == head["thresholds"]
    assert not (folder / "per_image.csv").exists()
    assert not (folder / "objects.jsonl").exists()
    table = pd.read_csv(folder / "image_predictions.csv", keep_default_na=False)
    for row in table.to_dict("records"):
        limits = page["parts"]["val"][row["inference"]]["image_heads"]["classification"]["thresholds"]
        shown = [kind for kind in KINDS if row[f"probability/{kind}"] >= limits[kind]]
        assert row["prediction"] == "|".join(shown)
    out = predicted(folder, tiny, tmp_path)
    assert sorted(path.name for path in out.iterdir()) == [MARKER, "labels.csv"]
    check_thresholds(folder, page, tiny, tmp_path, capsys)


def check_thresholds(folder: Path, page: Any, tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the inference that was chosen; where it has none, those of the first, and that is said."""
    for inference, limit in (("plain", 0.0), ("tta", 1.1)):  # all classes, or none
        page["parts"]["val"][inference]["image_heads"]["classification"]["thresholds"] = dict.fromkeys(KINDS, limit)
    (folder / "metrics.json").write_text(json.dumps(page))

    def shown(*overrides: str) -> tuple[str, bool]:
        capsys.readouterr()
        out = tmp_path / "further"
        predict(tiny(f"run={folder}", f"input={tmp_path / 'pictures'}", f"output={out}", *overrides, verb="predict"))
        said = "! The run has no thresholds" in capsys.readouterr().out
        return pd.read_csv(out / "labels.csv", keep_default_na=False)["prediction"].iloc[0], said

    every = "|".join(KINDS)
    assert shown() == (every, False)
    assert shown("inference=tta") == ("", False)
    assert shown("inference=tta", "inference.transforms=[dihedral]") == (every, True)
    assert shown("evaluation_size=source") == (every, True)


def predicted(folder: Path, tiny: Make, tmp_path: Path) -> Path:
    pictures, out = tmp_path / "pictures", tmp_path / "predicted"
    pictures.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (37, 91, 3), np.uint8)).save(pictures / "odd.png")
    predict(tiny(f"run={folder}", f"input={pictures}", f"output={out}", verb="predict"))
    return out


def test_a_threshold_has_the_best_f1_of_all() -> None:
    rng = np.random.default_rng(0)
    probabilities, targets = rng.random((40, 3)), (rng.random((40, 3)) > 0.7).astype(float)
    targets[:5, 0] = np.nan
    for k, threshold in enumerate(tune_thresholds(probabilities, targets)):
        known = ~np.isnan(targets[:, k])
        shown = targets[known, k]
        scores = [f1_score(shown, probabilities[known, k] >= limit) for limit in probabilities[known, k]]
        found = f1_score(targets[known, k], probabilities[known, k] >= threshold)
        assert found == pytest.approx(max(scores))
    assert tune_thresholds(np.full((3, 2), 0.2), np.array([[0.0, 1.0]] * 3)) == [0.5, 0.5]


def test_labels_and_task_have_to_fit(tiny: Make) -> None:
    with pytest.raises(ConfigError, match=r"data\.image_labels"):
        train(tiny("task=classifier", "loss=image_ce"))
    with pytest.raises(ConfigError, match=r"columns of the data set.*Found \['weather'\]"):
        train(tiny("task=classifier", "loss=image_ce", "data.image_labels=weather"))
