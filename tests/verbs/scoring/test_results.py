"""Tables of an evaluation, from confusion matrices that can be checked by hand."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from hsl.batch import IGNORE_INDEX
from hsl.callbacks.evaluation import Evaluation, KeptPrediction, PartResult
from hsl.errors import ConfigError
from hsl.files.split_file import Fold, Split
from hsl.metrics.pixels.pixelwise import Pixelwise
from hsl.reports.page import pictures
from hsl.reports.plots import run_plots as plots
from hsl.verbs.scoring.results import Monitored, check_same_split, write_results

CLASSES = ("clean", "crack", "stain")
MONITORED = Monitored("val/miou", "max", 0.5, 2, "best.ckpt")
GOOD = [[3, 1, 0], [0, 4, 0], [0, 0, 0]]  # iou 3/4, 4/5; no stain
POOR = [[2, 0, 0], [2, 0, 0], [0, 0, 0]]  # iou 2/4, 0
EMPTY = [[0] * 3] * 3  # every pixel ignored


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The plots are tested in their own room: here their arguments are kept."""
    drawn: dict[str, Any] = {}
    for name in ("confusion_plot", "iou_per_class", "class_distribution", "training_curves"):
        monkeypatch.setattr(plots, name, lambda *args, name=name: drawn.update({name: args}))
    monkeypatch.setattr(pictures, "write_examples", lambda *args: drawn.update({"examples": args}))
    return drawn


def data_of(*parts: str) -> Any:
    prepared = SimpleNamespace(
        evaluation_parts=parts,
        choosing_part="val",
        classes={"segmentation": CLASSES},
        image_classes={},
        heads=SimpleNamespace(overlapping=False),
        group=lambda name: f"group of {name}",
        pixels_per_part=lambda: {"train": np.array([5, 5, 1])},
    )
    return SimpleNamespace(prepared=prepared, original=lambda name: None)


def pixels_of(matrix: list[list[int]]) -> tuple[list[int], list[int]]:
    """Truth and prediction of as many pixels as the matrix counts."""
    pairs = [(i, j) for i, row in enumerate(matrix) for j, number in enumerate(row) for _ in range(number)]
    return [i for i, _ in pairs] or [IGNORE_INDEX], [j for _, j in pairs] or [0]


def result_of(**confusions: list[list[int]]) -> PartResult:
    part = PartResult(0)
    part.ids = list(confusions)
    for matrix in confusions.values():
        metric = Pixelwise(len(CLASSES))
        truth, prediction = (torch.tensor(one) for one in pixels_of(matrix))
        metric.update(20.0 * torch.eye(len(CLASSES))[prediction].T[None, :, None], truth[None, None])
        part.counts.append(metric.states())
    part.confidences = [0.5 if matrix is not EMPTY else math.nan for matrix in confusions.values()]
    return part


def evaluation_of(inference: str, *parts: PartResult) -> Evaluation:
    evaluation = Evaluation(inference)
    evaluation.parts = dict(enumerate(parts))
    return evaluation


def write_two_parts(folder: Path) -> None:
    plain = evaluation_of("plain", result_of(v1=GOOD, v2=EMPTY), result_of(t2=POOR, t1=GOOD))
    tta = evaluation_of("tta", result_of(v1=GOOD, v2=EMPTY), result_of(t1=GOOD, t2=GOOD))
    write_results(folder, [plain, tta], data_of("val", "test"), MONITORED)


def test_metrics(tmp_path: Path, drawn: dict[str, Any]) -> None:
    write_two_parts(tmp_path)
    page = json.loads((tmp_path / "metrics.json").read_text())
    assert page["monitor"] == {"name": "val/miou", "mode": "max", "value": 0.5, "epoch": 2}
    assert page["classes"] == list(CLASSES)
    assert {part: list(table) for part, table in page["parts"].items()} == {
        "val": ["plain", "tta"],
        "test": ["plain", "tta"],
    }
    test = page["parts"]["test"]["plain"]
    assert test["confusion"] == [[5, 1, 0], [2, 4, 0], [0, 0, 0]]
    assert (test["num_images"], test["classes_scored"]) == (2, 2)
    assert test["miou"] == pytest.approx((5 / 8 + 4 / 7) / 2)
    assert test["micro_iou"] == pytest.approx(9 / 15)
    assert test["mean_dice"] == pytest.approx((10 / 13 + 8 / 11) / 2)
    assert test["pixel_accuracy"] == pytest.approx(9 / 12)
    assert test["per_class"]["crack"] == pytest.approx(
        {"iou": 4 / 7, "dice": 8 / 11, "precision": 4 / 5, "recall": 4 / 6, "f1": 8 / 11, "pixels": 6}
    )
    assert page["parts"]["val"]["plain"]["num_images"] == 2


