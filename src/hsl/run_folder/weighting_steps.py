"""``weighting.jsonl``: what the task weighting of a run did, step by step."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.errors import DataError

Series = Mapping[str, NDArray[np.float64]]


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


def read_weighting(path: Path) -> WeightingSteps | None:
    """None without the file, or with no step in it; a last line that was cut off is left out.

    Raises:
        DataError: a line is not a JSON object of numbers with a step.
    """
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
