import numpy as np
import pytest

from hsl.reports.gather import gather
from hsl.reports.models import models_of
from hsl.reports.plots.weighting_plots import MAX_PAIRS, POINTS, binned, weighting_plots


@pytest.fixture
def models(tmp_path):
    return lambda: models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")


def test_a_panel_per_model_and_a_line_per_objective_and_run(make_run, add_weighting, models):
    for fold in range(2):
        add_weighting(make_run("a", "a", fold), {"genus": 3.0, "health": 1.0}, {("genus", "health"): [-0.5]})
    add_weighting(make_run("b", "b"))  # scalar: neither norms nor cosines
    make_run("c", "c")
    plots = {plot.name: plot for plot in weighting_plots(models())}
    panels = {
        name: {axes.get_title(): len(axes.lines) for axes in plot.figure.axes if axes.get_visible()}
        for name, plot in plots.items()
    }
    assert {name: list(titles) for name, titles in panels.items()} == {
        "weights": ["a", "b"],
        "gradient_norms": ["a"],
        "gradient_cosines": ["a"],
    }
    assert ("a", 1, 0, "health", 400.0, pytest.approx(1.39)) in plots["weights"].rows
    assert ("a", 0, 0, "genus", 20.0, 3.0) in plots["gradient_norms"].rows
    assert {row[3:] for row in plots["gradient_cosines"].rows if row[4] == 10} == {("genus, health", 10.0, -0.5)}
    assert len(plots["weights"].rows) == 3 * 2 * 40
    assert plots["gradient_norms"].figure.axes[0].get_yscale() == "log"
    for plot in plots.values():
        assert "var(--series-0)" in plot.svg
        assert "var(--ink)" in plot.svg


def test_nothing_logged_is_no_plot(make_run, models):
    make_run()
    assert weighting_plots(models()) == []


def test_of_many_pairs_those_with_the_lowest_median(make_run, add_weighting, models):
    cosines = {("t0", f"t{k}"): [0.1 * k - 0.5] for k in range(1, 10)}
    add_weighting(make_run(), {"t0": 1.0}, cosines)
    (plot,) = [plot for plot in weighting_plots(models()) if plot.name == "gradient_cosines"]
    assert sorted({row[3] for row in plot.rows}) == [f"t0, t{k}" for k in range(1, MAX_PAIRS + 1)]


def test_a_long_run_becomes_medians_of_equal_spans():
    steps = list(range(1, 10 * POINTS + 1))
    values = np.where(np.arange(10 * POINTS) % 10 == 0, 1e9, 2.0)  # one step in ten is wild
    x, y = binned(steps, values)
    assert x.tolist() == [10 * k + 5.5 for k in range(POINTS)]
    assert set(y.tolist()) == {2.0}
    assert [len(each) for each in binned([1, 2], np.array([np.nan, np.nan]))] == [0, 0]
