"""Plots of a study. Each function returns a `Plot`."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from hsl.reports.plots.palette import SERIES
from hsl.reports.plots.plot_files import INK, REPORT_STYLE, SOFT, Plot
from hsl.reports.plots.score_plots import WIDTH, settled
from hsl.verbs.study.pages.importance import Importance
from hsl.verbs.study.stored_study import StoredStudy

COLUMNS = 3
MARKS = {TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def history_plot(trials: Sequence[FrozenTrial], stored: StoredStudy) -> Plot:
    """Value of each complete trial and the best so far; pruned and failed ones at the lower edge."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    numbers, values = [trial.number for trial in complete], [trial.values[0] for trial in complete]
    sign = 1 if stored.mode == "max" and stored.objectives[0] == "score" else -1
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        axes = figure.add_subplot()
        if values:
            best = sign * np.maximum.accumulate(sign * np.array(values))
            axes.step(numbers, best, where="post", color=SERIES[0], linewidth=1.4, label="best so far")
            axes.plot(numbers, values, "o", color=INK, markersize=4, label="complete")
        for i, (state, name) in enumerate(MARKS.items()):
            ended = [trial.number for trial in trials if trial.state == state]
            if ended:
                axes.plot(
                    ended, [0.03] * len(ended), "x+"[i], color=SOFT, transform=axes.get_xaxis_transform(), label=name
                )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="trial", ylabel=_first(stored))
        axes.grid()
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=7.5)
        settled(figure)
    rows = [(str(trial.number), trial.state.name.lower(), *(trial.values or [None])[:1]) for trial in trials]
    return Plot(
        "history", "Value of each trial in their order, and the best so far.", figure, ("trial", "state", "value"), rows
    )


def importance_plot(found: Importance) -> Plot:
    """A bar per dimension with its spread."""
    keys = sorted(found.means, key=lambda key: found.means[key])
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(WIDTH, 0.8 + 0.35 * len(keys)), layout="constrained")
        axes = figure.add_subplot()
        means, deviations = [found.means[key] for key in keys], [found.deviations[key] for key in keys]
        axes.barh(keys, means, xerr=deviations, color=SERIES[0], ecolor=INK, height=0.6)
        axes.set(xlabel="share of the variation", xlim=(0, None))
        settled(figure)
    rows = [(key, found.means[key], found.deviations[key]) for key in reversed(keys)]
    return Plot("importance", "How much each dimension mattered; the line is one standard deviation.", figure,
                ("dimension", "mean", "deviation"), rows)  # fmt: skip


def slice_plot(complete: Sequence[FrozenTrial], stored: StoredStudy) -> Plot:
    """The value against each dimension alone."""
    keys = list(stored.space)
    lines = math.ceil(len(keys) / COLUMNS)
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(WIDTH, 2.6 * lines), layout="constrained")
        panels = figure.subplots(lines, min(COLUMNS, len(keys)), squeeze=False).ravel()
        for axes, key in zip(panels, keys, strict=False):
            shown = [trial for trial in complete if key in trial.params]
            axes.plot(
                [_place(trial, key) for trial in shown],
                [trial.values[0] for trial in shown],
                "o",
                color=SERIES[0],
                markersize=4,
            )
            _axis_of(axes.xaxis, stored, key)
            axes.set_xlabel(key)
            axes.grid()
        for axes in panels[len(keys) :]:
            axes.set_visible(False)
        panels[0].set_ylabel(_first(stored))
        settled(figure)
    rows = [
        (str(trial.number), key, str(trial.params[key]), trial.values[0]) for trial in complete for key in trial.params
    ]
    return Plot(
        "slices",
        "Value of the complete trials against each dimension.",
        figure,
        ("trial", "dimension", "at", "value"),
        rows,
    )