def test_what_was_not_scored_is_null(tmp_path: Path, drawn: dict[str, Any]) -> None:
    write_results(tmp_path, [evaluation_of("plain", result_of(v1=EMPTY))], data_of("val"), MONITORED)
    text = (tmp_path / "metrics.json").read_text()
    table = json.loads(text, parse_constant=pytest.fail)["parts"]["val"]["plain"]
    assert [table[name] for name in ("miou", "micro_iou", "mean_dice", "pixel_accuracy")] == [None] * 4
    assert table["classes_scored"] == 0
    assert table["per_class"]["stain"] == dict.fromkeys(["iou", "dice", "precision", "recall", "f1"]) | {"pixels": 0}


def test_one_row_per_picture_part_and_predictor(tmp_path: Path, drawn: dict[str, Any]) -> None:
    write_two_parts(tmp_path)
    rows = pd.read_csv(tmp_path / "per_image.csv")
    assert list(zip(rows["part"], rows["inference"], rows["id"], strict=True)) == [
        ("test", "plain", "t1"), ("test", "plain", "t2"), ("test", "tta", "t1"), ("test", "tta", "t2"),
        ("val", "plain", "v1"), ("val", "plain", "v2"), ("val", "tta", "v1"), ("val", "tta", "v2"),
    ]  # fmt: skip
    poor, good, empty = rows.iloc[1], rows.iloc[4], rows.iloc[5]
    assert good["group"] == "group of v1"
    assert (good["miou"], good["pixel_accuracy"]) == pytest.approx(((3 / 4 + 4 / 5) / 2, 7 / 8))
    assert (good["iou/clean"], good["iou/crack"]) == pytest.approx((3 / 4, 4 / 5))
    assert (good["valid_pixels"], good["confidence"]) == (8, 0.5)
    assert rows["iou/stain"].isna().all()
    assert empty["valid_pixels"] == 0
    assert empty[["miou", "pixel_accuracy", "confidence", "iou/clean"]].isna().all()
    assert (poor["iou/clean"], poor["iou/crack"]) == (0.5, 0.0)


def test_the_counts_are_stored_for_every_picture(tmp_path: Path, drawn: dict[str, Any]) -> None:
    write_two_parts(tmp_path)
    stored = np.load(tmp_path / "pixel_counts.npz")
    assert stored["matrices"].shape == (8, 2, 3, 3)
    at = (stored["ids"] == "t2") & (stored["part"] == "test") & (stored["inference"] == "plain")
    assert stored["matrices"][at].sum(1).tolist() == [POOR]
    assert stored["pixels"][at].sum() == 4  # of the calibration: every valid pixel


