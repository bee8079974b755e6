import re

import numpy as np
import pytest

from hsl.reports.models import models_of
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
