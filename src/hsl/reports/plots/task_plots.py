"""Plots of the tasks of networks with several heads. Each function returns a `Plot`, none where there is no data."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hsl.errors import ConfigError
from hsl.reports.models import Model
from hsl.reports.plots.plot_files import INK, REPORT_STYLE, SOFT, Plot
from hsl.reports.plots.score_plots import (
    WIDTH,
    history_points,
    legend_below,
    name_panels,
    series_style,
    settled,
    short,
    shorts,
)
from hsl.reports.statistics.paired_tests import Summary
from hsl.reports.tables.titles import title_of
from hsl.run_folder.run import ScoredOn

PANELS = 3  # side by side


def tasks_of(models: Sequence[Model]) -> list[str]:
    """The tasks of all models, each once."""
    return list(dict.fromkeys(task for model in models for task in model.tasks))


def task_plot(models: Sequence[Model], on: ScoredOn) -> Plot | None:
    """mIoU of every task and model: a polygon per model, bars where there are fewer than three tasks.

    Args:
        models: best first; those without tasks are left out.
        on: part and inference.
    """
    tasks, found = tasks_of(models), _summaries(models, on)
    known = [one.mean for summaries in found.values() for one in summaries.values() if one.num]
    if not known:
        return None
    with matplotlib.rc_context(REPORT_STYLE):
        polar = {"projection": "polar"} if len(tasks) > 2 else None
        figure = Figure(figsize=(WIDTH, 5.4 if polar else 3.2), layout="constrained")
        axes = figure.add_subplot(**polar or {})
        names = shorts(models[i].label for i in found)
        for place, (i, summaries) in enumerate(found.items()):
            means = [100 * summaries[task].mean if task in summaries else math.nan for task in tasks]
            label, style = names[models[i].label], series_style(i)
            if polar:
                _polygon(axes, means, label, style)
            else:
                deviations = [100 * summaries[task].std if task in summaries else math.nan for task in tasks]
                _bars(axes, means, deviations, label, style["color"], (place, len(found)))
        top = min(100, 10 * math.ceil(10 * max(known) + 1e-9))
        if polar:
            _name_spokes(axes, tasks, top)
        else:
            axes.set(ylabel=title_of("miou"), ylim=(0, None))
            axes.set_xticks(range(len(tasks)), tasks)
            axes.grid(axis="y")
        legend_below(figure, len(found))
        settled(figure)
    rows = [
        (models[i].label, task, one.mean if one.num else None, one.std if one.num > 1 else None)
        for i, summaries in found.items()
        for task, one in summaries.items()
    ]
    caption = (
        f"mIoU of every task, {on} inference, mean over folds"
        + (", from 0 in the centre. The area follows the order of the tasks and means nothing." if polar else ".")
        + ("" if polar else " A line is one sample standard deviation to either side.")
    )
    return Plot("task_scores", caption, figure, ("model", "task", "miou_mean", "miou_std"), rows)


def _polygon(axes: Axes, means: Sequence[float], label: str, style: dict[str, Any]) -> None:
    angles = np.linspace(0, 2 * np.pi, len(means), endpoint=False)
    closed = [*means, means[0]]
    axes.plot([*angles, 0], closed, linewidth=1.5, markersize=4.5, label=label, clip_on=False, **style)
    if all(math.isfinite(mean) for mean in means):
        axes.fill([*angles, 0], closed, color=style["color"], alpha=0.06, linewidth=0)


def _name_spokes(axes: Any, tasks: Sequence[str], top: float) -> None:
    axes.set_theta_offset(math.pi / 2)
    axes.set_theta_direction(-1)
    angles = np.linspace(0, 2 * np.pi, len(tasks), endpoint=False)
    axes.set_xticks(angles, tasks)
    for name, angle in zip(axes.get_xticklabels(), angles, strict=True):
        side = round(math.sin(angle), 6)
        name.set_horizontalalignment("center" if side == 0 else "left" if side > 0 else "right")
    axes.set_ylim(0, top)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter("{x:.0f} %")
    axes.set_rlabel_position(180 / len(tasks))  # between two spokes
    axes.tick_params(axis="y", labelsize=7.5)
    axes.spines["polar"].set_visible(False)


def _bars(
    axes: Axes, means: Sequence[float], deviations: Sequence[float], label: str, colour: str, place: tuple[int, int]
) -> None:
    number, of = place
    x = np.arange(len(means)) + 0.8 * ((number + 0.5) / of - 0.5)
    axes.bar(x, means, 0.74 / of, color=colour, label=label)
    axes.errorbar(x, means, deviations, fmt="none", ecolor=INK, elinewidth=1)


def pareto_plot(models: Sequence[Model], on: ScoredOn, chosen: Sequence[str] | None = None) -> Plot | None:
    """mIoU of one task over that of another: which models are beaten in both, and which are the trade-off.

    Args:
        models: best first.
        on: part and inference.
        chosen: two tasks; none: see `pareto_tasks`.

    Raises:
        ConfigError: ``chosen`` names no two tasks of the models.
    """
    pair = pareto_tasks(models, on) if chosen is None else _checked(chosen, tasks_of(models))
    if pair is None:
        return None
    found = _summaries(models, on)
    points = {i: [one[task] for task in pair] for i, one in found.items() if set(pair) <= one.keys()}
    points = {i: both for i, both in points.items() if all(one.num for one in both)}
    if len(points) < 2:
        return None
    means = {i: (both[0].mean, both[1].mean) for i, both in points.items()}
    best = sorted(means[i] for i in means if not _is_beaten(means[i], list(means.values())))
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
        axes = figure.add_subplot()
        front, names = 100 * np.array(best), shorts(models[i].label for i in points)
        axes.step(front[:, 0], front[:, 1], where="pre", color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for i, both in points.items():
            style = {key: value for key, value in series_style(i).items() if key != "linestyle"}
            x, y = (100 * one.mean for one in both)
            errors: Any = {"xerr": 100 * both[0].std, "yerr": 100 * both[1].std}
            axes.errorbar(x, y, **errors, elinewidth=0.8, color=style["color"], alpha=0.6, fmt="none")
            axes.plot([x], [y], markersize=7, linestyle="none", label=names[models[i].label], **style)
        axes.set(xlabel=f"mIoU of {pair[0]} (%)", ylabel=f"mIoU of {pair[1]} (%)")
        axes.grid(True)
        legend_below(figure, len(points))
        settled(figure)
    rows = [
        (models[i].label, *means[i], *[one.std if one.num > 1 else None for one in both], str(means[i] in best))
        for i, both in points.items()
    ]
    caption = (
        f"{pair[0]} against {pair[1]}, {on} inference: mean over folds, one sample standard deviation "
        "to either side. Models on the dashed line are beaten in both tasks by none; the axes do not start at 0."
    )
    columns = ("model", *(f"{task}_{what}" for what in ("mean", "std") for task in pair), "unbeaten")
    return Plot("pareto", caption, figure, columns, rows)


def pareto_tasks(models: Sequence[Model], on: ScoredOn) -> tuple[str, str] | None:
    """The two primary tasks where the models that have two agree on them, else the two whose means differ most."""
    pairs = {tuple(model.primary) for model in models if len(model.primary) == 2}
    if len(pairs) == 1:
        (first, second), *_ = pairs
        return first, second
    found = _summaries(models, on).values()
    means = {task: [one[task].mean for one in found if task in one and one[task].num] for task in tasks_of(models)}
    spread = {task: max(values) - min(values) for task, values in means.items() if values}
    widest = sorted(sorted(spread, key=lambda task: -spread[task])[:2], key=list(spread).index)
    return (widest[0], widest[1]) if len(widest) == 2 else None


def task_curves_plot(models: Sequence[Model]) -> Plot | None:
    """mIoU of every task over the epochs, a panel per task and a line per run."""
    runs = [(i, run) for i, model in enumerate(models) for run in model.finished.values()]
    rows = [
        (task, models[i].label, run.fold, run.seed, epoch, value)
        for task in tasks_of(models)
        for i, run in runs
        for epoch, value in history_points(run.history, f"val/miou/{task}")
    ]
    tasks = list(dict.fromkeys(row[0] for row in rows))
    if len(rows) < 2:
        return None
    columns = min(PANELS, len(tasks))
    lines = math.ceil(len(tasks) / columns)
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(WIDTH, 0.7 + 2.1 * lines), layout="constrained")
        panels = list(figure.subplots(lines, columns, squeeze=False).flat)
        drawn: dict[int, Any] = {}
        for axes, task in zip(panels, tasks, strict=False):
            for i, run in runs:
                points = history_points(run.history, f"val/miou/{task}")
                if not points:
                    continue
                look = series_style(i) | {"marker": series_style(i)["marker"] if len(points) < 3 else None}
                x, y = zip(*points, strict=True)
                (drawn[i],) = axes.plot(x, 100 * np.array(y), linewidth=1.2, markersize=4, **look)
            axes.set_title(short(task, 24))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.grid(True)
        name_panels(panels, len(tasks), columns, "epoch", f"val {title_of('miou')}")
        handles = [drawn[i] for i in sorted(drawn)]
        names = list(shorts(models[i].label for i in sorted(drawn)).values())
        figure.legend(handles, names, loc="outside lower left", ncols=min(3, len(names)), fontsize=8)
        settled(figure)
    caption = (
        "mIoU of every task over epochs, on the validation part: a line per run (every fold and seed). Unlike axes."
    )
    return Plot("task_curves", caption, figure, ("task", "model", "fold", "seed", "epoch", "val_miou"), rows)


def _summaries(models: Sequence[Model], on: ScoredOn) -> dict[int, dict[str, Summary]]:
    """Place of a model that has tasks to the mIoU of each."""
    return {
        i: {task: model.on_task(task).summary("miou", on) for task in model.tasks}
        for i, model in enumerate(models)
        if model.tasks
    }


def _checked(chosen: Sequence[str], tasks: Sequence[str]) -> tuple[str, str] | None:
    names = [str(task) for task in chosen] if not isinstance(chosen, str) else [chosen]
    if len(set(names)) != 2 or len(names) != 2 or not set(names) <= set(tasks):
        raise ConfigError(
            f"`pareto` should name two of the tasks {', '.join(tasks) or '(the runs have none)'}. "
            f"Found `pareto = {names}`."
        )
    return names[0], names[1]


def _is_beaten(point: tuple[float, float], others: Sequence[tuple[float, float]]) -> bool:
    """Whether another is at least as good in both and better in one."""
    return any(other != point and other[0] >= point[0] and other[1] >= point[1] for other in others)
