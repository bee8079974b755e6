"""Whole runs of several tasks, and of image heads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig
from PIL import Image
from sklearn.metrics import f1_score
from tests.verbs._asserts import QUICK, SMALL, assert_maps_agree, assert_same_training, only_run, weights

from hsl.callbacks.last_checkpoint import LastCheckpoint
from hsl.errors import ConfigError
from hsl.files.output_folder import MARKER
from hsl.verbs.evaluate import evaluate
from hsl.verbs.predict.predict import predict
from hsl.verbs.scoring.image_results import tune_thresholds
from hsl.verbs.train.train import train

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*",
    "ignore:.*does not have many workers.*",
    "ignore:Checkpoint directory.*",
    "ignore:.*have no pixel in the training part.*",
)

Make = Callable[..., DictConfig]
TASKS = ("damage", "shape", "kind")
MULTITASK = (
    *SMALL,
    "data.tasks=demo",
    "task=multitask",
    "loss=multitask",
    "loss.implications=[[damage,kind]]",
    "decoder=hierarchical",
    "decoder.width=16",
    "weighting=pcgrad",
    "callbacks=[default,weighting_log]",
    "callbacks.weighting_log.every_n_steps=1",
)


def test_several_tasks_from_training_to_prediction(
    tiny: Make, module_tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_cfg = module_tiny(*MULTITASK)
    value = train(whole_cfg)
    whole = only_run(Path(whole_cfg.output_root).parent)
    check_what_it_leaves(whole, value)
    check_scored_again(whole, tiny)
    assert_maps_agree(whole)  # in the global space
    check_prediction(whole, tiny, tmp_path)

    save = LastCheckpoint.on_train_epoch_end

    def save_then_die(self: LastCheckpoint, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        save(self, trainer, module)
        if trainer.current_epoch == 0:
            raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "on_train_epoch_end", save_then_die)
        with pytest.raises(SystemExit):
            train(tiny(*MULTITASK))
    train(tiny(*MULTITASK, "resume=last"))
    resumed = only_run(tmp_path)
    assert_same_training(resumed, whole)
    assert "weighting._extra_state" in weights(resumed)["state_dict"]  # compared above: the order that PCGrad draws
    lines = [(folder / "weighting.jsonl").read_text() for folder in (resumed, whole)]
    assert lines[0] == lines[1]


def check_what_it_leaves(folder: Path, value: float | None) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    plain = metrics["parts"]["val"]["plain"]
    assert plain["miou"] == pytest.approx(value, abs=1e-6)
    assert set(plain["tasks"]) == set(metrics["task_classes"]) == set(TASKS)
    assert metrics["task_classes"]["shape"] == ["clean", "line", "area", "hole"]
    history = pd.read_csv(folder / "history.csv")
    best = history.loc[history["val/miou"].idxmax()]
    for task in TASKS:
        assert best[f"val/miou/{task}"] == pytest.approx(plain["tasks"][task]["miou"], abs=1e-6)
        stored = np.load(folder / f"pixel_counts_{task}.npz")
        chosen = (stored["part"] == "val") & (stored["inference"] == "plain")
        assert stored["matrices"][chosen].sum((0, 1)).tolist() == plain["tasks"][task]["confusion"]
    mious = [best[f"val/miou/{task}"] for task in TASKS]
    assert best["val/h_mean"] == pytest.approx(len(mious) / sum(1 / miou for miou in mious), rel=1e-4)
    steps = [json.loads(line) for line in (folder / "weighting.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    assert {f"weight/{name}" for name in (*TASKS, "consistency")} <= set(steps[0])


def check_scored_again(folder: Path, tiny: Make) -> None:
    """Also by a sliding window over pictures at their own size, which for one window is the whole picture."""
    stored = json.loads((folder / "metrics.json").read_text())["parts"]["test"]["plain"]
    evaluate(tiny(f"run={folder}", verb="evaluate"))
    again = json.loads((folder / "evaluations" / "plain" / "metrics.json").read_text())
    assert again["parts"]["test"]["plain"] == stored
    with pytest.raises(ConfigError, match="`evaluation_size` should be source where a window slides"):
        evaluate(tiny(f"run={folder}", "inference=sliding_window", verb="evaluate"))
    sliding = ("inference=sliding_window", "inference.window=64", "inference.stride=48", "evaluation_size=source")
    evaluate(tiny(f"run={folder}", *sliding, verb="evaluate"))
    again = json.loads((folder / "evaluations" / "sliding_window" / "metrics.json").read_text())
    scores = again["parts"]["test"]["sliding_window"]
    assert scores["num_images"] == stored["num_images"]
    assert set(scores["tasks"]) == set(TASKS)


def check_prediction(folder: Path, tiny: Make, tmp_path: Path) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "predicted"
    pictures.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (37, 91, 3), np.uint8)).save(pictures / "odd.png")
    predict(tiny(f"run={folder}", f"input={pictures}", f"output={out}", verb="predict"))
    assert np.asarray(Image.open(out / "masks" / "odd.png")).shape == (37, 91)
    for task in TASKS:
        assert np.asarray(Image.open(out / "tasks" / task / "odd.png")).shape == (37, 91)


def test_a_flat_model_is_scored_on_the_tasks_that_read_its_map(tiny: Make, tmp_path: Path) -> None:
    """The reference is the class maps that the run leaves, looked up in the tables of the definition."""
    value = train(tiny(*SMALL, "data.tasks=demo", "monitor=val/h_mean"))
    folder = only_run(tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    plain = metrics["parts"]["val"]["plain"]
    tables = {"damage": [0, 1, 1, 1, 1, 1], "shape": [0, 1, 1, 2, 2, 3], "kind": [0, 1, 2, 3, 4, 5]}
    assert metrics["task_classes"]["shape"] == ["clean", "line", "area", "hole"]
    assert metrics["classes"] == ["clean", "crack", "scratch", "paint_loss", "stain", "puncture"]
    confusion = np.array(plain["confusion"])
    mious = []
    for task, table in tables.items():
        expected = np.zeros((max(table) + 1,) * 2, dtype=int)
        np.add.at(expected, (np.array(table)[:, None], np.array(table)[None]), confusion)
        assert plain["tasks"][task]["confusion"] == expected.tolist()
        hits, union = expected.diagonal(), expected.sum(0) + expected.sum(1) - expected.diagonal()
        mious.append((hits[union > 0] / union[union > 0]).mean())
        assert plain["tasks"][task]["miou"] == pytest.approx(mious[-1])
    assert value == pytest.approx(len(mious) / sum(1 / miou for miou in mious), abs=1e-6)
    evaluate(tiny(f"run={folder}", verb="evaluate"))
    again = json.loads((folder / "evaluations" / "plain" / "metrics.json").read_text())
    assert again["parts"]["val"]["plain"] == plain


# Runs with an image head: alone with several classes per picture, and beside a dense head.


LIGHT = ("encoder=mobilenetv3_small", "encoder.weights=null", "trainer.max_epochs=2")
KINDS = ["crack", "scratch", "paint_loss", "stain", "puncture"]


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
