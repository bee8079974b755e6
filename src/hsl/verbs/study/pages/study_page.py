"""``index.html`` and ``trials.csv`` of a study."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pandas as pd

from hsl.files.cells import csv_of
from hsl.files.io import read_json, write_atomically
from hsl.reports.page.sections_page import PageSection, write_sections_page
from hsl.reports.tables.score_tables import Column, Table
from hsl.verbs.study.pages.importance import importance_of
from hsl.verbs.study.pages.showing import best_first, counted, rows_of, status_line
from hsl.verbs.study.pages.study_plots import front_plot, history_plot, importance_plot, parallel_plot, slice_plot
from hsl.verbs.study.stored_study import REPORT, StoredStudy

PAGE = "index.html"


def write_pages(folder: Path, stored: StoredStudy, study: optuna.Study) -> None:
    """Write the table of trials, and the page with what was searched, found and confirmed."""
    rows = rows_of(study, stored)
    write_atomically(folder / "trials.csv", csv_of(pd.DataFrame(rows)).encode())
    sections = [
        PageSection("Trials", tables=[_table(rows, stored)]),
        PageSection("In the order of the trials", plots=[history_plot(counted(study), stored)]),
    ]
    complete = best_first(study, stored)
    if len(complete) > 1:
        found = importance_of(study, stored)
        sections += [
            PageSection("What mattered", found.sentence, plots=[importance_plot(found)] if found.means else ()),
            PageSection("By each value", plots=[slice_plot(complete, stored)]),
            PageSection("Points and their values", plots=[parallel_plot(complete, stored)]),
        ]
        if len(stored.objectives) > 1:
            sections.append(PageSection("Pareto front", plots=[front_plot(complete, study.best_trials, stored)]))
    facts = [
        f"{status_line(study, stored)}; {len(stored.folds)} folds a trial, by {stored.monitor}. No score of a "
        "test part was read.",
        "The value of the best of many trials is high by luck, too: the confirmation trains the best ones again, with "
        "fresh seeds.",
    ]
    write_sections_page(
        folder / PAGE, f"Study {stored.name}", facts, _answers(folder, study, stored), {"Search": sections}
    )


def _answers(folder: Path, study: optuna.Study, stored: StoredStudy) -> Mapping[str, Sequence[str]]:
    """What the report of the confirmation says, or that there is none."""
    results = folder / REPORT / "cv_results.json"
    if results.is_file():
        told: Mapping[str, Sequence[str]] = read_json(results)["answer"]
        more = f"These are the trainings of the confirmation alone: {REPORT}/{PAGE} beside this page shows them."
        return {kind: [*sentences, more] for kind, sentences in told.items()}
    ranked = best_first(study, stored)
    if not ranked:
        return {"": ["No trial ended well, so nothing is known."]}
    found = (
        f"Trial {ranked[0].number} has the best value. It was not confirmed, so it is not called better than any "
        "other: let the confirmation train it again (study.confirm.top=3)."
    )
    return {"": [found]}


def _table(rows: Sequence[Mapping[str, Any]], stored: StoredStudy) -> Table:
    numbers = {"score": "value", "parameters": "count", "seconds": "seconds"}
    columns = [Column("trial", "trial", "count"), Column("state", "state")]
    columns += [Column(name, stored.monitor if name == "score" else name, numbers[name]) for name in stored.objectives]
    columns += [
        Column("deviation", "± over folds", "value"),
        *(Column(key, key) for key in stored.space),
        Column("why", "why"),
    ]
    cells = [[_cell(row[column.key], column) for column in columns] for row in rows]
    return Table(
        "trials",
        "Every trial: its values, their spread over the folds, its point, and why it ended early.",
        columns,
        cells,
    )


def _cell(value: Any, column: Column) -> Any:
    if column.kind != "text" or value is None or isinstance(value, str):
        return value
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
