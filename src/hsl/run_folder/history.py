"""What happened while a run was trained: its epochs, the steps of its weighting, phases, a rollback, lost memory."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.errors import DataError
from hsl.files.cells import csv_of, read_rows_of_table
from hsl.files.io import Page, parse_json, read_text, write_atomically
from hsl.run_folder.layout import HISTORY, OOM, PHASES, ROLLBACK, WEIGHTING
from hsl.run_folder.provenance import optional_page

Series = Mapping[str, NDArray[np.float64]]
Epoch = Mapping[str, Any]
"""A row of ``history.csv``: column to number, or to the name of a phase; none where there is no value."""


@dataclass(frozen=True)
class WeightingSteps:
    """The logged steps of a run. Each array has a value per step, NaN where there was none.

    ``weights``: objective to its weight; ``norms``: to the norm of its gradient, without a value in a batch that has
    no label for it; ``cosines``: "one, other" to the cosine of their gradients. A method that looks at no gradients
    has neither. ``solver_failures`` of ``solver_steps`` is the count at the last logged step.
    """

    steps: Sequence[int]
    weights: Series
    norms: Series
    cosines: Series
    solver_failures: int
    solver_steps: int


@dataclass(frozen=True)
class RunEvents:
    """``phases``: name to what ``phases.json`` says of it; ``rollback``: ``rollback.json``, what the last rollback gate
    decided; ``memory``: the events of ``oom.json``. Each is empty without its file.
    """

    phases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rollback: Mapping[str, Any] = field(default_factory=dict)
    memory: tuple[Mapping[str, Any], ...] = ()

    @property
    def reverted(self) -> bool:
        """Whether the gate put earlier weights back, so that they are what was scored."""
        return self.rollback.get("decision") == "reverted"


def write_history(path: Path, epochs: Iterable[Epoch]) -> None:
    """Write ``history.csv``: a row per epoch, in which a value that another row has is empty where it has none."""
    import pandas as pd  # whoever reads needs it not

    write_atomically(path, csv_of(pd.DataFrame(list(epochs))).encode())


def read_history(folder: Path) -> list[Epoch]:
    """The epochs, numbers to their last digit; none before the first was over or with ``callbacks.history=null``.

    Raises:
        DataError: the file is not a table of epochs.
    """
    path = folder / HISTORY
    if not path.is_file():
        return []
    rows = read_rows_of_table(path)
    if not rows or not isinstance(rows[0].get("epoch"), str):
        raise DataError(f"`{path}` should have rows with the column epoch. Found {len(rows)} rows.")
    return [{name: _value(path, name, text) for name, text in row.items() if name} for row in rows]


def curves(epochs: Sequence[Epoch]) -> dict[str, list[float]]:
    """Column to its values, NaN where there is none; without the names of the phases."""
    names = [name for name in (epochs[0] if epochs else ()) if name != "phase"]
    return {name: [math.nan if row[name] is None else float(row[name]) for row in epochs] for name in names}


def _value(path: Path, name: str, text: str | None) -> int | float | str | None:
    if not text or name == "phase":
        return text or None
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise DataError(f"`{path}` should hold numbers. Found `{text}`.") from None


def keep_steps(path: Path, last: int) -> None:
    """Drop the lines of ``weighting.jsonl`` that are of later steps than ``last``, or were cut off."""
    if path.exists():
        lines = path.read_text(encoding="utf8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= last]
        write_atomically(path, "".join(kept).encode())


def append_step(path: Path, step: int, epoch: int, values: Mapping[str, float]) -> None:
    """Add a line to ``weighting.jsonl``; a number that is not finite becomes null."""
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf8") as file:
        file.write(json.dumps({"step": step, "epoch": epoch, **finite}) + "\n")


def read_weighting(folder: Path) -> WeightingSteps | None:
    """None without the file, or with no step in it; a last line that was cut off is left out.

    Raises:
        DataError: a line is not a JSON object of numbers with a step.
    """
    path = folder / WEIGHTING
    try:
        text = path.read_text(encoding="utf8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"`{path}` cannot be read: {error}.") from None
    whole = text[: text.rfind("\n") + 1].splitlines()
    rows = [_row(path, number, line) for number, line in enumerate(whole, start=1)]
    if not rows:
        return None
    norms = _series(rows, "norm/")
    return WeightingSteps(
        [int(row["step"]) for row in rows],
        _series(rows, "weight/"),
        {name: np.where(values > 0, values, math.nan) for name, values in norms.items()},
        _series(rows, "cosine/"),
        int(rows[-1].get("solver_failures") or 0),
        int(rows[-1].get("steps") or 0),
    )


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"`{path}`, line {number}, is not valid JSON: {error}. Delete the line.") from None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise DataError(f"`{path}`, line {number}, should be an object with a `step`. Delete the line.")
    if wrong := [name for name, value in row.items() if value is not None and not isinstance(value, int | float)]:
        raise DataError(f"`{path}`, line {number}: `{wrong[0]}` should be a number or null. Delete the line.")
    return row


def _series(rows: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, NDArray[np.float64]]:
    names = dict.fromkeys(name for row in rows for name in row if name.startswith(prefix))
    return {
        name.removeprefix(prefix).replace("/", ", "): np.array([row.get(name) for row in rows], dtype=np.float64)
        for name in names
    }


def write_phase_states(folder: Path, phases: Mapping[str, Mapping[str, Any]]) -> None:
    """Write ``phases.json``: name of a phase to what is known of it."""
    write_atomically(folder / PHASES, json.dumps(phases, indent=2).encode())


def read_phase_states(folder: Path) -> Page:
    """Name to what is known of the phase; empty without the file.

    Raises:
        DataError: it is not a JSON object of objects.
    """
    page = optional_page(folder / PHASES)
    _check_objects(folder / PHASES, page.values())
    return page


def write_rollback(path: Path, decision: Mapping[str, Any]) -> None:
    """Write ``rollback.json``: what a rollback gate decided."""
    write_atomically(path, json.dumps(decision, indent=2).encode())


def read_rollback(path: Path) -> Page:
    """What the last rollback gate decided; empty without the file."""
    return optional_page(path)


def append_memory_event(path: Path, event: Mapping[str, Any]) -> None:
    """Add to ``oom.json`` that memory ran out."""
    write_atomically(path, json.dumps([*read_memory_events(path), event], indent=2).encode())


def read_memory_events(path: Path) -> list[dict[str, Any]]:
    """How often memory ran out; empty without the file.

    Raises:
        DataError: it is not a JSON list of objects.
    """
    if not path.is_file():
        return []
    events = parse_json(read_text(path), path)
    if not isinstance(events, list):
        raise DataError(f"`{path}` should be a JSON list. Found {type(events).__name__}.")
    _check_objects(path, events)
    return events


def read_events(folder: Path) -> RunEvents:
    """Phases, rollback and lost memory, as far as their files are there.

    Raises:
        DataError: one is not valid JSON, or of another shape.
    """
    memory = read_memory_events(folder / OOM)
    return RunEvents(read_phase_states(folder), read_rollback(folder / ROLLBACK), tuple(memory))


def _check_objects(path: Path, content: Iterable[Any]) -> None:
    if not all(isinstance(one, dict) for one in content):
        raise DataError(f"`{path}` should hold JSON objects, one per phase or event.")
