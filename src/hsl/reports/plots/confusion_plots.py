"""Confusion matrices, and the classes that a model confuses most often."""

from collections.abc import Iterator, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hsl.reports.models import Model
from hsl.reports.plots.palette import SERIES
from hsl.reports.plots.plot_files import REPORT_STYLE, Plot
from hsl.reports.plots.run_plots import draw_confusion
from hsl.reports.plots.score_plots import WIDTH, name_rows, settled, short, shorts, slug
from hsl.run_folder.run import ScoredOn

TOP = 10  # pairs of a panel
LEAST_CLASSES = 3  # with two the matrix says it all
Pair = tuple[int, int]


def confusion_plots(models: Sequence[Model], on: ScoredOn) -> Iterator[Plot | None]:
    """Where the pixels, or pictures, of each class go, and what is confused most; of models of one kind of head.

    The data of the first are counts, rows the truth. Their names hold the place in the ranking, for two labels may give
    one file name.
    """
    for number, model in enumerate(models, start=1):
        matrix, classes = model.pooled_confusion(on), model.classes
        if matrix is None:
            continue
        kind, unit, where = "", "pixel", "counts pooled over the folds present"
        if model.of_images:
            kind, unit, where = "image_", "picture", f"pictures of the folds present, {on.part}"
        figure = settled(draw_confusion(matrix, classes, title=short(model.label), unit=unit))
        rows: list[list[str | float | None]] = [
            [name, *[int(n) for n in row]] for name, row in zip(classes, matrix, strict=True)
        ]
        caption = f"{model.label}, {where}; rows sum to 100 %."
        file = f"{number:02d}_{slug(model.label)}"
        yield Plot(f"{kind}confusion_{file}", caption, figure, ["true class", *classes], rows, on_card=True)
        yield confused_plot(matrix, classes, model.label, f"{kind}confused_{file}", f"{unit}s")


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
        names, totals = shorts(classes, 26), matrix.sum(1)
        pairs = {(t, p): f"{names[classes[t]]} → {names[classes[p]]}" for t, p in [*often, *costly]}
        _bars(panels[0], SERIES[0], [(pairs[i], of_errors[i], f"{_number(wrong[i])} {unit}") for i in often])
        shares = [(i, f"{_number(wrong[i])} of {_number(totals[i[0]])} {unit}") for i in costly]
        _bars(panels[1], SERIES[1], [(pairs[i], of_class[i], told) for i, told in shares])
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


def _bars(axes: Axes, colour: str, rows: Sequence[tuple[str, float, str]]) -> None:
    """A bar for each row: name, share in per cent, and what is written behind it."""
    limit = 1.6 * max(value for _, value, _ in rows)
    axes.barh(range(len(rows)), [value for _, value, _ in rows], 0.66, color=colour)
    for y, (_, value, told) in enumerate(rows):
        text = f"{value:.1f} % ({told})"
        axes.annotate(text, (value, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    name_rows(axes, [name for name, _, _ in rows])
    axes.set_xlim(0, limit)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= min(limit, 100)])
    axes.xaxis.grid(True)


def _number(count: int) -> str:
    return f"{count:,}".replace(",", " ")
