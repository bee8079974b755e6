"""Plots of the errors: calibration, error breakdown, distances, failed objects. Each function returns a `Plot`."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter, ScalarFormatter
from numpy.typing import NDArray

from hsl.metrics.pixels.formulas import KINDS, PLACES, error_breakdown
from hsl.reports.plots.palette import SERIES
from hsl.reports.plots.plot_files import INK, REPORT_STYLE, SOFT, Plot
from hsl.reports.plots.score_plots import WIDTH, legend_below, name_rows, series_style, settled, short, shorts

FAILURES = ("missed", "spurious", "merge", "split", "swap")
PANELS = 4  # side by side


def reliability_plot(bins: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]]) -> Plot:
    """Accuracy over confidence in equal-width bins, and how many pixels each bin holds.

    Args:
        bins: label of a model to its wrong and right pixels ``(2, M)`` and the sum of their top probabilities
            ``(M,)`` in M bins.
    """
    rows: list[tuple[str, int, float | None, float | None, float]] = []
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(5.6, 6.0), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
        below.set_yscale("log")
        above.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
        names = shorts(bins)
        for i, (label, (pixels, confidence)) in enumerate(bins.items()):
            total = pixels.sum(axis=0)
            used, number = total > 0, max(1, int(total.sum()))
            means, right = (
                np.divide(sums, total, out=np.full(len(total), np.nan), where=used)
                for sums in (confidence, pixels[1].astype(float))
            )
            ece = float(np.abs(pixels[1] - confidence).sum() / number)
            text = f"{names[label]}: ECE {100 * ece:.2f} %"
            above.plot(means[used], right[used], markersize=4.5, linewidth=1.4, label=text, **series_style(i))
            edges = np.linspace(0, 1, len(total) + 1)
            style = {key: value for key, value in series_style(i).items() if key != "marker"}
            if used.any():  # a logarithmic axis has no room for nothing
                below.stairs(total / number * 100, edges, linewidth=1.4, **style)
            for m in range(len(total)):
                value = (float(means[m]), float(right[m])) if used[m] else (None, None)
                rows.append((label, m + 1, *value, float(total[m] / number)))
        above.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of right pixels")
        below.set(xlabel="confidence (top probability)", ylabel="pixels (%)")
        below.set_ylim(100 * min((row[4] for row in rows if row[4] > 0), default=1e-4) / 1.5, 130)
        below.yaxis.set_major_formatter(ScalarFormatter())
        below.yaxis.set_minor_formatter(NullFormatter())
        for axes in (above, below):
            axes.grid(True)
        figure.legend(loc="outside lower left", ncols=1 if len(bins) < 5 else 2, fontsize=8)
        settled(figure)
    caption = (
        "Reliability: share of right pixels in 15 bins of the top probability, and below how many pixels each bin "
        "holds (logarithmic). On the dashed line confidence means what it says; below it the model is too sure."
    )
    return Plot("reliability", caption, figure, ("model", "bin", "confidence", "accuracy", "share_of_pixels"), rows)


def breakdown_plot(matrices: Mapping[str, NDArray[np.int64]]) -> Plot:
    """What the wrong pixels are, as stacked bars.

    Args:
        matrices: label of a model to its confusion matrices ``(2, C, C)`` of interior and boundary pixels.
    """
    shares = {
        label: {name: 100 * float(value) for name, value in error_breakdown(pair).items()}
        for label, pair in matrices.items()
    }
    rows = [
        (label, kind, place, found[f"error_{kind}_{place}"])
        for label, found in shares.items()
        for kind in KINDS
        for place in PLACES
    ]
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(WIDTH, 1.15 + 0.38 * len(shares)), layout="constrained")
        axes = figure.add_subplot()
        handles: list[Patch] = []
        left = np.zeros(len(shares))
        for kind, colour in zip(KINDS, (SERIES[0], SERIES[1], SERIES[4]), strict=True):
            for place in PLACES:
                values = np.array([found[f"error_{kind}_{place}"] for found in shares.values()])
                style: dict[str, Any] = {"facecolor": colour, "edgecolor": "white", "linewidth": 0.6}
                if place == "boundary":
                    style["hatch"] = "////"
                axes.barh(np.arange(len(shares)), values, 0.66, left=left, **style)
                handles.append(Patch(label=f"{kind}, {place}", **style))
                left += np.nan_to_num(values)
        for y, total in enumerate(left):
            axes.annotate(f"{total:.2f}", (1.01, y), xycoords=("axes fraction", "data"), va="center")
        name_rows(axes, list(shorts(shares).values()))
        axes.set(xlabel="wrong pixels (% of the valid ones); at the right their sum, 100 − pixel accuracy")
        axes.set_xlim(0, max(float(left.max(initial=0.0)) * 1.02, 1e-9))
        figure.legend(handles=handles, loc="outside lower left", ncols=3, fontsize=8)
        settled(figure)
    caption = (
        "Error breakdown, counts pooled: background = foreground predicted on background, missed = the reverse, "
        "classification = both foreground but unlike. Hatched: within d of a contour of the truth (2 % of the "
        "picture's diagonal)."
    )
    return Plot("errors", caption, figure, ("model", "kind", "place", "percent_of_valid_pixels"), rows)


def distance_plot(name: str, values: Mapping[str, Mapping[str, Sequence[float]]]) -> Plot:
    """How a surface distance is distributed over the pictures, a panel per class.

    Args:
        name: ``hd95`` or ``assd``.
        values: class to label of a model to the distances in pixels of the pictures that score the class.
    """
    num_rows = -(-len(values) // PANELS)
    labels = list(dict.fromkeys(label for models in values.values() for label in models))
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(WIDTH, 0.5 + 1.75 * max(1, num_rows)), layout="constrained")
        panels = figure.subplots(
            max(1, num_rows), min(PANELS, max(1, len(values))), squeeze=False, sharex=True, sharey=True
        )
        for axes in panels.flat[len(values) :]:
            axes.set_visible(False)
        for axes, (title, models) in zip(panels.flat, values.items(), strict=False):
            for label, distances in models.items():
                style = {key: value for key, value in series_style(labels.index(label)).items() if key != "marker"}
                if len(distances):
                    axes.ecdf(distances, linewidth=1.4, **style)
            axes.set_title(short(title, 22), fontsize=9)
            axes.set_xscale("symlog", linthresh=1)
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.set(ylim=(0, 1.02))
            axes.set_xlim(left=0)
            axes.grid(True)
        for i, label in enumerate(shorts(labels).values()):
            style = {key: value for key, value in series_style(i).items() if key != "marker"}
            panels.flat[0].plot([], [], label=label, **style)
        for axes in panels.flat[max(0, len(values) - panels.shape[1]) : len(values)]:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel(f"{name.upper()} (pixels)")
        figure.supylabel("share of the pictures", fontsize=9, color=INK)
        legend_below(figure, len(labels))
        settled(figure)
    rows = [
        (label, title, value) for title, models in values.items() for label, all_ in models.items() for value in all_
    ]
    caption = (
        f"{name.upper()} per picture and class: share of the pictures at or below a distance; the higher the curve, "
        "the better. A picture counts where truth or prediction holds the class; where only one of them does, the "
        "distance is the picture's diagonal."
    )
    return Plot(name, caption, figure, ("model", "class", f"{name}_pixels"), rows)


def failure_plot(counts: Mapping[str, Mapping[str, tuple[int, int]]], objects: str) -> Plot:
    """How many objects failed in which way, bars per model.

    Args:
        counts: label of a model to kind to false negatives and false positives.
        objects: a clause on what an object is, for the caption.
    """
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(WIDTH, 1.15 + 0.55 * len(counts)), layout="constrained")
        lost, surplus = figure.subplots(1, 2, sharey=True)
        for axes, side, title in (
            (lost, 0, "true objects not found"),
            (surplus, 1, "predicted objects without a match"),
        ):
            left = np.zeros(len(counts))
            for kind, colour in zip(FAILURES, SERIES, strict=False):
                number = np.array([kinds.get(kind, (0, 0))[side] for kinds in counts.values()])
                axes.barh(
                    np.arange(len(counts)),
                    number,
                    0.62,
                    left=left,
                    color=colour,
                    label=kind if side == 0 else "",
                    edgecolor="white",
                    linewidth=0.6,
                )
                left += number
            name_rows(axes, list(shorts(counts).values()))
            axes.set(title=title, xlabel="objects")
        legend_below(figure, len(FAILURES))
        settled(figure)
    rows = [(label, kind, *pair) for label, kinds in counts.items() for kind, pair in kinds.items()]
    caption = f"Objects that panoptic quality counts as false, by what went wrong with them; {objects}."
    return Plot("failures", caption, figure, ("model", "kind", "false_negatives", "false_positives"), rows)
