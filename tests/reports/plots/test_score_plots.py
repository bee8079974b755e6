import re

import matplotlib
import numpy as np
import pytest
from PIL import Image

from hsl.reports.models import models_of
from hsl.reports.plots import run_plots as plots
from hsl.reports.plots.report_plots import report_plots
from hsl.reports.plots.score_plots import (
    class_plot,
    curves_plot,
    ranking_plot,
    series_style,
    shorts,
    slug,
)
from hsl.run_folder.run import ScoredOn, gather

CLASSES = ["background", "crack", "stain"]
FULL = [[50, 0, 0], [0, 50, 0], [0, 0, 0]]
HALF = [[50, 50, 0], [50, 50, 0], [0, 0, 0]]
PLACES = {"a": 0, "b": 1, "resnet50": 0}


@pytest.fixture
def models(tmp_path):
    return lambda: models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")


def texts(plot):
    return re.findall(r"<text[^>]*>([^<]*)</text>", plot.svg)


def test_the_ranking_has_a_dot_per_fold_mean_and_spread(make_run, models):
    for fold, confusion in enumerate([FULL, HALF, FULL]):
        make_run("a", "a", fold, confusion)
    make_run("b", "b", 0, HALF)
    plot = ranking_plot(models(), PLACES, "miou", ScoredOn("val"))
    data = {(label, what): value for label, what, value in plot.rows}
    assert [data["a", f"fold {fold}"] for fold in range(3)] == pytest.approx([100, 100 / 3, 100])
    assert data["a", "mean"] == pytest.approx(700 / 9)
    assert data["a", "sample standard deviation"] == pytest.approx(np.std([100, 100 / 3, 100], ddof=1))
    assert ("b", "sample standard deviation") not in data
    assert "77.78 ± 38.49" in texts(plot)
    assert "33.33" in texts(plot)


def test_no_two_names_of_a_plot_look_alike():
    ends = [f"a_name_that_all_share · {key}={'x' * 40} · lr=0.1" for key in ("one", "two")]
    found = shorts(ends)
    assert len(set(found.values())) == 2
    assert [name[:4] for name in found.values()] == ["one=", "two="]
    assert list(shorts(["net", "net · lr=0.1"]).values()) == ["net", "net · lr=0.1"]  # nothing would be left of one
    assert shorts(["net · lr=0.1"]) == {"net · lr=0.1": "net · lr=0.1"}
    middle = [f"{'a' * 30}{letter}{'b' * 40}" for letter in "xy"]
    assert len(set(shorts(middle).values())) == 2


def test_a_refused_model_keeps_its_dots_but_has_no_mean(make_run, models, split_of):
    make_run(fold=0)
    make_run(fold=1, split=split_of(prefix="q"))
    plot = ranking_plot(models(), PLACES, "miou", ScoredOn("val"))
    assert [what for _, what, _ in plot.rows] == ["fold 0", "fold 1"]
    assert "no mean over folds" in texts(plot)


def test_learning_curves_of_every_run(make_run, models):
    make_run(fold=0)
    make_run(fold=1)
    plot = curves_plot(models())
    assert plot.columns == ("model", "fold", "seed", "epoch", "val/miou")
    assert plot.rows == [
        ("resnet50", fold, 0, epoch, value) for fold in (0, 1) for epoch, value in ((1, 0.3), (2, 0.5))
    ]


def test_no_curves_without_a_common_value(make_run, models):
    (make_run() / "history.csv").unlink()
    assert curves_plot(models()) is None
    (make_run(fold=1) / "history.csv").write_text("epoch,val/f1\n0,0.5\n1,0.6\n")
    assert curves_plot(models()) is None


def test_the_class_plot_holds_its_numbers():
    plot = class_plot({"a": [0.9, 0.5, float("nan")]}, CLASSES, "val")
    assert plot.rows == [("a", "background", 0.9), ("a", "crack", 0.5), ("a", "stain", None)]
    assert {"90.0", "50.0"} <= set(texts(plot))


def test_twelve_models_look_unlike():
    looks = [tuple(map(str, series_style(i).values())) for i in range(21)]
    assert len(set(looks)) == 21
    assert slug("a/b c") == "a-b-c"
    assert slug("…") == "model"


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_report_has_the_plots_that_its_runs_allow(make_run, models, part):
    make_run("a", "a", 0, FULL)
    (make_run("b", "b", 0, HALF) / "pixel_counts.npz").unlink()
    plots = report_plots(models(), "miou", ScoredOn(part))
    found = ["ranking", "curves"]
    found += (
        ["per_class", "reliability", "errors", "confusion_01_a", "confusion_02_b", "confused_02_b"]
        if part == "val"
        else []
    )
    assert list(plots) == found
    if part == "val":
        assert {row[0] for row in plots["errors"].rows} == {"a"}  # what b lacks is not drawn as 0
    assert report_plots([], "miou", ScoredOn(part)) == {}


def test_a_score_that_is_no_share_keeps_its_unit(make_run, models):
    make_run(confusion=HALF)
    (row, _) = report_plots(models(), "nll", ScoredOn("val"))["ranking"].rows
    assert row[2] == pytest.approx(models()[0].pooled(ScoredOn("val")).overall["nll"])


def texts_of_axes(path):
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf8"))


def names(number):
    return [f"class {i}" for i in range(number)]


