import pytest

from hsl.reports.figures import LEFT, WIDTH, axis, dot_plot, learning_curves
from hsl.reports.gather import gather
from hsl.reports.results import models_of

FULL = [[50, 0, 0], [0, 50, 0], [0, 0, 0]]
HALF = [[50, 50, 0], [50, 50, 0], [0, 0, 0]]


@pytest.fixture
def models(tmp_path):
    return lambda: models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")


@pytest.mark.parametrize("values", [[0.31, 0.77], [41.2, 58.9], [0.0], [5.0, 5.0], [-3, 1000], [1e-7, 2e-7], []])
def test_an_axis_holds_all_values_between_round_ticks(values):
    scale = axis(values, 10, 110)
    assert all(10 <= scale.at(value) <= 110 for value in values)
    assert (scale.at(scale.low), scale.at(scale.high)) == (10, 110)
    assert 2 <= len(scale.ticks) <= 8
    assert len({text for _, text in scale.ticks}) == len(scale.ticks)


def test_an_axis_may_run_upwards():
    scale = axis([0.0, 1.0], 200, 0)
    assert (scale.at(0.0), scale.at(1.0)) == (200, 0)


def test_dot_plot(make_run, models):
    for fold, confusion in enumerate([FULL, HALF, FULL]):
        make_run("a", "a", fold, confusion)
    make_run("b", "b", 0, HALF)
    scale, (first, second) = dot_plot(models(), "miou", "val", "plain")
    assert len(first.dots) == 3
    assert first.text == "77.78"
    assert first.mean == scale.at(700 / 9)
    assert first.low < first.mean < first.high
    assert all(LEFT <= x <= WIDTH - LEFT for x in (first.low, first.high))
    assert second.low is None
    assert second.dots[0] == (scale.at(100 / 3), "fold 0: 33.33")


def test_a_refused_model_keeps_its_dots_but_has_no_mean(make_run, models, split_of):
    make_run(fold=0)
    make_run(fold=1, split=split_of(prefix="q"))
    _, (row,) = dot_plot(models(), "miou", "val", "plain")
    assert len(row.dots) == 2
    assert row.mean is None
    assert row.text == "no mean over folds"


def test_learning_curves_mark_the_kept_epoch(make_run, models):
    make_run(fold=0)
    make_run(fold=1)
    name, x, y, curves = learning_curves(models())
    assert name == "val/miou"
    assert curves[0].path == f"M{x.at(0)} {y.at(0.3)} L{x.at(1)} {y.at(0.5)}"
    assert curves[0].best == (x.at(1), y.at(0.5))
    assert curves[0].title == "resnet50, fold 0, seed 0"


def test_no_curves_without_a_common_value(make_run, models):
    (make_run() / "history.csv").unlink()
    assert learning_curves(models()) is None
    (make_run(fold=1) / "history.csv").write_text("epoch,val/f1\n0,0.5\n1,0.6\n")
    assert learning_curves(models()) is None
