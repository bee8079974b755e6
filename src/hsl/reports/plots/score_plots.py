"""Plots of the scores: ranking, classes, confusion, learning curves. Each function returns a `Plot`."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hsl.reports.models import Model
from hsl.reports.plots.palette import SERIES
from hsl.reports.plots.plot_files import INK, LINE, REPORT_STYLE, SOFT, Plot
from hsl.reports.tables.titles import kind_of, title_of
from hsl.run_folder.run import ScoredOn

WIDTH = 8.4  # inches: the page's column at its usual size
MARKERS = "osD^vPX"
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)))


def series_style(index: int) -> dict[str, Any]:
    """Colour, marker and dash of a model: 7 colours, then the same with the next marker and dash.

    >>> series_style(1)["color"] == series_style(8)["color"], series_style(1)["marker"] == series_style(8)["marker"]
    (True, False)
    """
    turn = index // len(SERIES)
    return {
        "color": SERIES[index % len(SERIES)],
        "marker": MARKERS[(index + turn) % len(MARKERS)],
        "linestyle": DASHES[turn % len(DASHES)],
    }


def short(label: str, length: int = 34) -> str:
    """The ends of a label that is too long for a plot: it begins with the encoder and ends with what differs.

    >>> short("a very long name", 9)
    'a v… name'
    """
    start = length // 3
    return label if len(label) <= length else f"{label[:start]}…{label[start + 1 - length :]}"


def shorts(labels: Iterable[str], length: int = 34) -> dict[str, str]:
    """`short` of the labels of one plot, by label: without the first parts that all share; longer if two look alike.

    >>> shorts(["mit_b0 · lr=0.1", "mit_b0 · lr=0.2"])
    {'mit_b0 · lr=0.1': 'lr=0.1', 'mit_b0 · lr=0.2': 'lr=0.2'}
    """
    parts = {label: label.split(" · ") for label in labels}
    while len(parts) > 1 and len({each[0] for each in parts.values()}) == 1 and min(map(len, parts.values())) > 1:
        parts = {label: each[1:] for label, each in parts.items()}
    names = {label: " · ".join(each) for label, each in parts.items()}
    while len({short(name, length) for name in names.values()}) < len(names):
        length += 1
    return {label: short(name, length) for label, name in names.items()}


def slug(label: str) -> str:
    """A label as part of a file name.

    >>> slug("mit_b0 · lr=0.1")
    'mit_b0-lr-0.1'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("-")[:60] or "model"


def settled(figure: Figure) -> Figure:
    """Lay the figure out once; each of its files would do it again."""
    with matplotlib.rc_context(REPORT_STYLE):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def ranking_plot(models: Sequence[Model], places: Mapping[str, int], metric: str, on: ScoredOn) -> Plot:
    """A row per model: a dot per fold, the mean over folds, and one standard deviation to either side.

    Args:
        models: of one kind of head, best first.
        places: label to the model's place in the order of colours.
        metric: an overall score.
        on: part and inference.
    """
    title, factor = title_of(metric), 100 if kind_of(metric) == "share" else 1
    scored = [(m.label, m.overall(metric, on), m.summary(metric, on)) for m in models]
    rows: list[tuple[str, str, float]] = []
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(WIDTH, 0.8 + 0.36 * max(1, len(scored))), layout="constrained")
        axes = figure.add_subplot()
        for y, (label, per_fold, summary) in enumerate(scored):
            folds = {k: factor * v for k, v in per_fold.items() if not math.isnan(v)}
            mean, std = factor * summary.mean, factor * summary.std
            rows += [(label, f"fold {fold}", value) for fold, value in folds.items()]
            rows += [(label, "mean", mean)] if summary.num else []
            rows += [(label, "sample standard deviation", std)] if summary.num > 1 else []
            colour = series_style(places[label])["color"]
            axes.plot(list(folds.values()), [y] * len(folds), "o", ms=5, color=colour, alpha=0.55, mew=0)
            if summary.num:
                axes.plot([mean, mean], [y - 0.27, y + 0.27], color=colour, linewidth=2.4)
            if summary.num > 1:
                axes.hlines(y, mean - std, mean + std, color=colour, linewidth=6, alpha=0.25)
            axes.annotate(
                _spread(mean, std, summary.num),
                (1.01, y),
                xycoords=("axes fraction", "data"),
                va="center",
                annotation_clip=False,
            )
        name_rows(axes, list(shorts(label for label, _, _ in scored).values()))
        axes.set_xlabel(title)
        axes.grid(axis="x")
        settled(figure)
    caption = (
        f"{title}, {on} inference: a dot per fold, the mean as a bar, one sample standard deviation to "
        "either side. The axis does not start at 0."
    )
    name = f"{'image_' * any(model.of_images for model in models)}ranking"
    return Plot(name, caption, figure, ("model", "what", title), rows)