def test_pictures_that_the_pool_could_not_score_are_named(tmp_path: Path, drawn: dict[str, Any]) -> None:
    error = {"surface": {"type": "ValueError", "message": "no", "traceback": ""}}
    rows = [
        {"id": "v1", "part": "val/plain", "checksum": "0", "metrics": {}, "errors": error},
        {"id": "v2", "part": "val/plain", "checksum": "0", "metrics": {"surface": {}}, "errors": {}},
    ]
    (tmp_path / "objects.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_two_parts(tmp_path)
    page = json.loads((tmp_path / "metrics.json").read_text())
    assert page["objects"] == {
        "num_pictures": 2, "failed": [{"part": "val/plain", "id": "v1", "metrics": ["surface"]}]
    }  # fmt: skip


def test_the_last_part_is_drawn(tmp_path: Path, drawn: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "history.csv").write_text("epoch,val/miou\n0,0.25\n1,0.5\n")
    example = KeptPrediction("t1", 1.0, np.zeros((1, 1), np.uint8), np.ones((1, 1), np.float32))
    val, test = result_of(v1=POOR), result_of(t1=GOOD)
    for part in (val, test):
        monkeypatch.setattr(part, "examples", lambda: ([example], []))
    write_results(tmp_path, [evaluation_of("plain", val, test)], data_of("val", "test"), MONITORED)
    assert drawn["confusion_plot"][0].tolist() == GOOD
    assert drawn["confusion_plot"][3] == "test, plain"
    np.testing.assert_allclose(drawn["iou_per_class"][0]["plain"], [3 / 4, 4 / 5, math.nan])
    assert drawn["training_curves"][0] == {"epoch": [0, 1], "val/miou": [0.25, 0.5]}
    assert drawn["training_curves"][2:] == ("val/miou", 2)
    assert drawn["examples"][:3] == (tmp_path / "predictions", [example], [])


def test_metrics_come_last(tmp_path: Path, drawn: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Their presence means that the folder is complete."""

    def broken(*_: Any) -> None:
        raise OSError("full")

    monkeypatch.setattr(plots, "class_distribution", broken)
    with pytest.raises(OSError, match="full"):
        write_two_parts(tmp_path)
    assert (tmp_path / "per_image.csv").is_file()
    assert not (tmp_path / "metrics.json").exists()


def test_a_run_also_gets_one_page_of_everything(tmp_path: Path, drawn: dict[str, Any]) -> None:
    (tmp_path / "config.yaml").write_text("name: a\nfold: 0\nseed: 0\n")
    (tmp_path / "history.csv").write_text("epoch,val/miou\n0,0.25\n1,0.5\n")
    write_two_parts(tmp_path)
    page, metrics = (json.loads((tmp_path / name).read_text()) for name in ("results.json", "metrics.json"))
    assert {"val": page["val"], "test": page["test"]} == metrics["parts"]
    assert page["monitor"] == metrics["monitor"]
    assert page["history"] == [{"epoch": 0, "val/miou": 0.25}, {"epoch": 1, "val/miou": 0.5}]
    order = [(tmp_path / name).stat().st_mtime_ns for name in ("results.json", "metrics.json")]
    assert order == sorted(order)


def test_another_evaluation_of_a_run_gets_no_such_page(tmp_path: Path, drawn: dict[str, Any]) -> None:
    write_two_parts(tmp_path)
    assert not (tmp_path / "results.json").exists()


def checkpoint_callback(folder: Path, value: float | None) -> ModelCheckpoint:
    callback = ModelCheckpoint(folder, monitor="val/miou", mode="max")
    callback.best_model_score = None if value is None else torch.tensor(value)
    callback.best_model_path = str(folder / "best.ckpt")
    return callback


def test_the_monitored_value_is_read_off_the_best_checkpoint(tmp_path: Path) -> None:
    torch.save({"epoch": 7}, tmp_path / "best.ckpt")
    monitored = Monitored.of(checkpoint_callback(tmp_path, 0.25), tmp_path)
    best = str(tmp_path / "checkpoints" / "best.ckpt")
    assert monitored == Monitored("val/miou", "max", 0.25, 7, best)


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_monitored_value_that_never_was(tmp_path: Path, value: float | None) -> None:
    with pytest.raises(ConfigError, match=r"`monitor` should be .* finite. Found `monitor = val/miou`"):
        Monitored.of(checkpoint_callback(tmp_path, value), tmp_path)


def test_the_monitored_value_of_a_finished_run(tmp_path: Path, drawn: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"without metrics\.json"):
        Monitored.read(tmp_path)
    write_two_parts(tmp_path)
    best = str(tmp_path / "checkpoints" / "best.ckpt")
    assert Monitored.read(tmp_path) == Monitored("val/miou", "max", 0.5, 2, best)


def split_of(val: str = "b", test: tuple[str, ...] = ("c",), sha256: str = "ab" * 32) -> Split:
    train = "a" if val == "b" else "b"
    return Split("kfold", 0, None, (Fold((train,), (val,), "0"),), test, sha256)


def test_the_split_of_the_run_is_taken(tmp_path: Path) -> None:
    (tmp_path / "splits.json").write_text(split_of().to_json())
    check_same_split(tmp_path, split_of())  # raises nothing


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (split_of(sha256="cd" * 32), r"\(split abababababab\). Found split cdcdcdcdcdcd"),
        (split_of(val="a"), r"The fold assignment should be that of `.*splits\.json`"),
        (split_of(test=()), r"The fold assignment should be that of `.*splits\.json`"),
    ],
)
def test_another_split_is_refused(tmp_path: Path, other: Split, message: str) -> None:
    (tmp_path / "splits.json").write_text(split_of().to_json())
    with pytest.raises(ConfigError, match=message):
        check_same_split(tmp_path, other)
