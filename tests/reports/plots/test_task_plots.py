import re

import numpy as np
import pytest

from hsl.errors import ConfigError
from hsl.reports.models import models_of
from hsl.reports.plots.report_plots import report_plots
from hsl.reports.plots.task_plots import pareto_plot, pareto_tasks, task_curves_plot, task_plot
from hsl.reports.plots.weighting_plots import MAX_PAIRS, POINTS, binned, weighting_plots
from hsl.run_folder.run import ScoredOn, gather


@pytest.fixture
def models(tmp_path):
    return lambda: models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed", "loss*"], "encoder.name")


@pytest.fixture
def three(make_run, add_tasks, models):
    """Models of two folds whose genus gets worse as their health gets better, and one that is worse in both."""
    shares = {"a": (0.9, 0.3, 0.5), "b": (0.6, 0.6, 0.5), "c": (0.5, 0.5, 0.6)}
    for name, values in shares.items():
        for fold in range(2):
            right = {task: value - 0.1 * fold for task, value in zip(("genus", "health", "fish"), values, strict=True)}
            add_tasks(make_run(name, name, fold), right, fold)
    return models()


def texts(plot):
    return re.findall(r"<text[^>]*>([^<]*)</text>", plot.svg)


def test_the_radar_has_a_polygon_per_model_that_has_tasks(three, make_run, models):
    make_run("flat", "flat")
    everyone = models()
    plot = task_plot(everyone, ScoredOn("val"))
    (axes,) = plot.figure.axes
    assert axes.name == "polar"
    data = {(model, task): mean for model, task, mean, _ in plot.rows}
    by_label = {line.get_label(): line for line in axes.lines}
    assert by_label.keys() == {"a", "b", "c"}
    for model, line in by_label.items():
        means = [100 * data[model, task] for task in ("genus", "health", "fish")]
        assert list(line.get_ydata()) == pytest.approx([*means, means[0]])
    assert axes.get_ylim()[0] == 0
    assert {"genus", "health", "fish"} <= set(texts(plot))
    assert data["a", "genus"] == everyone[0].on_task("genus").summary("miou", ScoredOn("val")).mean


def test_fewer_than_three_tasks_are_bars_and_none_are_no_plot(make_run, add_tasks, models):
    make_run("flat", "flat")
    assert task_plot(models(), ScoredOn("val")) is None
    for fold in range(2):
        add_tasks(make_run("a", "a", fold), {"genus": 0.9 - 0.2 * fold, "health": 0.5}, fold)
    plot = task_plot(models(), ScoredOn("val"))
    (axes,) = plot.figure.axes
    assert axes.name == "rectilinear"
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([100 * row[2] for row in plot.rows])
    assert plot.rows[0][3] > 0 == plot.rows[1][3]
    assert task_plot(models(), ScoredOn("test")) is None


def test_the_pareto_front_is_of_the_models_that_none_beats(three):
    plot = pareto_plot(three, ScoredOn("val"), ["genus", "health"])
    assert plot.columns == ("model", "genus_mean", "health_mean", "genus_std", "health_std", "unbeaten")
    assert {row[0]: row[-1] for row in plot.rows} == {"a": "True", "b": "True", "c": "False"}
    front = plot.figure.axes[0].lines[0].get_xydata() / 100
    best = sorted((row[1], row[2]) for row in plot.rows if row[-1] == "True")
    assert front.tolist() == [pytest.approx(point) for point in best]
    assert three[0].on_task("health").summary("miou", ScoredOn("val")).std == pytest.approx(plot.rows[0][4])
    assert pareto_plot(three[:1], ScoredOn("val")) is None


def test_the_pareto_plot_takes_the_primary_pair_else_the_widest_spread(three, make_run, add_tasks, models):
    assert pareto_tasks(three, ScoredOn("val")) == ("genus", "health")  # fish differs least
    primary = {"loss": {"primary": ["health", "fish"]}}
    add_tasks(make_run("d", "d", config=primary), {"genus": 0.1, "health": 0.5, "fish": 0.5})
    assert pareto_tasks(models(), ScoredOn("val")) == ("health", "fish")
    assert pareto_tasks([], ScoredOn("val")) is None


@pytest.mark.parametrize("chosen", [["genus"], ["genus", "genus"], ["genus", "coral"], "genus", []])
def test_a_wrong_pair_is_named(three, chosen):
    with pytest.raises(ConfigError, match=r"`pareto` should name two of the tasks genus, health, fish\. Found"):
        pareto_plot(three, ScoredOn("val"), chosen)


def test_learning_curves_of_each_task(three):
    plot = task_curves_plot(three)
    assert plot.columns == ("task", "model", "fold", "seed", "epoch", "val_miou")
    assert len(plot.rows) == 3 * 3 * 2 * 2
    assert ("genus", "a", 1, 0, 2.0, 0.4) in plot.rows
    assert [axes.get_title() for axes in plot.figure.axes] == ["genus", "health", "fish"]
    assert all(len(axes.lines) == 6 for axes in plot.figure.axes)


def test_no_curves_without_columns(make_run, models):
    make_run()
    assert task_curves_plot(models()) is None


def test_a_report_has_them_only_where_there_are_tasks(three, make_run):
    names = {"task_scores", "pareto", "task_curves"}
    plots = report_plots(three, "miou", ScoredOn("val"))
    assert names <= plots.keys()
    for name in names:  # readable in both schemes of the page
        assert "var(--series-0)" in plots[name].svg
        assert "var(--ink)" in plots[name].svg


def test_a_report_of_flat_models_has_none_of_them(make_run, models):
    make_run()
    found = report_plots(models(), "miou", ScoredOn("val"))
    assert not {"task_scores", "pareto", "task_curves", "weights"} & found.keys()


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
