"""Plots of an analysis: attention inside the foreground, activations per stage."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hsl.reports.analysis.numbers import ClassAttention, StageActivations
from hsl.reports.plots.run_plots import STYLE, save_figure
from hsl.reports.plots.score_plots import name_rows, series_style, short


def attention_plot(path: Path, found: Mapping[str, Mapping[str, ClassAttention]]) -> None:
    """Bars by class, one for each run; a black line marks what an even heat map would have.

    Args:
        path: the file; its suffix chooses the format.
        found: by run, by class; the classes of all runs are the same.
    """
    classes, thick = list(next(iter(found.values()))), 0.8 / len(found)
    with matplotlib.rc_context(STYLE):
        height = 1.3 + len(classes) * max(0.34, 0.16 * len(found))
        figure = Figure(figsize=(6.4, height), layout="constrained")
        axes = figure.add_subplot()
        for place, (run, by_class) in enumerate(found.items()):
            known = [row for row, name in enumerate(classes) if by_class[name].share is not None]
            y = np.array(known) + thick * (place + 0.5) - 0.4
            shares = np.array([by_class[classes[row]].share for row in known], dtype=float)
            areas = np.array([by_class[classes[row]].area for row in known], dtype=float)
            axes.barh(y, shares, 0.9 * thick, color=series_style(place)["color"], label=short(run))
            label = "the same everywhere (chance)" if place == 0 else "_"  # once in the legend
            axes.vlines(areas, y - thick / 2, y + thick / 2, color="black", linewidth=1.6, label=label)
        name_rows(axes, classes)
        axes.set(xlim=(0, 1), xlabel="share of the attention that lies inside the foreground")
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.xaxis.grid(True)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
        save_figure(figure, path)


def stage_plot(path: Path, found: Mapping[str, Mapping[int, StageActivations]]) -> None:
    """Mean, standard deviation and dead channels over the stages, one line for each run.

    Args:
        path: the file; its suffix chooses the format.
        found: by run, by stride.
    """
    strides = sorted({stride for stages in found.values() for stride in stages})
    titles = ("mean", "standard deviation", "share of dead channels")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 3.2), layout="constrained")
        panels = figure.subplots(1, len(titles))
        for place, (run, stages) in enumerate(found.items()):
            x = [strides.index(stride) for stride in stages]
            for axes, values in zip(panels, _curves(stages), strict=True):
                axes.plot(x, values, markersize=4, label=short(run), **series_style(place))
        for axes, title in zip(panels, titles, strict=True):
            axes.set(title=title, xlabel="stride of the stage")
            axes.set_xticks(range(len(strides)), [str(stride) for stride in strides])
            axes.grid(True)
        for axes in panels[:2]:
            axes.set_yscale("symlog", linthresh=0.1)  # encoders differ by orders of magnitude
        panels[2].set_ylim(-0.02, 1.02)
        panels[2].yaxis.set_major_formatter(PercentFormatter(1))
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
        save_figure(figure, path)


def _curves(stages: Mapping[int, StageActivations]) -> Sequence[list[float]]:
    found = stages.values()
    return [one.mean for one in found], [one.std for one in found], [one.dead_share for one in found]
