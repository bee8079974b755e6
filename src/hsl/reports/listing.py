"""Run folders with their key numbers, quick also for hundreds of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hsl.errors import ConfigError, DataError
from hsl.metrics.catalogue import SCORES
from hsl.run_folder.history import read_history
from hsl.run_folder.provenance import Facts, read_facts, run_status
from hsl.run_folder.scores import Metrics, StoredScores, read_metrics
from hsl.terminal import visible

PART, INFERENCE = "val", "plain"  # whose scores are listed


@dataclass(frozen=True)
class Row:
    """What is listed of a run; none where there is nothing to say.

    ``data`` is the data set; ``task``, ``encoder`` and ``loss`` are the words of the command line, ``value`` is that of
    ``monitor`` in the best epoch, counted from 0 here and from 1 where it is read. ``scores`` are those of ``LISTED``
    on the validation part, ``epochs`` how many were run, ``wall_time`` is in seconds, ``reason`` says why a run is
    unfinished or its folder unreadable.
    """

    folder: str
    name: str | None = None
    data: str | None = None
    task: str | None = None
    encoder: str | None = None
    loss: str | None = None
    fold: int | None = None
    seed: int | None = None
    status: str = "unreadable"
    monitor: str | None = None
    value: float | None = None
    best_epoch: int | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    epochs: int | None = None
    wall_time: float | None = None
    started: str | None = None
    reason: str = ""

    @property
    def cells(self) -> dict[str, Any]:
        """By column."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: self.scores.get(name) if name in LISTED else values[name] for name in COLUMNS}


LISTED = tuple(score.name for score in SCORES.values() if score.listed)
_NAMES = [LISTED if each.name == "scores" else (each.name,) for each in fields(Row)]
COLUMNS = tuple(name for some in _NAMES for name in some)


def read_row(folder: Path) -> Row:
    """Read the few pages of a run that a listing needs; a broken one makes its status unreadable."""
    row = Row(str(folder))
    try:
        facts = read_facts(folder)
        row = replace(
            row,
            name=facts.name,
            data=facts.data,
            task=_choice(facts, "task"),
            encoder=_choice(facts, "encoder"),
            loss=_choice(facts, "loss"),
            fold=facts.fold,
            seed=facts.seed,
            wall_time=facts.wall_time_s,
            started=facts.started,
            epochs=len(read_history(folder)),
        )
        status, reason = run_status({"status": facts.status, "error": facts.error}, folder)
        if status == "finished":
            row = replace(row, **_numbers(read_metrics(folder)))
    except DataError as error:
        return replace(row, reason=str(error))
    return replace(row, status=status, reason=reason)


def arrange(rows: Iterable[Row], wanted: str | None, sort: str) -> list[Row]:
    """Rows that pass a filter, in an order; what lacks the sorted value comes last either way.

    Args:
        rows: the runs.
        wanted: ``column=value`` pairs with commas between them, which must all hold; values may hold ``*`` and ``?``.
        sort: a column, the largest first, or ``-column``, the smallest first.

    Raises:
        ConfigError: a column is unknown, or a pair is not two models.

    Example:
        >>> [row.folder for row in arrange([Row("a", fold=0), Row("b"), Row("c", fold=2)], None, "fold")]
        ['c', 'a', 'b']
    """
    patterns = _patterns(wanted)
    column = sort.removeprefix("-")
    _check_column(column, f"sort = {sort}")
    kept = [row for row in rows if all(fnmatchcase(_plain(row, key), text) for key, text in patterns)]
    known = [row for row in kept if row.cells[column] is not None]
    known.sort(key=lambda row: row.cells[column], reverse=not sort.startswith("-"))
    return known + [row for row in kept if row.cells[column] is None]


def as_text(rows: Sequence[Row]) -> str:
    """A table without the columns that say nothing, the folder last; below it why runs are unfinished."""
    columns = [name for name in COLUMNS if name not in ("folder", "reason")] + ["folder"]
    shown = [name for name in columns if any(_cell(row, name) for row in rows)]
    table = [shown, *([visible(_cell(row, name), lines=False) for name in shown] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(shown))]
    lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in table]
    reasons = [f"{row.status}: {row.folder}: {row.reason.splitlines()[0]}" for row in rows if row.reason]
    return "\n".join([*lines, "", *reasons] if reasons else lines)


def _choice(facts: Facts, group: str) -> str | None:
    """The option of a group; of a run that recorded none, what its config calls the part."""
    if chosen := facts.choices.get(group):
        return str(chosen)
    node = facts.config.get(group)
    if not isinstance(node, Mapping):
        return None
    return str(node.get("name") or str(node.get("_target_", "")).rpartition(".")[2]) or None


def _numbers(metrics: Metrics) -> dict[str, Any]:
    stored = metrics.parts.get(PART, {}).get(INFERENCE, StoredScores.model_validate({}))
    head = next(iter(stored.image_heads.values()), None)
    scores = stored.scores | (head.scores if head else {})
    return {
        "monitor": metrics.monitor.name,
        "value": metrics.monitor.value,
        "best_epoch": metrics.monitor.epoch,
        "scores": {name: scores.get(name) for name in LISTED},
    }


def _patterns(wanted: str | None) -> list[tuple[str, str]]:
    pairs = [] if wanted is None else str(wanted).split(",")
    for pair in pairs:
        if "=" not in pair:
            raise ConfigError(f"`filter` should be column=value pairs such as encoder=mit_b0,fold=0. Found `{pair}`.")
    patterns = [(key.strip(), text.strip()) for key, _, text in (pair.partition("=") for pair in pairs)]
    for key, _ in patterns:
        _check_column(key, f"filter = {wanted}")
    return patterns


def _check_column(name: str, setting: str) -> None:
    if name not in COLUMNS:
        raise ConfigError(f"A column should be one of {', '.join(COLUMNS)}. Found `{name}` in `{setting}`.")


def _plain(row: Row, name: str) -> str:
    """As it is read and filtered by; JSON has the numbers of the files, where epochs count from 0."""
    value = row.cells[name]
    if name == "best_epoch" and value is not None:
        value += 1
    return "" if value is None else str(value)


def _cell(row: Row, name: str) -> str:
    value = row.cells[name]
    if name == "wall_time" and value is not None:
        return str(timedelta(seconds=round(value)))
    return f"{value:.4f}" if isinstance(value, float) else _plain(row, name)
