"""Plots of the image heads: ranking, classes, confusion, curves over the threshold. Each function returns a `Plot`."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from hsl.reports.models import Model
from hsl.reports.plots.confusion_plots import confusion_plots
from hsl.reports.plots.plot_files import INK, REPORT_STYLE, SOFT, Plot
from hsl.reports.plots.score_plots import (
    WIDTH,
    legend_below,
    name_panels,
    ranking_plot,
    series_style,
    settled,
    short,
    shorts,
)
from hsl.reports.tables.titles import title_of
from hsl.run_folder.pictures import ImagePictures
from hsl.run_folder.run import ScoredOn

PANELS, MANY = 3, 12  # plots side by side; with more classes there are no curves
POINTS = 400  # of a curve, at most

Curve = tuple[list[float], list[float]]


def image_plots(models: Sequence[Model], places: Mapping[str, int], metric: str, on: ScoredOn) -> dict[str, Plot]:
    """Name to plot; one whose data no run left is absent.

    Args:
        models: those with image heads and finished runs, best first.
        places: label to the model's place in the order of colours.
        metric: the score that ranks.
        on: part and inference.
    """
    if not models:
        return {}
    plots: list[Plot | None] = [ranking_plot(models, places, metric, on), f1_plot(models, places, on)]
    plots += [threshold_plot(kind, models, places, on) for kind in ("roc", "precision_recall")]
    plots += confusion_plots(models, on)
    return {plot.name: plot for plot in plots if plot is not None}


def f1_plot(models: Sequence[Model], places: Mapping[str, int], on: ScoredOn) -> Plot | None:
    """F1 of every class as a bar per model, of the models that share the first one's classes."""
    alike, classes = _alike(models), models[0].classes
    shown = {model.label: model.class_summaries("f1", on) for model in alike}
    shown = {label: values for label, values in shown.items() if any(one.num for one in values)}
    if not shown:
        return None
    with matplotlib.rc_context(REPORT_STYLE):
        thick = 0.8 / len(shown)
        figure = Figure(figsize=(WIDTH, 1.2 + len(classes) * max(0.3, 0.16 * len(shown))), layout="constrained")
        axes = figure.add_subplot()
        names = shorts(shown)
        for row, (label, values) in enumerate(shown.items()):
            y = np.arange(len(classes)) + thick * (row + 0.5) - 0.4
            means = [100 * one.mean for one in values]
            axes.barh(y, means, 0.92 * thick, color=series_style(places[label])["color"], label=names[label])
            spread = [100 * one.std for one in values]
            axes.errorbar(means, y, xerr=spread, fmt="none", ecolor=INK, elinewidth=1)
        axes.set_yticks(range(len(classes)), classes)
        axes.set(xlabel=title_of("f1"), xlim=(0, 101), ylim=(len(classes) - 0.4, -0.6))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        legend_below(figure, len(shown))
        settled(figure)
    rows = [
        (label, name, one.mean if one.num else None, one.std if one.num > 1 else None)
        for label, values in shown.items()
        for name, one in zip(classes, values, strict=True)
    ]
    caption = (
        f"F1 of every class of the image heads, {on} inference: mean over folds, a line of one sample "
        "standard deviation to either side. No bar: the class is in neither truth nor prediction."
    )
    return Plot("image_per_class", caption, figure, ("model", "class", "f1_mean", "f1_std"), rows)


def threshold_plot(kind: str, models: Sequence[Model], places: Mapping[str, int], on: ScoredOn) -> Plot | None:
    """ROC or precision-recall curve of every class against all others: a panel per class, a line per model.

    Args:
        kind: ``roc`` or ``precision_recall``.
        models: best first; shown are those that share the first one's classes and left their predictions.
        places: label to the model's place in the order of colours.
        on: part and inference.
    """
    classes = models[0].classes
    pictures = {model.label: _all_pictures(model, on) for model in _alike(models)}
    pictures = {label: found for label, found in pictures.items() if found}
    if len(classes) > MANY or not pictures:
        return None
    x, y, curve = _KINDS[kind]
    rows: list[tuple[str, str, float, float]] = []
    columns = min(PANELS, len(classes))
    lines = math.ceil(len(classes) / columns)
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(WIDTH, 0.8 + 2.5 * lines), layout="constrained")
        panels = list(figure.subplots(lines, columns, squeeze=False).flat)
        names = shorts(pictures)
        for i, (axes, name) in enumerate(zip(panels, classes, strict=False)):
            for label, found in pictures.items():
                points = curve(*_class_column(found, i))
                style = {key: value for key, value in series_style(places[label]).items() if key != "marker"}
                axes.plot(*points, linewidth=1.3, label=names[label] if i == 0 else None, **style)
                rows += [(label, name, *point) for point in zip(*points, strict=True)]
            axes.set(title=short(name, 26), xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
            if kind == "roc":
                axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=(0, (2, 3)))
            axes.grid(True)
        name_panels(panels, len(classes), columns, x, y)
        legend_below(figure, len(pictures))
        settled(figure)
    caption = (
        f"{y.capitalize()} over {x} as the threshold on the probability of a class falls, {on} "
        "inference: the pictures of all folds together, each with the probability of the model of its fold."
    )
    return Plot(f"image_{kind}", caption, figure, ("model", "class", x, y), rows)


def _alike(models: Sequence[Model]) -> list[Model]:
    """Those whose classes are those of the first."""
    return [m for m in models if (m.classes, m.several) == (models[0].classes, models[0].several)]


def _all_pictures(model: Model, on: ScoredOn) -> list[ImagePictures]:
    """Of all folds; none when refused."""
    found = {} if model.refused else model.per_fold(lambda run: run.image_pictures.get(on))
    return [one for seeds in found.values() for one in seeds]


def _class_column(pictures: Sequence[ImagePictures], place: int) -> tuple[Any, Any]:
    """Truth and probability of one class, of the pictures whose labels are known."""
    target = np.concatenate([one.target[:, place] for one in pictures])
    probability = np.concatenate([one.probabilities[:, place] for one in pictures])
    known = np.isfinite(target) & np.isfinite(probability)
    return target[known] == 1, probability[known]


def _roc(true: Any, probability: Any) -> Curve:
    if not true.any() or true.all():
        return [], []
    found = roc_curve(true, probability)
    return _thinned(found[0], found[1])


def _precision_recall(true: Any, probability: Any) -> Curve:
    if not true.any():
        return [], []
    precision, recall, _ = precision_recall_curve(true, probability)
    return _thinned(recall, precision)


def _thinned(x: Any, y: Any) -> Curve:
    kept = np.unique(np.linspace(0, len(x) - 1, min(POINTS, len(x))).round().astype(int))
    return x[kept].tolist(), y[kept].tolist()


_KINDS: dict[str, tuple[str, str, Callable[[Any, Any], Curve]]] = {
    "roc": ("false positive rate", "true positive rate", _roc),
    "precision_recall": ("recall", "precision", _precision_recall),
}
