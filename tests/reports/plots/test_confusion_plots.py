"""The chart of confused classes: the pairs are those of a sorted list, and there is none without errors."""

import numpy as np
import pytest

from hsl.reports.gather import gather
from hsl.reports.models import models_of
from hsl.reports.plots.confusion_plots import TOP, confused_plot, confusion_plots, top_pairs
from hsl.run_folder.run import ScoredOn

CLASSES = ["clean", "crack", "stain", "hole"]
MATRIX = np.array([[900, 60, 30, 0], [20, 70, 10, 0], [5, 0, 0, 5], [0, 0, 0, 0]])


def test_rows_are_the_largest_pairs_by_errors_and_by_class():
    plot = confused_plot(MATRIX, CLASSES, "m", "confused_01_m")
    rows = {(true, predicted): values for true, predicted, *values in plot.rows}
    wrong = {(CLASSES[i], CLASSES[j]): int(n) for (i, j), n in np.ndenumerate(MATRIX) if i != j and n}
    assert {pair: values[0] for pair, values in rows.items()} == wrong
    assert rows["clean", "crack"][1:] == pytest.approx([100 * 60 / 130, 100 * 60 / 990])
    assert rows["stain", "hole"][1:] == pytest.approx([100 * 5 / 130, 50])
    assert plot.rows[0][:2] == ("clean", "crack")
    names = [[text.get_text() for text in axes.get_yticklabels()] for axes in plot.figure.axes]
    assert names[0][0] == "clean → crack"
    assert names[1][:2] == ["stain → clean", "stain → hole"]


def test_what_is_written_at_the_bars_and_no_share_above_all():
    plot = confused_plot(np.array([[1000, 2, 0], [0, 0, 1500], [3, 0, 7]]), ["a", "b", "c"], "m", "p")
    first, second = ([text.get_text() for text in axes.texts] for axes in plot.figure.axes)
    assert first[0] == "99.7 % (1 500 pixels)"
    assert second[:2] == ["100.0 % (1 500 of 1 500 pixels)", "30.0 % (3 of 10 pixels)"]
    assert max(plot.figure.axes[1].get_xticks()) <= 100


def test_classes_that_begin_and_end_alike_have_bars_of_their_own():
    names = [f"massive and meandering {name} coral of the reef" for name in ("young", "older", "dying")]
    plot = confused_plot(MATRIX[:3, :3], names, "m", "p")
    shown = [text.get_text() for text in plot.figure.axes[0].get_yticklabels()]
    assert len(shown) == len(set(shown)) == (MATRIX[:3, :3] > 0).sum() - 2


def test_at_most_ten_pairs_a_panel():
    matrix = np.random.default_rng(0).integers(1, 99, (8, 8))
    plot = confused_plot(matrix, [f"c{i}" for i in range(8)], "m", "p", "pictures")
    assert [len(axes.get_yticklabels()) for axes in plot.figure.axes] == [TOP, TOP]
    wrong = sorted((matrix * ~np.eye(8, dtype=bool)).ravel(), reverse=True)[:TOP]
    counts = sorted((row[2] for row in plot.rows), reverse=True)
    assert counts[:TOP] == wrong
    assert plot.columns[2] == "pictures"


def test_no_chart_of_two_classes_or_without_an_error():
    assert confused_plot(MATRIX[:2, :2], CLASSES[:2], "m", "p") is None
    assert confused_plot(np.diag([5, 5, 5]), CLASSES[:3], "m", "p") is None
    assert top_pairs(np.zeros((3, 3))) == []


def test_the_matrix_holds_counts_and_its_name_the_place_in_the_ranking(make_run, tmp_path):
    for name, lr in (("a", 0.1), ("b", 0.2)):
        make_run(name, "net", confusion=[[50, 50, 0], [50, 50, 0], [0, 0, 0]], config={"lr": lr})
    models = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
    matrix = list(confusion_plots(models, ScoredOn("val")))[2]
    assert matrix.name == "confusion_02_net-lr-0.2"
    assert matrix.rows[0] == ["background", 50, 50, 0]