def test_confusion_matrix_shows_shares_of_the_true_class(tmp_path):
    matrix = np.array([[990, 10, 0], [30, 10, 0], [0, 0, 0]])
    plots.confusion_plot(matrix, CLASSES, tmp_path / "m.svg", title="fold 1")
    shown = texts_of_axes(tmp_path / "m.svg")
    for text in ("99.0", "1.0", "75.0", "25.0", "no pixel of this class", "fold 1", "predicted class"):
        assert text in shown
    assert "background  (96.2 %)" in shown  # 1000 of 1040 pixels
    assert "crack  (3.8 %)" in shown
    assert "stain  (0 %)" in shown


def test_a_small_share_is_not_shown_as_zero(tmp_path):
    plots.confusion_plot(np.array([[999_999, 1], [0, 1]]), ["a", "b"], tmp_path / "m.svg")
    shown = texts_of_axes(tmp_path / "m.svg")
    assert "<0.1" in shown or "&lt;0.1" in shown
    assert "100" in shown
    assert "a  (99.99 %)" in shown


@pytest.mark.parametrize("number", [2, 6, 21, 40])
def test_every_plot_draws_any_number_of_classes(tmp_path, number):
    rng = np.random.default_rng(number)
    matrix = rng.integers(0, 1000, (number, number))
    plots.confusion_plot(matrix, names(number), tmp_path / "a.png")
    iou = {"plain": rng.random(number).tolist(), "tta": [None] * number}
    plots.iou_per_class(iou, names(number), tmp_path / "b.png")
    plots.class_distribution({"train": matrix.sum(1)}, names(number), tmp_path / "c.png")
    for name in "abc":
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 150
            assert max(picture.size) < 4000
            assert np.asarray(picture.convert("L")).std() > 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "c.png"]


def test_nothing_counted_is_no_crash(tmp_path):
    empty = np.zeros((3, 3), dtype=np.int64)
    plots.confusion_plot(empty, CLASSES, tmp_path / "a.svg")
    plots.iou_per_class({"plain": [None] * 3}, CLASSES, tmp_path / "b.svg")
    plots.class_distribution({"train": empty[0], "val": empty[0]}, CLASSES, tmp_path / "c.svg")
    assert texts_of_axes(tmp_path / "a.svg").count("no pixel of this class") == 3
    assert texts_of_axes(tmp_path / "b.svg").count("in neither truth nor prediction") == 3
    assert texts_of_axes(tmp_path / "c.svg").count("0") >= 6


def test_iou_values_and_mean_over_scored_classes(tmp_path):
    plots.iou_per_class({"plain": [0.9, 0.3, None], "tta": [0.95, float("nan"), 0.5]}, CLASSES, tmp_path / "i.svg")
    shown = texts_of_axes(tmp_path / "i.svg")
    assert "plain: mIoU 60.0 % over 2 classes" in shown
    assert "tta: mIoU 72.5 % over 2 classes" in shown
    for text in ("90.0", "30.0", "95.0", "50.0", "–"):
        assert text in shown


def test_class_distribution_writes_the_shares(tmp_path):
    counts = {"train": np.array([98, 2, 0]), "val": np.array([1, 0, 0])}
    plots.class_distribution(counts, CLASSES, tmp_path / "d.svg")
    shown = texts_of_axes(tmp_path / "d.svg")
    for text in ("98", "2", "0", "100", "train", "val"):
        assert text in shown


@pytest.mark.parametrize("epochs", [0, 1, 2, 30])
def test_training_curves(tmp_path, epochs):
    history = {
        "epoch": list(range(epochs)),
        "lr": [1e-3] * epochs,
        "train/loss": np.linspace(1, 0.1, epochs),
        "train/loss/dice": np.linspace(1, 0.1, epochs),
        "train/loss/focal": np.linspace(1, 0.1, epochs),
        "val/loss": [float("nan")] * epochs,
        "val/miou": np.linspace(0.1, 0.8, epochs),
    }
    plots.training_curves(history, tmp_path / "t.svg", monitor="val/miou", best_epoch=0)
    shown = texts_of_axes(tmp_path / "t.svg")
    assert "best: epoch 1" in shown
    assert {"train/loss", "train/loss/dice", "val/miou", "epoch", "learning rate"} <= set(shown)


def test_training_curves_of_an_unknown_layout(tmp_path):
    plots.training_curves({"val/f1": [0.1, 0.2]}, tmp_path / "t.svg", monitor="val/miou")
    assert "validation" in texts_of_axes(tmp_path / "t.svg")


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_format_follows_the_suffix_and_global_state_stays(tmp_path, suffix):
    before = dict(matplotlib.rcParams)
    plots.iou_per_class({"plain": [0.5, 0.5, 0.5]}, CLASSES, tmp_path / f"x.{suffix}")
    head = (tmp_path / f"x.{suffix}").read_bytes()[:5]
    assert head == {"png": b"\x89PNG\r", "pdf": b"%PDF-", "svg": b"<?xml"}[suffix]
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("value", "text"),
    [(100.0, "100"), (99.996, "99.99"), (86.25, "86.2"), (1.25, "1.2"), (0.00041, "0.00041"), (0.0, "0")],
)
def test_percent(value, text):
    assert plots.percent(value) == text


def test_names_of_classes_are_no_formulas(tmp_path):
    """An unknown command between two dollar signs would stop the drawing after the training."""
    names = ["background", "a$", "$\\frac$", "<b>&", "a_b^{", "100 %", "[/red]"]
    plots.confusion_plot(np.eye(7, dtype=np.int64), names, tmp_path / "a.png", "val")
    plots.iou_per_class({"plain": [0.5] * 7}, names, tmp_path / "b.png", "val")
    plots.class_distribution({"train": np.arange(1, 8)}, names, tmp_path / "c.png")
    assert len(list(tmp_path.iterdir())) == 3
