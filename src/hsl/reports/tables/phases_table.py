"""The phases of the runs that were trained in several."""

from collections.abc import Sequence

from hsl.reports.models import Model
from hsl.reports.tables.score_tables import Cell, Column, Table


def phases_table(models: Sequence[Model]) -> Table | None:
    """One row per run and phase, also of unfinished runs; none where no run has phases."""
    rows: list[Sequence[Cell]] = []
    for model in models:
        used = {run.folder for run in model.finished.values()}
        for run in sorted(model.runs, key=lambda run: (run.fold, run.seed, str(run.folder))):
            if run.status == "finished" and run.folder not in used:
                continue  # a newer one took its place
            for name, phase in run.events.phases.items():
                row: list[Cell] = [model.label, str(run.fold), run.seed, name, str(phase.get("status", "unknown"))]
                row += [phase.get(key) for key in ("epochs", "monitor", "value")]
                row.append(phase["epoch"] + 1 if "epoch" in phase else None)
                row.append((phase.get("refinement") or {}).get("drift"))
                rows.append([*row, phase.get("wall_time_s"), phase.get("note")])
    columns = [Column("model", "model"), Column("fold", "fold"), Column("seed", "seed", "count")]
    columns += [Column("phase", "phase"), Column("status", "status"), Column("epochs", "epochs", "count")]
    columns += [Column("monitor", "monitored"), Column("value", "best value", "value")]
    columns += [Column("epoch", "best epoch", "count"), Column("drift", "pixels of the labels changed (%)", "share")]
    columns += [Column("wall_time_s", "time (h:m:s)", "seconds"), Column("note", "note")]
    caption = (
        "Phases of the training, each from the best checkpoint of the one before; a phase counts its own epochs, "
        "from 1; 0 is what it began with. "
        "The run's scores are those after the last phase that was trained."
    )
    return Table("phases", caption, columns, rows) if rows else None
