"""The chart of the classes that a model confuses most often."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hsl.reports.palette import SERIES
from hsl.reports.plot_files import REPORT_STYLE, Plot
from hsl.reports.score_plots import WIDTH, name_rows, settled, short

TOP = 10  # pairs of a panel
LEAST_CLASSES = 3  # with two the matrix says it all
Pair = tuple[int, int]


def confused_plot(
    matrix: NDArray[np.int64], classes: Sequence[str], label: str, name: str, unit: str = "pixels"
) -> Plot | None:
    """The pairs of classes (true, predicted) that make most errors, and those that cost a class most of its own.

    Args:
        matrix: ``(C, C)`` counts, rows the truth.
        classes: C names.
        label: the model.
        name: of the plot.
        unit: what was counted.

    Returns:
        None for two classes, and where nothing is confused.
    """
    wrong = matrix * ~np.eye(len(classes), dtype=bool)
    if len(classes) < LEAST_CLASSES or not wrong.any():
        return None
    of_errors = 100 * wrong / wrong.sum()
    of_class = 100 * wrong / np.maximum(matrix.sum(1, keepdims=True), 1)
    often, costly = top_pairs(of_errors), top_pairs(of_class)
    with matplotlib.rc_context(REPORT_STYLE):
        height = 1.5 + 0.3 * (len(often) + len(costly))
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        panels = figure.subplots(2, 1, height_ratios=(len(often) + 0.4, len(costly) + 0.4))
        _bars(panels[0], often, of_errors, classes, SERIES[0], wrong, unit)
        _bars(panels[1], costly, of_class, classes, SERIES[1], wrong, unit)
        panels[0].set(title=short(label), xlabel=f"share of all wrong {unit} (%)")
        panels[1].set(xlabel=f"share of the {unit} of the true class (%)")
        settled(figure)
    rows = [
        (classes[t], classes[p], int(wrong[t, p]), float(of_errors[t, p]), float(of_class[t, p]))
        for t, p in dict.fromkeys([*often, *costly])
    ]
    caption = (
        f"{label}: what is taken for what most often, counts pooled over the folds present; true class → predicted "
        f"class, with the number of {unit}. Above the {len(often)} pairs that make most of all errors, below the "
        f"{len(costly)} that cost a class most of its own {unit}."
    )
    columns = ("true class", "predicted class", unit, "percent_of_errors", "percent_of_true_class")
    return Plot(name, caption, figure, columns, rows)


def top_pairs(share: NDArray[np.float64]) -> list[Pair]:
    """The (true, predicted) pairs of the largest shares, at most ``TOP``, largest first; of equal ones the first.

    >>> top_pairs(np.array([[0.0, 2.0], [5.0, 0.0]]))
    [(1, 0), (0, 1)]
    """
    order = np.argsort(-share, axis=None, kind="stable")[:TOP]
    return [(int(t), int(p)) for t, p in zip(*np.unravel_index(order, share.shape), strict=True) if share[t, p] > 0]


def _bars(
    axes: Axes,
    pairs: Sequence[Pair],
    share: NDArray[np.float64],
    classes: Sequence[str],
    colour: str,
    counts: NDArray[np.int64],
    unit: str,
) -> None:
    values = [float(share[pair]) for pair in pairs]
    axes.barh(range(len(pairs)), values, 0.66, color=colour)
    for y, (pair, value) in enumerate(zip(pairs, values, strict=True)):
        text = f"{value:.1f} % ({counts[pair]:,} {unit})".replace(",", " ")
        axes.annotate(text, (value, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    name_rows(axes, [f"{short(classes[t], 26)} → {short(classes[p], 26)}" for t, p in pairs])
    axes.set_xlim(0, max(values) * 1.35)
    axes.xaxis.grid(True)
