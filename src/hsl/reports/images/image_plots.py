"""Plots of the image heads: ranking, classes, confusion, curves over the threshold. Each function returns a `Plot`."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from hsl.reports.images.model_scores import head_of, image_overall, image_scores, image_summary
from hsl.reports.models import Model, pooled_over
from hsl.reports.plots.confused_plot import confused_plot
from hsl.reports.plots.plot_files import INK, REPORT_STYLE, SOFT, Plot
from hsl.reports.plots.run_plots import draw_confusion
from hsl.reports.plots.score_plots import (
    WIDTH,
    legend_below,
    name_panels,
    series_style,
    settled,
    short,
    shorts,
    slug,
    spread_plot,
)
from hsl.reports.statistics.paired_tests import Summary, mean_std
from hsl.reports.tables.titles import title_of
from hsl.run_folder.image_predictions import ImagePictures
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
    where = f"{on} inference"
    scored = [
        (
            places[model.label],
            model.label,
            image_overall(model, metric, on),
            image_summary(model, metric, on),
        )
        for model in models
    ]
    plots: list[Plot | None] = [spread_plot("image_ranking", scored, title_of(metric), where)]
    plots.append(image_class_plot(models, places, on))
    plots += [threshold_plot(kind, models, places, on) for kind in ("roc", "precision_recall")]
    for i, model in enumerate(models):
        plots += image_confusion_plots(model, i, on)
    return {plot.name: plot for plot in plots if plot is not None}


def image_class_plot(models: Sequence[Model], places: Mapping[str, int], on: ScoredOn) -> Plot | None:
    """F1 of every class as a bar per model, of the models that share the first one's classes."""
    head = head_of(models[0])
    shown = {model.label: _f1(model, on) for model in models if head and head_of(model) == head}
    shown = {label: values for label, values in shown.items() if any(one.num for one in values)}
    if head is None or not shown:
        return None
    with matplotlib.rc_context(REPORT_STYLE):
        thick = 0.8 / len(shown)
        figure = Figure(figsize=(WIDTH, 1.2 + len(head.classes) * max(0.3, 0.16 * len(shown))), layout="constrained")
        axes = figure.add_subplot()
        names = shorts(shown)
        for row, (label, values) in enumerate(shown.items()):
            y = np.arange(len(head.classes)) + thick * (row + 0.5) - 0.4
            means = [100 * one.mean for one in values]
            axes.barh(y, means, 0.92 * thick, color=series_style(places[label])["color"], label=names[label])
            spread = [100 * one.std for one in values]
            axes.errorbar(means, y, xerr=spread, fmt="none", ecolor=INK, elinewidth=1)
        axes.set_yticks(range(len(head.classes)), head.classes)
        axes.set(xlabel=title_of("f1"), xlim=(0, 101), ylim=(len(head.classes) - 0.4, -0.6))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        legend_below(figure, len(shown))
        settled(figure)
    rows = [
        (label, name, one.mean if one.num else None, one.std if one.num > 1 else None)
        for label, values in shown.items()
        for name, one in zip(head.classes, values, strict=True)
    ]
    caption = (
        f"F1 of every class of the image heads, {on} inference: mean over folds, a line of one sample "
        "standard deviation to either side. No bar: the class is in neither truth nor prediction."
    )
    return Plot("image_per_class", caption, figure, ("model", "class", "f1_mean", "f1_std"), rows)


def image_confusion_plots(model: Model, number: int, on: ScoredOn) -> list[Plot | None]:
    """Where the pictures of each class go, and what is confused most; none for several classes per picture.

    The data of the first are counts, rows the truth.

    Args:
        model: with an image head.
        number: its place in the ranking, from 0: two labels may give one file name.
        on: part and inference.
    """
    head = head_of(model)
    found = model.per_fold(lambda run: _confusion(run.image_pictures.get(on)))
    if head is None or model.refused or not found:
        return []
    matrix = pooled_over(found)
    figure = settled(draw_confusion(matrix, head.classes, title=short(model.label), unit="picture"))
    rows: list[list[str | float | None]] = [
        [name, *[int(n) for n in row]] for name, row in zip(head.classes, matrix, strict=True)
    ]
    caption = f"{model.label}, pictures of the folds present, {on.part}; rows sum to 100 %."
    file = f"{number + 1:02d}_{slug(model.label)}"
    whole = Plot(f"image_confusion_{file}", caption, figure, ["true class", *head.classes], rows, on_card=True)
    return [whole, confused_plot(matrix, head.classes, model.label, f"image_confused_{file}", "pictures")]


def threshold_plot(kind: str, models: Sequence[Model], places: Mapping[str, int], on: ScoredOn) -> Plot | None:
    """ROC or precision-recall curve of every class against all others: a panel per class, a line per model.

    Args:
        kind: ``roc`` or ``precision_recall``.
        models: best first; shown are those that share the first one's classes and left their predictions.
        places: label to the model's place in the order of colours.
        on: part and inference.
    """
    head = head_of(models[0])
    pictures = {model.label: _all_pictures(model, on) for model in models if head_of(model) == head is not None}
    pictures = {label: found for label, found in pictures.items() if found}
    if head is None or len(head.classes) > MANY or not pictures:
        return None
    x, y, curve = _KINDS[kind]
    rows: list[tuple[str, str, float, float]] = []
    columns = min(PANELS, len(head.classes))
    lines = math.ceil(len(head.classes) / columns)
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(WIDTH, 0.8 + 2.5 * lines), layout="constrained")
        panels = list(figure.subplots(lines, columns, squeeze=False).flat)
        names = shorts(pictures)
        for i, (axes, name) in enumerate(zip(panels, head.classes, strict=False)):
            for label, found in pictures.items():
                points = curve(*_class_column(found, i))
                style = {key: value for key, value in series_style(places[label]).items() if key != "marker"}
                axes.plot(*points, linewidth=1.3, label=names[label] if i == 0 else None, **style)
                rows += [(label, name, *point) for point in zip(*points, strict=True)]
            axes.set(title=short(name, 26), xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
            if kind == "roc":
                axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=(0, (2, 3)))
            axes.grid(True)
        name_panels(panels, len(head.classes), columns, x, y)
        legend_below(figure, len(pictures))
        settled(figure)
    caption = (
        f"{y.capitalize()} over {x} as the threshold on the probability of a class falls, {on} "
        "inference: the pictures of all folds together, each with the probability of the model of its fold."
    )
    return Plot(f"image_{kind}", caption, figure, ("model", "class", x, y), rows)


def _f1(model: Model, on: ScoredOn) -> list[Summary]:
    folds = [] if model.refused else list(image_scores(model, on).values())
    head = head_of(model)
    return [
        mean_std([mean_std([float(one.per_class["f1"][i]) for one in seeds]).mean for seeds in folds])
        for i in range(len(head.classes) if head else 0)
    ]


def _confusion(pictures: ImagePictures | None) -> Any:
    return None if pictures is None else pictures.confusion


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