def parallel_plot(complete: Sequence[FrozenTrial], stored: StoredStudy) -> Plot:
    """A line per complete trial through its point; the darker, the better."""
    keys = list(stored.space)
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for rank, trial in reversed(list(enumerate(complete))):
            heights = [_height(trial, stored, key) for key in keys]
            strength = 1 - rank / max(1, len(complete))
            axes.plot(
                range(len(keys)),
                heights,
                color=SERIES[0],
                alpha=0.15 + 0.85 * strength**2,
                linewidth=1.2,
                marker="o",
                markersize=3,
            )
        for place, key in enumerate(keys):
            low, high = _ends(stored, key)
            axes.annotate(low, (place, -0.04), ha="center", va="top", fontsize=7, annotation_clip=False)
            axes.annotate(high, (place, 1.04), ha="center", va="bottom", fontsize=7, annotation_clip=False)
        axes.set(xticks=range(len(keys)), xticklabels=keys, yticks=(), ylim=(-0.15, 1.15), xlim=(-0.5, len(keys) - 0.5))
        axes.tick_params(axis="x", length=0, pad=6)
        settled(figure)
    rows = [
        (str(rank + 1), str(trial.number), key, str(trial.params.get(key)))
        for rank, trial in enumerate(complete)
        for key in keys
    ]
    caption = "A line per complete trial through its values, the darker the better; low values below."
    return Plot("parallel_coordinates", caption, figure, ("rank", "trial", "dimension", "at"), rows)  # fmt: skip


def front_plot(complete: Sequence[FrozenTrial], front: Sequence[FrozenTrial], stored: StoredStudy) -> Plot:
    """The first two objectives against each other, with those trials that none is better than in all of them."""
    best = sorted(front, key=lambda trial: trial.values[1])
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([t.values[1] for t in complete], [t.values[0] for t in complete], "o", color=SOFT, markersize=4)
        axes.plot(
            [t.values[1] for t in best], [t.values[0] for t in best], "o-", color=SERIES[0], markersize=5, linewidth=1.2
        )
        for trial in best:
            axes.annotate(f" {trial.number}", (trial.values[1], trial.values[0]), fontsize=7, color=INK)
        axes.set(xlabel=stored.objectives[1], ylabel=_first(stored))
        axes.grid()
        settled(figure)
    chosen = {trial.number for trial in best}
    rows = [(str(t.number), "yes" if t.number in chosen else "no", *t.values[:2]) for t in complete]
    caption = "The line joins the trials, by number, that no other is better than in every objective."
    return Plot("pareto_front", caption, figure,
                ("trial", "on_front", *stored.objectives[:2]), rows)  # fmt: skip


def _first(stored: StoredStudy) -> str:
    return stored.monitor if stored.objectives[0] == "score" else stored.objectives[0]


def _place(trial: FrozenTrial, key: str) -> Any:
    drawn = trial.distributions[key]
    return (
        drawn.to_internal_repr(trial.params[key]) if isinstance(drawn, CategoricalDistribution) else trial.params[key]
    )


def _axis_of(axis: Any, stored: StoredStudy, key: str) -> None:
    one = stored.space[key]
    if one["choices"]:
        axis.set_ticks(range(len(one["choices"])), [str(choice) for choice in one["choices"]], fontsize=7)
    elif one["log"]:
        axis.axes.set_xscale("log")
        axis.set_major_locator(LogLocator(numticks=4))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _height(trial: FrozenTrial, stored: StoredStudy, key: str) -> float:
    """0 at the lower end of a dimension, 1 at the upper one; NaN where the trial does not have it."""
    if key not in trial.params:
        return math.nan
    one = stored.space[key]
    if one["choices"]:
        return float(_place(trial, key)) / max(1, len(one["choices"]) - 1)
    low, high, value = (float(each) for each in (one["low"], one["high"], trial.params[key]))
    if one["log"]:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def _ends(stored: StoredStudy, key: str) -> tuple[str, str]:
    one = stored.space[key]
    if one["choices"]:
        return str(one["choices"][0]), str(one["choices"][-1])
    return f"{one['low']:.3g}", f"{one['high']:.3g}"