def class_plot(iou: Mapping[str, Sequence[float]], classes: Sequence[str], part: str) -> Plot:
    """IoU of every class and model, counts pooled over folds, as a heat map.

    Args:
        iou: label of a model to C values in [0, 1]; NaN where the class is not scored.
        classes: C names.
        part: val or test.
    """
    share = 100 * np.array(list(iou.values()), dtype=float).reshape(len(iou), len(classes)).T
    size = (max(3.6, 2.2 + 0.75 * len(iou)), 1.6 + 0.27 * len(classes))
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        colours = matplotlib.colormaps["Blues"].with_extremes(bad="#e4e4e4")
        image = axes.imshow(np.ma.masked_invalid(share), cmap=colours, vmin=0, vmax=100, aspect="auto")
        axes.set_xticks(range(len(iou)), list(shorts(iou).values()), rotation=30, ha="right")
        axes.set_yticks(range(len(classes)), classes)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for row, column in np.argwhere(np.isfinite(share)):
            value = share[row, column]
            colour = "white" if value > 60 else INK
            axes.text(int(column), int(row), f"{value:.1f}", ha="center", va="center", fontsize=7.5, color=colour)
        figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02).set_label(title_of("iou"))
        settled(figure)
    rows = [
        (label, name, None if math.isnan(value) else value)
        for label, values in iou.items()
        for name, value in zip(classes, values, strict=True)
    ]
    caption = f"IoU (%) of every class, {part}, counts pooled over folds; grey = in neither truth nor prediction."
    return Plot("per_class", caption, figure, ("model", "class", "iou"), rows, on_card=True)


def curves_plot(models: Sequence[Model]) -> Plot | None:
    """The monitored value of every run over its epochs; none when runs monitored different values."""
    runs = [(i, run) for i, model in enumerate(models) for run in model.finished.values() if run.history]
    names = {run.metrics.monitor.name for _, run in runs if run.metrics}
    if len(names) != 1 or not all(names <= run.history.keys() for _, run in runs):
        return None
    (name,) = names
    rows = [
        (models[i].label, run.fold, run.seed, epoch, value)
        for i, run in runs
        for epoch, value in history_points(run.history, name)
    ]
    if len(rows) < 2:
        return None
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
        axes = figure.add_subplot()
        labels, named = shorts(model.label for model in models), set[int]()
        for i, run in runs:
            points = history_points(run.history, name)
            style = series_style(i)
            label = "" if i in named else labels[models[i].label]
            marker = {
                "marker": style["marker"],
                "markersize": 5,
                "color": style["color"],
                "linestyle": style["linestyle"],
            }
            epoch = run.metrics.monitor.epoch + 1 if run.metrics else None
            kept = [k for k, (at, _) in enumerate(points) if at == epoch]
            axes.plot(*zip(*points, strict=True) if points else ([], []), linewidth=1.2, markevery=kept, **marker)
            if label:
                axes.plot([], [], label=label, linewidth=1.2, **marker)
                named.add(i)
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(True)
        legend_below(figure, len(named))
        settled(figure)
    caption = f"{name} over epochs: a line per run (every fold and seed), a mark at the epoch that was kept."
    return Plot("curves", caption, figure, ("model", "fold", "seed", "epoch", name), rows)


def legend_below(figure: Figure, number: int) -> None:
    """The figure's legend under it, in as many columns as fit."""
    if number:
        figure.legend(loc="outside lower left", ncols=min(3, number), fontsize=8)


def _spread(mean: float, std: float, number: int) -> str:
    if not number:
        return "no mean over folds"
    return f"{mean:.2f} ± {std:.2f}" if number > 1 else f"{mean:.2f}"


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names at the left, first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.hlines(np.arange(len(names)), 0, 1, transform=axes.get_yaxis_transform(), color=LINE, linewidth=0.5, zorder=0)
    axes.spines["bottom"].set_color(SOFT)


def name_panels(panels: Sequence[Axes], used: int, columns: int, x: str, y: str) -> None:
    """Axis names where a row or column of small plots begins or ends; those after the ``used`` first are hidden."""
    for place, axes in enumerate(panels):
        axes.set_visible(place < used)
        axes.set_xlabel(x if place + columns >= used else "")
        axes.set_ylabel("" if place % columns else y)


def history_points(history: Mapping[str, Sequence[float]], name: str) -> list[tuple[float, float]]:
    """Epochs, from 1, and finite values of a column of ``history.csv``; empty without it."""
    if name not in history:
        return []
    epochs = history.get("epoch", range(len(history[name])))
    pairs = zip(epochs, history[name], strict=True)
    return [(epoch + 1, value) for epoch, value in pairs if math.isfinite(epoch) and math.isfinite(value)]
