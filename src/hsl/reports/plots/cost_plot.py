"""Score against cost, with the combinations that none is both better and cheaper than."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure

from hsl.reports.plots.plot_files import REPORT_STYLE, SOFT, Plot
from hsl.reports.plots.score_plots import WIDTH, series_style, settled, short
from hsl.reports.tables.titles import title_of


@dataclass(frozen=True)
class Costed:
    """A model, its score in [0, 1] with the ends of its interval where there is one, and its cost."""

    label: str
    score: float
    interval: tuple[float, float] | None
    cost: float


def pareto_front(models: Sequence[Costed]) -> list[Costed]:
    """Those than which no other is cheaper and at least as good, or as cheap and better; cheapest first.

    >>> [one.label for one in pareto_front([Costed("a", 0.8, None, 2), Costed("b", 0.7, None, 3)])]
    ['a']
    """
    front: list[Costed] = []
    for one in sorted(models, key=lambda each: (each.cost, -each.score)):
        if not front or one.score > front[-1].score:
            front.append(one)
    return front


def cost_plot(models: Sequence[Costed], metric: str, unit: str, name: str) -> Plot:
    """A dot per model with its interval, and a line through the Pareto front.

    Args:
        models: at least one.
        metric: the score.
        unit: of the cost, for the axis.
        name: of the plot.
    """
    front = pareto_front(models)
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([one.cost for one in front], [100 * one.score for one in front], color=SOFT, linewidth=1, zorder=1)
        for i, one in enumerate(models):
            style = series_style(i) | {"linestyle": "none"}
            axes.plot(one.cost, 100 * one.score, ms=6, label=short(one.label), zorder=2, **style)
            if one.interval:
                low, high = one.interval
                axes.vlines(one.cost, 100 * low, 100 * high, color=style["color"], alpha=0.35)
        axes.set_xlabel(unit)
        axes.set_ylabel(title_of(metric))
        axes.grid()
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=7.5)
        settled(figure)
    rows = [(one.label, one.cost, one.score, *(one.interval or (None, None))) for one in models]
    caption = (
        f"{title_of(metric)} of nested predictions with 95 % interval over groups, against {unit}. The line joins "
        "those that none is both cheaper and better than."
    )
    return Plot(name, caption, figure, ("model", unit, metric, "low", "high"), rows)
