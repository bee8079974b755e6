"""Files of plots, and the plots of tasks."""

import re

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hsl.errors import ConfigError
from hsl.reports.models import models_of
from hsl.reports.plots.palette import SERIES, SERIES_DARK, hex_colour, palette
from hsl.reports.plots.plot_files import INK, REPORT_STYLE, Plot, save_plots
from hsl.reports.plots.report_plots import report_plots
from hsl.reports.plots.task_plots import pareto_plot, pareto_tasks, task_curves_plot, task_plot
from hsl.reports.plots.weighting_plots import MAX_PAIRS, POINTS, binned, weighting_plots
from hsl.run_folder.run import ScoredOn, gather


def test_forty_unlike_colours_that_never_equal_the_ignored_one():
    table = palette()
    assert table.shape == (256, 3)
    assert len({tuple(colour) for colour in table[:40]}) == 40
    assert tuple(table[255]) not in {tuple(colour) for colour in table[:255]}


def test_later_classes_never_get_the_colour_of_the_background():
    assert not (palette()[1:255] == palette()[0]).all(axis=1).any()
    np.testing.assert_array_equal(palette()[40], palette()[1])


def test_neighbours_stay_apart_for_a_reader_without_green_receptors():
    # Machado, Oliveira & Fernandes 2009, deuteranomaly of severity 1.0, on linear RGB
    simulate = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                         [-0.011820, 0.042940, 0.968881]])  # fmt: skip
    linear = (palette()[:8] / 255) ** 2.2
    seen = (linear @ simulate.T).clip(0, 1) ** (1 / 2.2)
    distance = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 9 * np.eye(8)
    assert distance.min() > 0.1


def test_hex():
    assert hex_colour(0) == "#2b2b2b"
    assert hex_colour(255) == "#d9d9d9"


def plot_of(name="a", on_card=False):
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(4, 2))
        axes = figure.add_subplot()
        axes.plot([0, 1], [1, 0], "o", color=SERIES[1])
        axes.set_title("<title>")
    return Plot(name, "caption", figure, ["x", "y"], [[1, 0.5], ["b", None]], on_card)


@pytest.mark.filterwarnings("error")
def test_every_plot_is_saved_in_each_format_with_its_data(tmp_path):
    before = dict(matplotlib.rcParams)
    save_plots([plot_of("a"), plot_of("b")], tmp_path, formats=["pdf", "png", "svg"])
    heads = {"pdf": b"%PDF-", "png": b"\x89PNG\r", "svg": b"<?xml"}
    assert {path.name for path in tmp_path.iterdir()} == {f"{n}.{k}" for n in "ab" for k in [*heads, "csv"]}
    for kind, head in heads.items():
        assert (tmp_path / f"a.{kind}").read_bytes().startswith(head)
    assert (tmp_path / "a.csv").read_text() == "x,y\n1,0.5\nb,\n"
    assert "&lt;title&gt;" in (tmp_path / "a.svg").read_text()  # text stays text
    assert dict(matplotlib.rcParams) == before


def test_the_file_and_the_page_share_one_drawing(tmp_path, monkeypatch):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *to, **how: drawn.append(how["format"]) or save(self, *to, **how)
    )
    plot = plot_of()
    save_plots([plot], tmp_path)
    assert "fill: #ffffff" in (tmp_path / "a.svg").read_text()
    assert "fill: #ffffff" not in plot.svg  # the page shows through
    assert sorted(drawn) == ["png", "svg"]


def test_the_same_data_give_the_same_files(tmp_path):
    for folder in ("one", "two"):
        save_plots([plot_of()], tmp_path / folder, formats=["pdf", "png", "svg"])
    for kind in ("pdf", "png", "svg", "csv"):
        assert (tmp_path / "one" / f"a.{kind}").read_bytes() == (tmp_path / "two" / f"a.{kind}").read_bytes()


