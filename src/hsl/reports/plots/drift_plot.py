"""How far the pseudo-labels of each round of refinement have moved."""

from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hsl.reports.plots.run_plots import BLUE, GREEN, GREY, ORANGE, STYLE, save_figure

LINES = {
    "miou": ("mean IoU with the round before", BLUE, "o-"),
    "agreement": ("mean IoU with the first labels", ORANGE, "s--"),
    "quality": ("mean quality", GREEN, "^:"),
}


def drift_plot(path: Path, rounds: pd.DataFrame, converged_below: float = 0.15, title: str = "") -> None:
    """Draw the share of changed pixels, and beside it how alike the labels are and what quality they have.

    Args:
        path: the file; its suffix chooses the format.
        rounds: a row for each round, the first for the labels before any refinement: ``round``, ``drift`` (changed
            pixels / pixels), ``miou``, ``agreement``, ``quality``; the first row has a quality only, the rest is NaN.
        converged_below: share of the pixels, drawn as a line.
        title: above the plot.
    """
    numbers = rounds["round"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        _drift(left, rounds[numbers > numbers.min()], converged_below)
        for name, (text, colour, style) in LINES.items():
            right.plot(numbers, rounds[name], style, color=colour, label=text, markersize=5)
        right.set(ylim=(0, 1.03))
        right.yaxis.grid(True)
        for axes in (left, right):
            axes.set(xlabel="round of refinement", xlim=(numbers.min() - 0.3, numbers.max() + 0.3))
            axes.set_xticks(numbers)
        figure.legend(loc="outside lower center", ncols=1 + len(LINES), columnspacing=1.0, handlelength=1.8)
        figure.suptitle(title, fontsize=10)
        save_figure(figure, path)


def _drift(axes: Axes, rounds: pd.DataFrame, converged_below: float) -> None:
    number, percent, bound = rounds["round"], 100 * rounds["drift"], 100 * converged_below
    label = f"converged below {bound:g} %"
    axes.axhline(bound, color=GREY, linestyle=(0, (4, 3)), linewidth=1, label=label)
    axes.plot(number, percent, "o-", color=BLUE, markersize=5)
    for place, value in zip(number, percent, strict=True):
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # the dashed line may run through it
        axes.annotate(f"{value:.1f}", (place, value), (6, 4), textcoords="offset points", bbox=box)
    axes.set(ylim=(0, 1.2 * max(bound, percent.max())), ylabel="changed pixels (%)")
