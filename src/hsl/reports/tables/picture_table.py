"""A row per picture: what every model scored on it."""

import math
from collections.abc import Sequence

from hsl.reports.models import Model
from hsl.reports.statistics.paired_tests import mean_std
from hsl.reports.tables.score_tables import Cell, Column, Table
from hsl.run_folder.run import Run, ScoredOn


def picture_table(models: Sequence[Model], on: ScoredOn) -> Table:
    """Per-image mIoU of every model, the worst mean first; several runs that saw a picture are averaged."""
    ready = [model for model in models if model.finished]
    scores = {model.label: _scores(model, on) for model in ready}
    groups = {
        name: row.group
        for model in ready
        for run in model.finished.values()
        for name, row in run.images.get(on, {}).items()
    }
    columns = [Column("picture", "picture"), Column("group", "group")]
    columns += [Column(f"miou_{i + 1}", f"{model.label} (%)", "share") for i, model in enumerate(ready)]
    columns += [Column("mean", "mean (%)", "share"), Column("gap", "gap (points)", "share")]
    rows: list[list[Cell]] = []
    for name, group in groups.items():
        values = [each.get(name) for each in scores.values()]
        known = [value for value in values if value is not None and not math.isnan(value)]
        gap = max(known) - min(known) if known else None
        rows.append([name, group, *values, sum(known) / len(known) if known else None, gap])
    rows.sort(key=lambda row: (row[-2] is None, row[-2] or 0.0, row[0]))
    caption = (
        f"Per-image mIoU, {on.part} part, {on.inference} inference: over the classes of the picture, so not the mean "
        "of the pooled scores. Gap: the best model less the worst."
    )
    return Table("pictures", caption, columns, rows)


def _scores(model: Model, on: ScoredOn) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    runs: list[Run] = list(model.finished.values())
    for run in runs:
        for name, row in run.images.get(on, {}).items():
            found.setdefault(name, []).append(row.miou)
    return {name: mean_std(values).mean for name, values in found.items()}