def test_inside_the_page_a_plot_has_no_foreign_id_address_or_fixed_colour():
    svg = plot_of("a").svg
    assert svg.startswith("<svg role=")
    assert svg.endswith("</svg>")
    assert "http" not in svg
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    assert used  # the markers and the clip path
    assert set(re.findall(r' id="([^"]+)"', svg)) == used
    assert all(name.startswith("a-") for name in used)
    assert "var(--series-1)" in svg
    assert "var(--ink)" in svg
    assert INK not in svg
    assert not used & set(re.findall(r' id="([^"]+)"', plot_of("b").svg))


def test_a_plot_on_a_card_keeps_its_colours():
    svg = plot_of(on_card=True).svg
    assert SERIES[1] in svg
    assert "var(" not in svg


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize(("colours", "page"), [(SERIES, "#ffffff"), (SERIES_DARK, "#12161b")])
def test_the_series_stand_out_from_the_page(colours, page):
    for colour in colours:
        low, high = sorted((luminance(colour), luminance(page)))
        assert (high + 0.05) / (low + 0.05) >= 3
    assert len(set(colours)) == 7


@pytest.mark.parametrize("dpi", [100, 600, 1200])
def test_tiff_is_rgb_compressed_and_as_fine_as_asked_for(tmp_path, dpi):
    save_plots([plot_of()], tmp_path, dpi, ["tiff", "png"])
    assert {path.name for path in tmp_path.iterdir()} == {"a.tiff", "a.png", "a.csv"}
    with Image.open(tmp_path / "a.tiff") as tiff, Image.open(tmp_path / "a.png") as png:
        assert (tiff.format, tiff.mode, tiff.info["compression"]) == ("TIFF", "RGB", "tiff_lzw")
        assert tiff.size == png.size == (4 * dpi, 2 * dpi)
        assert [round(float(side)) for side in (*tiff.info["dpi"], *png.info["dpi"])] == [dpi] * 4
        assert tiff.getpixel((0, 0)) == (255, 255, 255)
        difference = np.abs(np.asarray(tiff, dtype=int) - np.asarray(png.convert("RGB"), dtype=int))
    assert difference.max() <= 1  # the same drawing
    assert (tmp_path / "a.tiff").stat().st_size < 8 * dpi**2  # a third of what it is uncompressed


def test_the_figure_is_left_as_it_was(tmp_path):
    plot = plot_of()
    before = plot.svg
    save_plots([plot], tmp_path, 300, ["tiff"])
    assert plot.svg == before


@pytest.mark.parametrize("formats", [[], None, ["gif"], ["png", "bmp"], "jpeg", [3]])
def test_formats_that_are_none(tmp_path, formats):
    with pytest.raises(ConfigError, match=r"`formats` should be one or more of svg, pdf, png, tiff\. Found"):
        save_plots([plot_of()], tmp_path, 160, formats)


@pytest.mark.parametrize("dpi", [0, -1, 49, 2401, 1.5, "fine", None, True])
def test_resolutions_that_are_none(tmp_path, dpi):
    with pytest.raises(ConfigError, match=r"`dpi` should be a whole number in \[50, 2400\]. Found `dpi = "):
        save_plots([plot_of()], tmp_path, dpi)


def test_more_pixels_than_can_be_drawn(tmp_path):
    large = Plot("large", "", Figure(figsize=(40, 2)), ["x"], [])
    with pytest.raises(ConfigError, match="`dpi` should be at most 1638 for the plot `large` of 40 inches") as caught:
        save_plots([large], tmp_path, 2000, ["tiff"])
    assert not list(tmp_path.iterdir())
    assert "leave png and tiff out" in str(caught.value)
    save_plots([large], tmp_path, 2000, ["svg"])


def test_one_format_as_a_word_and_each_once(tmp_path):
    save_plots([plot_of()], tmp_path, formats="svg")
    save_plots([plot_of("b")], tmp_path, formats=["png", "png"])
    assert {path.name for path in tmp_path.iterdir()} == {"a.svg", "a.csv", "b.png", "b.csv"}


# Task plots.


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
