"""What is said and written of a study: the line after each trial, the table, and what stands in ``trials.csv``."""

import json
import math
import statistics
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from hsl.console import PlainConsole
from hsl.terminal import say
from hsl.verbs.study.running import VALUES, WHY
from hsl.verbs.study.stored_study import StoredStudy
from hsl.verbs.study.trials import is_counted

BARS = "▁▂▃▄▅▆▇█"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """The trials but for points that were passed over."""
    return [trial for trial in study.get_trials(deepcopy=False) if is_counted(trial)]


def is_done(study: optuna.Study, num_trials: int) -> bool:
    """Whether so many trials have ended, and none is under way."""
    trials = counted(study)
    return sum(trial.state in ENDED for trial in trials) >= num_trials and all(trial.state in ENDED for trial in trials)


def best_first(study: optuna.Study, stored: StoredStudy) -> list[FrozenTrial]:
    """Complete trials by the first objective; of equal ones the earlier first."""
    complete = [trial for trial in counted(study) if trial.state == TrialState.COMPLETE]
    sign = -1.0 if stored.mode == "max" and stored.objectives[0] == "score" else 1.0
    return sorted(complete, key=lambda trial: (sign * trial.values[0], trial.number))


def status_line(study: optuna.Study, stored: StoredStudy, num_trials: int | None = None) -> str:
    """Ended trials, the best so far, the time of a trial on average and, of ``num_trials``, about the time left."""
    trials = counted(study)
    ended = [trial for trial in trials if trial.state in ENDED]
    line = f"{len(ended)} {'trial' if len(ended) == 1 else 'trials'} ended"
    if ranked := best_first(study, stored):
        line += (
            f", best {stored.objectives[0]} {ranked[0].values[0]:.4f} (trial {ranked[0].number}) {chart(study, stored)}"
        )
    times = [trial.duration.total_seconds() for trial in ended if trial.duration is not None]
    times = [one for one in times if one > 0]  # of a trial that two machines shared, it tells how their clocks differ
    if not times:
        return line
    mean, left = statistics.fmean(times), (num_trials or 0) - len(ended)
    line += f", {mean:.0f} s a trial"
    workers = 1 + sum(trial.state == TrialState.RUNNING for trial in trials)
    return line + (f", about {math.ceil(mean * left / workers / 60)} min left" if left > 0 else "")


def chart(study: optuna.Study, stored: StoredStudy, width: int = 30) -> str:
    """The best value so far after each complete trial, as bars."""
    complete = sorted((t for t in counted(study) if t.state == TrialState.COMPLETE), key=lambda one: one.number)
    better = max if stored.mode == "max" and stored.objectives[0] == "score" else min
    values: list[float] = []
    for trial in complete:
        values.append(better([*values[-1:], trial.values[0]]))
    low, high = min(values), max(values)
    shown = values[-width:]
    return "".join(BARS[round((value - low) / (high - low or 1.0) * (len(BARS) - 1))] for value in shown)


def rows_of(study: optuna.Study, stored: StoredStudy) -> list[dict[str, Any]]:
    """A row per trial, in their order: number, state, objectives, spread over folds, point, why it ended early."""
    rows = []
    for trial in counted(study):
        values = trial.values if trial.state == TrialState.COMPLETE else [None] * len(stored.objectives)
        folds = list(trial.user_attrs.get(VALUES, {}).values())
        rows.append({
            "trial": trial.number, "state": trial.state.name.lower(),
            **dict(zip(stored.objectives, values, strict=True)),
            "deviation": statistics.stdev(folds) if len(folds) > 1 else None, "folds": len(folds),
            **{key: trial.params.get(key) for key in stored.space},
            "why": trial.user_attrs.get(WHY),
        })  # fmt: skip
    return rows


def rows_as_json(study: optuna.Study, stored: StoredStudy) -> str:
    """The rows as JSON."""
    return json.dumps(rows_of(study, stored), indent=2)


def print_table(study: optuna.Study, stored: StoredStudy) -> None:
    """The trials, the best first, then what did not end well."""
    place = {trial.number: rank for rank, trial in enumerate(best_first(study, stored))}
    rows = sorted(rows_of(study, stored), key=lambda row: (place.get(row["trial"], len(place)), row["trial"]))
    title = f"{stored.name}: {stored.monitor} over {len(stored.folds)} {'fold' if len(stored.folds) == 1 else 'folds'}"
    table = Table("trial", "state", *stored.objectives, *stored.space, "why", title=title, title_justify="left")
    for row in rows:
        numbers = [_number(row[name]) for name in stored.objectives]
        if "score" in stored.objectives and row["deviation"] is not None:
            numbers[stored.objectives.index("score")] += f" ± {row['deviation']:.4f}"
        table.add_row(
            str(row["trial"]), row["state"], *numbers, *(_number(row[key]) for key in stored.space), row["why"] or ""
        )
    PlainConsole().print(table)
    say(status_line(study, stored))


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
