"""Plots of errors, confused classes and image heads."""

import re

import numpy as np
import pytest

from hsl.reports.models import models_of
from hsl.reports.plots.confusion_plots import TOP, confused_plot, confusion_plots, top_pairs
from hsl.reports.plots.error_plots import breakdown_plot, distance_plot, failure_plot, reliability_plot
from hsl.reports.plots.image_plots import image_plots
from hsl.run_folder.run import ScoredOn, gather

MANY = [f"a model with a long name {i}" for i in range(12)]
CLASSES = ["clean", "crack", "stain", "hole"]
MATRIX = np.array([[900, 60, 30, 0], [20, 70, 10, 0], [5, 0, 0, 5], [0, 0, 0, 0]])
RIGHT, WRONG = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]


def texts(plot):
    return re.findall(r"<text[^>]*>([^<]*)</text>", plot.svg)


def test_reliability_by_hand():
    pixels, confidence = np.zeros((2, 15), dtype=np.int64), np.zeros(15)
    pixels[:, 14], confidence[14] = (1, 3), 3.9  # 4 pixels, 3 right, mean confidence 0.975
    pixels[:, 9], confidence[9] = (6, 0), 3.6
    plot = reliability_plot({"a": (pixels, confidence)})
    rows = {number: rest for _, number, *rest in plot.rows}
    assert rows[15] == pytest.approx([0.975, 0.75, 0.4])
    assert rows[10] == pytest.approx([0.6, 0.0, 0.6])
    assert rows[1] == [None, None, 0.0]
    assert len(rows) == 15
    assert "a: ECE 45.00 %" in texts(plot)  # (|3 - 3.9| + |0 - 3.6|) / 10


def test_the_shares_of_the_errors_add_up_to_what_is_wrong():
    rng = np.random.default_rng(0)
    matrices = rng.integers(0, 50, (2, 4, 4))
    plot = breakdown_plot({"a": matrices})
    wrong = 100 * (1 - np.trace(matrices.sum(0)) / matrices.sum())
    assert sum(row[3] for row in plot.rows) == pytest.approx(wrong)
    assert [row[1:3] for row in plot.rows][:2] == [("background", "interior"), ("background", "boundary")]
    assert plot.rows[1][3] == pytest.approx(100 * matrices[1, 0, 1:].sum() / matrices.sum())
    assert f"{wrong:.2f}" in texts(plot)
    assert "<pattern" in plot.svg  # what lies near a contour is hatched, not only coloured


def test_a_perfect_model_and_an_empty_one_are_drawn():
    perfect = np.stack([np.eye(3, dtype=np.int64)] * 2)
    assert sum(row[3] for row in breakdown_plot({"a": perfect}).rows) == 0
    nothing = breakdown_plot({"a": np.zeros((2, 3, 3), dtype=np.int64)})
    assert all(np.isnan(row[3]) for row in nothing.rows)
    empty = reliability_plot({"a": (np.zeros((2, 15), dtype=np.int64), np.zeros(15))})
    assert all(row[4] == 0 for row in empty.rows)


def test_the_distances_are_the_data():
    plot = distance_plot("hd95", {"crack": {"a": [1.0, 5.0], "b": [2.0]}, "stain": {"b": [0.0]}})
    assert plot.rows == [("a", "crack", 1.0), ("a", "crack", 5.0), ("b", "crack", 2.0), ("b", "stain", 0.0)]
    assert {"crack", "stain", "HD95 (pixels)", "a", "b"} <= set(texts(plot))


def test_failures_stand_on_their_side():
    plot = failure_plot({"a": {"missed": (3, 0), "merge": (2, 1)}, "b": {"spurious": (0, 7)}}, "objects are apples")
    assert plot.caption.endswith("objects are apples.")
    assert plot.rows == [("a", "missed", 3, 0), ("a", "merge", 2, 1), ("b", "spurious", 0, 7)]
    assert {"missed", "spurious", "merge", "split", "swap"} <= set(texts(plot))


@pytest.mark.slow
def test_twelve_models_and_forty_classes():
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 99, (2, 15))
    plots = [
        reliability_plot({name: (pixels, pixels.sum(0) * np.linspace(0.03, 0.97, 15)) for name in MANY}),
        breakdown_plot({name: rng.integers(0, 9, (2, 40, 40)) for name in MANY}),
        distance_plot(
            "assd", {f"class {i}": {name: rng.exponential(9, 5).tolist() for name in MANY} for i in range(39)}
        ),
    ]
    for plot in plots:
        assert len(plot.svg) < 1_200_000
        width, height = plot.figure.get_size_inches()
        assert width < 9
        assert height < 20


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


@pytest.fixture
def plots(tmp_path):
    def draw(**options):
        runs = gather([str(tmp_path / "outputs")])
        models = [one.on_images() for one in models_of(runs, ["name", "fold", "seed"], "encoder.name")]
        places = {model.label: i for i, model in enumerate(models)}
        return image_plots(models, places, options.get("metric", "accuracy"), ScoredOn("val"))

    return draw


def test_all_plots_of_two_models(make_run, add_image_head, plots):
    truth = np.array([0, 0, 1, 2])
    for fold in range(2):
        add_image_head(make_run("a", "a", fold), fold, given=(truth, np.array([RIGHT, WRONG, WRONG, RIGHT])))
        add_image_head(make_run("b", "b", fold), fold, skill=0.5)
    found = plots()
    names = ["image_ranking", "image_per_class", "image_roc", "image_precision_recall"]
    each = [f"image_{kind}_0{model}" for model in ("1_a", "2_b") for kind in ("confusion", "confused")]
    assert list(found) == [*names, *each]
    ranking = {(label, what): value for label, what, value in found["image_ranking"].rows}
    assert ranking["a", "fold 0"] == 50
    assert "accuracy (%)" in texts(found["image_ranking"])
    confusion = found["image_confusion_01_a"]
    assert confusion.rows == [["healthy", 2, 2, 0], ["miner", 0, 2, 0], ["rust", 2, 0, 0]]
    bars = {(label, name): mean for label, name, mean, _ in found["image_per_class"].rows}
    assert bars["a", "healthy"] == pytest.approx(0.5)
    assert bars["a", "rust"] == 0.0
    assert not any("mIoU" in text for plot in found.values() for text in [*texts(plot), plot.caption])
    curve = [(x, y) for label, name, x, y in found["image_roc"].rows if (label, name) == ("a", "healthy")]
    assert curve == [(0, 0), (0.5, 0.5), (1, 1)]  # of 4 with and 4 without the class half are said to have it


def test_a_class_without_a_picture_is_a_row_that_says_so(make_run, add_image_head, plots):
    add_image_head(make_run(), 0, given=(np.zeros(4, dtype=int), np.array([RIGHT] * 4)))
    found = plots()
    (name,) = [name for name in found if name.startswith("image_confusion")]
    assert "no picture of this class" in texts(found[name])
    assert [mean for *_, mean, _ in found["image_per_class"].rows] == [1.0, None, None]
    assert found["image_roc"].rows == []  # every picture is healthy


def test_several_classes_have_no_confusion_matrix(make_run, add_image_head, plots):
    add_image_head(make_run(), 0, several=True)
    assert list(plots(metric="exact_match")) == [
        "image_ranking",
        "image_per_class",
        "image_roc",
        "image_precision_recall",
    ]


def test_without_predictions_only_what_the_stored_scores_tell(make_run, add_image_head, plots):
    (add_image_head(make_run(), 0) / "image_predictions.csv").unlink()
    assert list(plots()) == ["image_ranking", "image_per_class"]
