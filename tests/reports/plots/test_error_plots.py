import re

import numpy as np
import pytest

from hsl.reports.plots.error_plots import breakdown_plot, distance_plot, failure_plot, reliability_plot

MANY = [f"a model with a long name {i}" for i in range(12)]


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
