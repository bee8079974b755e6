"""Plots of one run: confusion matrix, IoU per class, class distribution, training curves.

Each function draws its data and writes them to a path; the suffix (png, pdf, svg) chooses the format. Figures
are built as objects, so nothing touches matplotlib's global state and several processes can draw at once.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from hsl.files.io import write_atomically
from hsl.reports.tables.titles import title_of

STYLE: Any = {
    "text.parse_math": False,  # names hold dollar signs
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: searchable, editable
    "pdf.fonttype": 42,
}
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#2B2B2B")
NO_SCORES = ("val/loss", "val/error_", "val/ece", "val/nll", "val/brier")
"""Beginnings of names that fall while a model gets better; between curves that rise they would hide both."""
MANY_CLASSES = 20  # above it cells carry no numbers


def confusion_plot(confusion: NDArray[np.int64], classes: Sequence[str], path: Path, title: str = "") -> None:
    """Where the pixels of each class go, in per cent of the class (rows sum to 100).

    Args:
        confusion: ``int64 (C, C)``, rows are the truth, columns the prediction.
        classes: C names.
        path: the file; its suffix chooses the format.
        title: above the plot.
    """
    with matplotlib.rc_context(STYLE):
        save_figure(draw_confusion(confusion, classes, title), path)


def draw_confusion(
    confusion: NDArray[np.int64], classes: Sequence[str], title: str = "", unit: str = "pixel"
) -> Figure:
    """The figure of `confusion_plot`; ``unit`` is what was counted."""
    num_classes, total = len(classes), confusion.sum(axis=1)
    share = np.divide(confusion * 100.0, total[:, None], out=np.full(confusion.shape, np.nan), where=total[:, None] > 0)
    cell = 0.5 if num_classes <= MANY_CLASSES else 0.24
    side = max(2.4, cell * num_classes)
    label = 0.075 * max(len(name) for name in classes)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(side + label + 1.9, side + label + 0.9), layout="constrained")
        axes = figure.add_subplot()
        colours = matplotlib.colormaps["Blues"].with_extremes(bad="#e4e4e4")
        image = axes.imshow(np.ma.masked_invalid(share), cmap=colours, vmin=0, vmax=100)
        _name_classes(axes, classes, total)
        axes.set(xlabel="predicted class", ylabel="true class", title=title)
        if num_classes <= MANY_CLASSES:
            _write_cells(axes, share, unit)
        bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02)
        bar.set_label("share of the true class (%)")
        bar.outline.set_visible(False)
    return figure


def iou_per_class(
    iou: Mapping[str, Sequence[float | None]], classes: Sequence[str], path: Path, title: str = ""
) -> None:
    """IoU of every class: the first series as bars, further ones as diamonds, each mean as a line.

    Args:
        iou: name of a series (``plain``, ``tta``) to C values in [0, 1]; NaN or None = in neither truth nor
            prediction.
        classes: C names.
        path: the file; its suffix chooses the format.
        title: above the plot.
    """
    rows = np.arange(len(classes))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 1.3 + 0.27 * len(classes)), layout="constrained")
        axes = figure.add_subplot()
        handles: list[Any] = []
        series = {name: np.array(values, dtype=float) for name, values in iou.items()}
        for column, ((name, values), colour) in enumerate(zip(series.items(), LINES, strict=False)):
            scored = np.isfinite(values)
            mean = 100 * float(values[scored].mean()) if scored.any() else float("nan")
            text = f"{name}: mIoU {mean:.1f} % over {scored.sum()} classes"
            if column == 0:
                handles.append(axes.barh(rows, 100 * np.nan_to_num(values), 0.66, color=colour, label=text))
            else:
                handles += axes.plot(100 * values, rows, "D", c=colour, mec="white", clip_on=False, label=text)
            axes.axvline(mean, color=colour, linestyle=(0, (4, 3)), linewidth=1)
            _write_column(axes, column, name, colour, [_iou_text(value) for value in values])
        for row in np.flatnonzero(np.isnan(list(series.values())).all(axis=0)):
            axes.text(1, int(row), "in neither truth nor prediction", va="center", color=GREY, fontsize=7.5)
        _name_rows(axes, classes, title)
        axes.set(xlim=(0, 100), xlabel=title_of("iou"))
        axes.xaxis.grid(True)
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        save_figure(figure, path)


def class_distribution(
    pixels: Mapping[str, NDArray[np.int64]], classes: Sequence[str], path: Path, title: str = ""
) -> None:
    """Share of the labelled pixels that each class takes, per part, on a logarithmic axis.

    Args:
        pixels: part (``train``, ``stop``, ``val``, ``test``) to pixel counts ``int64 (C,)``, ignored
            pixels left out.
        classes: C names.
        path: the file; its suffix chooses the format.
        title: above the plot.
    """
    shares = {part: 100.0 * counts / max(1, counts.sum()) for part, counts in pixels.items()}
    present = np.concatenate([share[share > 0] for share in shares.values()] or [np.array([])])
    lowest = 10.0 ** np.floor(np.log10(present.min(initial=1.0)) - 0.2)
    rows = np.arange(len(classes))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 1.3 + 0.27 * len(classes)), layout="constrained")
        axes = figure.add_subplot()
        axes.hlines(rows, lowest, 100, color="#e2e2e2", linewidth=0.8)
        for column, ((part, share), colour, marker) in enumerate(zip(shares.items(), LINES, "os^D", strict=False)):
            seen, lane = share > 0, rows + 0.22 * (column - (len(shares) - 1) / 2)  # apart: none is hidden
            axes.plot(share[seen], lane[seen], marker, color=colour, markersize=4.5, label=part)
            axes.plot(np.full((~seen).sum(), lowest), lane[~seen], "x", color=colour, markersize=4.5)
            _write_column(axes, column, part, colour, [percent(value) for value in share])
        axes.set_xscale("log")
        axes.set_xlim(lowest * 0.8, 140)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _name_rows(axes, classes, title)
        axes.set_xlabel("share of the labelled pixels (%), × = none")
        figure.legend(loc="outside lower center", ncols=len(shares))
        save_figure(figure, path)


def training_curves(
    history: Mapping[str, Sequence[float]], path: Path, monitor: str = "", best_epoch: int | None = None
) -> None:
    """Losses, the scores and the learning rate over the epochs, which are shown from 1.

    Args:
        history: columns of ``history.csv``: ``epoch``, ``lr``, ``train/loss``, ``train/loss/<objective>``,
            ``val/loss`` and any other; NaN leaves a gap.
        path: the file; its suffix chooses the format.
        monitor: the column that chose the checkpoint, such as ``val/miou``.
        best_epoch: marked with a line; from 0, as in ``history.csv``.
    """
    losses = [name for name in ("train/loss", "val/loss") if name in history]
    parts = [name for name in history if name.startswith(("train/loss/", "val/loss/"))]
    objectives = sorted({name.split("/", 2)[2] for name in parts})
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.9), layout="constrained")
        loss, score, rate = figure.subplots(1, 3)
        for name in losses:
            _curve(loss, history, name, BLUE if name.startswith("train") else ORANGE, linewidth=1.8)
        for name in parts if len(objectives) > 1 else []:
            style = ("--", ":", "-.")[objectives.index(name.split("/", 2)[2]) % 3]
            colour = BLUE if name.startswith("train") else ORANGE
            _curve(loss, history, name, colour, linestyle=style, linewidth=1, alpha=0.75)
        for name, colour in zip(_score_names(history, monitor), LINES, strict=False):
            _curve(score, history, name, colour, linewidth=1.8 if name == monitor else 1)
        _curve(rate, history, "lr", GREEN, linewidth=1.5)
        loss.set_title("loss")
        score.set_title("validation")
        rate.set_title("learning rate")
        rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        for axes in (loss, score, rate):
            _finish_curves(axes, best_epoch)
        save_figure(figure, path)


def learning_rate_search(rates: Sequence[float], losses: Sequence[float], suggestion: float, path: Path) -> None:
    """The smoothed loss over the rising learning rate, and the rate that is suggested.

    Args:
        rates: rising, above 0.
        losses: as many.
        suggestion: one of the rates; marked.
        path: the file; its suffix chooses the format.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(rates, losses, color=BLUE, linewidth=1.5)
        loss = float(np.interp(suggestion, rates, losses))
        axes.plot([suggestion], [loss], "o", color=ORANGE, label=f"suggested: {suggestion:.2g}")
        axes.set(xscale="log", xlabel="optimizer.lr", ylabel="smoothed training loss")
        axes.grid(visible=True)
        axes.legend(loc="best")
        save_figure(figure, path)


