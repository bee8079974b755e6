"""Plots of ``weighting.jsonl``: weights, gradient norms and cosines over the steps, a panel per model."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hsl.reports.models import Model
from hsl.reports.plots.plot_files import REPORT_STYLE, SOFT, Plot
from hsl.reports.plots.score_plots import WIDTH, name_panels, series_style, settled, short
from hsl.run_folder.history import Series

PANELS = 2  # side by side
POINTS = 50  # of a line; a long run would hide its course behind noise
MAX_PAIRS = 7  # a colour each
WEIGHTS = (
    "What each objective is multiplied with over the steps, constant weights included (unlike axes)",
    "weight",
)
NORMS = (
    "Norm of the gradient of each weighted objective with respect to the shared features over the steps (logarithmic)",
    "gradient norm",
)
COSINES = (
    f"Cosine of the gradients of two objectives over the steps, of at most {MAX_PAIRS} pairs, those with the lowest "
    "median; below 0 they conflict",
    "cosine",
)


def weighting_plots(models: Sequence[Model]) -> list[Plot]:
    """``weights``, ``gradient_norms`` and ``gradient_cosines``, those of them that some run logged."""
    weights, norms, cosines = ([_logged(model, kind) for model in models] for kind in ("weights", "norms", "cosines"))
    plots = [
        _plot("weights", *WEIGHTS, models, weights),
        _plot("gradient_norms", *NORMS, models, norms),
        _plot("gradient_cosines", *COSINES, models, _lowest(cosines)),
    ]
    return [plot for plot in plots if plot is not None]


Logged = dict[tuple[int, int], tuple[Sequence[int], Series]]  # (fold, seed) to steps and values


def _logged(model: Model, kind: str) -> Logged:
    found = {key: run.weighting for key, run in sorted(model.finished.items()) if run.weighting}
    return {key: (log.steps, series) for key, log in found.items() if (series := getattr(log, kind))}


def _lowest(logged: Sequence[Logged]) -> list[Logged]:
    """Only the pairs with the lowest median over all models, the same in every panel."""
    values: dict[str, list[float]] = {}
    for runs in logged:
        for _, series in runs.values():
            for pair, cosines in series.items():
                values.setdefault(pair, []).extend(cosines[np.isfinite(cosines)].tolist())
    medians = {pair: float(np.median(each)) for pair, each in values.items() if each}
    kept = sorted(medians, key=lambda pair: medians[pair])[:MAX_PAIRS]
    return [
        {key: (steps, {pair: series[pair] for pair in kept if pair in series}) for key, (steps, series) in runs.items()}
        for runs in logged
    ]


def _plot(name: str, about: str, unit: str, models: Sequence[Model], logged: Sequence[Logged]) -> Plot | None:
    shown = [i for i, runs in enumerate(logged) if runs]
    names = list(dict.fromkeys(each for runs in logged for _, series in runs.values() for each in series))
    if not shown or not names:
        return None
    rows: list[tuple[str, int, int, str, float, float]] = []
    columns = min(PANELS, len(shown))
    lines = math.ceil(len(shown) / columns)
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(WIDTH, 0.9 + 2.3 * lines), layout="constrained")
        panels = list(figure.subplots(lines, columns, squeeze=False, sharey=name != "weights").flat)
        for axes, i in zip(panels, shown, strict=False):
            for (fold, seed), (steps, series) in logged[i].items():
                for objective, values in series.items():
                    x, y = binned(steps, values)
                    style = series_style(names.index(objective)) | {"marker": "o" if len(x) == 1 else None}
                    axes.plot(x, y, linewidth=1.1, markersize=4, **style)
                    pairs = zip(x.tolist(), y.tolist(), strict=True)
                    rows += [(models[i].label, fold, seed, objective, *pair) for pair in pairs]
            if name == "gradient_norms":
                axes.set_yscale("log")
            if name == "gradient_cosines":
                axes.axhline(0, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
            axes.set_title(short(models[i].label, 44))
            axes.tick_params(labelleft=True)
            axes.grid(True)
        name_panels(panels, len(shown), columns, "step", unit)
        looks = [{key: value for key, value in series_style(k).items() if key != "marker"} for k in range(len(names))]
        handles = [
            panels[0].plot([], [], linewidth=1.6, label=each, **look)[0]
            for each, look in zip(names, looks, strict=True)
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=min(4, len(names)), fontsize=8)
        settled(figure)
    caption = f"{about}: a line per objective and run, the median of the logged steps in at most {POINTS} equal spans."
    return Plot(name, caption, figure, ("model", "fold", "seed", "objective", "step", unit.replace(" ", "_")), rows)


def binned(steps: Sequence[int], values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Medians of steps and values in at most `POINTS` runs of equally many steps; spans without a value left out.

    >>> binned([1, 2], np.array([0.5, np.nan]))
    (array([1.]), array([0.5]))
    """
    known = np.isfinite(values)
    kept, found = np.asarray(steps, dtype=np.float64)[known], values[known]
    spans = np.array_split(np.arange(len(kept)), min(POINTS, max(1, len(kept))))
    chosen = [span for span in spans if len(span)]
    return np.array([np.median(kept[s]) for s in chosen]), np.array([np.median(found[s]) for s in chosen])
