"""Where the marks of the page's own figures go; drawn as SVG, so that they follow light and dark."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hsl.reports.results import Model
from hsl.reports.run_folder import Run

LEFT, WIDTH, ROW = 12, 720, 30  # pixels
COLOURS = 7  # CSS variables --series-0 ... in style.css.j2


@dataclass(frozen=True)
class Axis:
    """Maps values in [low, high] to pixels in [start, end]."""

    low: float
    high: float
    start: float
    end: float
    step: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Position and text."""
        number = round((self.high - self.low) / self.step)
        values = [self.low + i * self.step for i in range(number + 1)]
        return [(self.at(value), f"{value:.10g}") for value in values]


@dataclass(frozen=True)
class Dots:
    """One model: a dot per fold, the mean, and one standard deviation to either side."""

    label: str
    y: float
    dots: Sequence[tuple[float, str]]
    mean: float | None
    low: float | None
    high: float | None
    text: str


@dataclass(frozen=True)
class Curve:
    """One run's learning curve as an SVG path, and the place of its best epoch."""

    colour: int
    path: str
    title: str
    best: tuple[float, float] | None


def axis(values: Sequence[float], start: float, end: float) -> Axis:
    """An axis with about five ticks at round numbers that holds all values.

    >>> [text for _, text in axis([41.2, 58.9], 0, 100).ticks]
    ['40', '45', '50', '55', '60']
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    spread = max(high - low, 1e-9 + 0.02 * abs(high))
    power = 10.0 ** math.floor(math.log10(spread / 4))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= spread / 4 - 1e-12)
    bottom = math.floor(low / step + 1e-9) * step
    top = max(math.ceil(high / step - 1e-9) * step, bottom + step)
    return Axis(bottom, top, start, end, step)


def dot_plot(models: Sequence[Model], metric: str, part: str, inference: str) -> tuple[Axis, list[Dots]]:
    """Scores in per cent: models as rows, folds as dots."""
    folds = {model.label: model.overall(metric, part, inference) for model in models}
    sums = {model.label: model.summary(metric, part, inference) for model in models}
    ends = [100 * (s.mean + sign * s.std) for s in sums.values() for sign in (-1, 1) if s.num > 1]
    seen = [100 * value for values in folds.values() for value in values.values() if not math.isnan(value)]
    scale = axis([*ends, *seen], LEFT, WIDTH - LEFT)
    rows = []
    for i, model in enumerate(models):
        summary = sums[model.label]
        mean = 100 * summary.mean if summary.num else None
        spread = 100 * summary.std if summary.num > 1 else None
        dots = [
            (scale.at(100 * value), f"fold {fold}: {100 * value:.2f}")
            for fold, value in folds[model.label].items()
            if not math.isnan(value)
        ]
        rows.append(
            Dots(
                model.label,
                ROW * (i + 0.75),
                dots,
                None if mean is None else scale.at(mean),
                None if mean is None or spread is None else scale.at(mean - spread),
                None if mean is None or spread is None else scale.at(mean + spread),
                "no mean over folds" if mean is None else f"{mean:.2f}",
            )
        )
    return scale, rows


def learning_curves(models: Sequence[Model], height: float = 260) -> tuple[str, Axis, Axis, list[Curve]] | None:
    """The monitored value of every run over its epochs; none when runs monitored different values."""
    runs = [(i, run) for i, model in enumerate(models) for run in model.finished.values() if run.history]
    names = {run.metrics.monitor.name for _, run in runs if run.metrics}
    if len(names) != 1 or not all(names <= run.history.keys() for _, run in runs):
        return None
    (name,) = names
    points = {run.folder: _points(run.history, name) for _, run in runs}
    every = [point for found in points.values() for point in found]
    if len(every) < 2:
        return None
    x = axis([epoch for epoch, _ in every], 52, WIDTH - LEFT)
    y = axis([value for _, value in every], height - 30, 12)
    curves = []
    for i, run in runs:
        places = [(x.at(epoch), y.at(value)) for epoch, value in points[run.folder]]
        path = "M" + " L".join(f"{across} {down}" for across, down in places) if places else ""
        title = f"{models[i].label}, fold {run.fold}, seed {run.seed}"
        curves.append(Curve(i % COLOURS, path, title, _best(run, dict(points[run.folder]), x, y)))
    return name, x, y, curves


def _points(history: Mapping[str, Sequence[float]], name: str) -> list[tuple[float, float]]:
    pairs = zip(history["epoch"], history[name], strict=True)
    return [(epoch, value) for epoch, value in pairs if math.isfinite(epoch) and math.isfinite(value)]


def _best(run: Run, points: Mapping[float, float], x: Axis, y: Axis) -> tuple[float, float] | None:
    epoch = run.metrics.monitor.epoch if run.metrics else None
    return None if epoch is None or epoch not in points else (x.at(epoch), y.at(points[epoch]))