def save_figure(figure: Figure, path: Path, dpi: int = 160) -> None:
    """Write the figure in one go; the suffix of ``path`` chooses png, pdf or svg."""
    buffer = io.BytesIO()
    kind = path.suffix.removeprefix(".")
    figure.savefig(buffer, format=kind, dpi=dpi, bbox_inches="tight", pad_inches=0.08)
    write_atomically(path, buffer.getvalue())


def percent(value: float) -> str:
    """A percentage with two significant digits, never in exponents.

    >>> percent(99.98), percent(1.25), percent(0.00105), percent(0.0)
    ('99.98', '1.2', '0.001', '0')
    """
    if 99.9 <= value < 100:
        return f"{min(value, 99.99):.2f}"  # almost all is not all
    return np.format_float_positional(value, precision=2 if value < 10 else 3, fractional=False, trim="-")


def _name_classes(axes: Axes, classes: Sequence[str], total: NDArray[np.int64]) -> None:
    shares = 100.0 * total / max(1, total.sum())
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=45 if len(classes) <= MANY_CLASSES else 90)
    for text in axes.get_xticklabels():
        text.set(ha="right", va="top" if len(classes) <= MANY_CLASSES else "center", rotation_mode="anchor")
    rows = [f"{name}  ({percent(share)} %)" for name, share in zip(classes, shares, strict=True)]
    axes.set_yticks(ticks, rows)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(len(classes) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(classes) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0)


def _write_cells(axes: Axes, share: NDArray[np.float64], unit: str) -> None:
    for row, column in np.argwhere(np.isfinite(share)):
        value = share[row, column]
        text = "0" if value == 0 else "<0.1" if value < 0.1 else f"{value:.1f}" if value < 99.95 else "100"
        colour = "white" if value > 55 else "#b0b0b0" if value < 0.1 else "#222222"
        axes.text(int(column), int(row), text, ha="center", va="center", fontsize=7.5, color=colour)
    for row in np.flatnonzero(~np.isfinite(share).all(axis=1)):
        middle = (share.shape[1] - 1) / 2
        axes.text(middle, int(row), f"no {unit} of this class", ha="center", va="center", color=GREY, fontsize=7.5)


def _iou_text(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.1f}"


def _name_rows(axes: Axes, classes: Sequence[str], title: str) -> None:
    axes.set_yticks(range(len(classes)), classes)
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.set_title(title, pad=16)
    axes.tick_params(axis="y", length=0)


def _write_column(axes: Axes, column: int, name: str, colour: str, texts: Sequence[str]) -> None:
    """The exact values, in the margin at the right, one column per series."""
    x, transform = 1.1 + 0.13 * column, axes.get_yaxis_transform()
    style: dict[str, Any] = {"ha": "right", "va": "center", "color": colour, "fontsize": 7.5}
    axes.text(x, -0.9, name, fontweight="bold", transform=transform, **style)
    for row, text in enumerate(texts):
        axes.text(x, row, text, transform=transform, **style)


def _score_names(history: Mapping[str, Sequence[float]], monitor: str) -> list[str]:
    others = [name for name in history if name.startswith("val/") and not name.startswith(NO_SCORES)]
    chosen = [monitor] if monitor in others else []
    rest = sorted(others, key=lambda name: (not name.startswith("val/miou"), name))
    return chosen + [name for name in rest if name != monitor]


def _curve(axes: Axes, history: Mapping[str, Sequence[float]], name: str, colour: str, **style: Any) -> None:
    if name not in history:
        return
    values = np.asarray(history[name], dtype=float)
    epochs = np.asarray(history["epoch"], dtype=float) if "epoch" in history else np.arange(len(values))
    known = np.isfinite(values)
    marker = "o" if known.sum() < 3 else None  # one or two points make no visible line
    axes.plot(epochs[known] + 1, values[known], color=colour, marker=marker, markersize=4, label=name, **style)


def _finish_curves(axes: Axes, best_epoch: int | None) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(True)
    left, right = axes.get_xlim()
    axes.set_xlim(min(left, right - 1), max(right, left + 1))  # one epoch alone: no fractions of epochs
    if best_epoch is not None:
        style: dict[str, Any] = {"color": GREY, "linestyle": (0, (2, 2)), "linewidth": 1}
        axes.axvline(best_epoch + 1, label=f"best: epoch {best_epoch + 1}", **style)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(fontsize=7.5, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)
