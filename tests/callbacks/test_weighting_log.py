"""A line every n steps, none twice, none lost."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hsl.callbacks.weighting_log import WeightingLog
from hsl.errors import ConfigError


class Logger:
    def __init__(self) -> None:
        self.values: dict[int, dict[str, float]] = {}

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        self.values[step] = values


def task(**values: float) -> Any:
    return SimpleNamespace(weighting=SimpleNamespace(diagnostics=lambda: values))


def trainer_at(step: int, is_global_zero: bool = True, logger: Logger | None = None) -> Any:
    loggers = [logger] if logger else []
    return SimpleNamespace(global_step=step, current_epoch=step // 10, is_global_zero=is_global_zero, loggers=loggers)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


def run(log: WeightingLog, first: int, last: int, **values: float) -> None:
    log.on_train_start(trainer_at(first), task())
    for step in range(first + 1, last + 1):
        log.on_train_batch_end(trainer_at(step), task(**values), None, None, 0)


def test_lines(tmp_path: Path) -> None:
    log, logger = WeightingLog(str(tmp_path / "new" / "w.jsonl"), 2), Logger()
    values = {"solver_failures": 1, "norm": float("nan")}
    for step in (0, 1, 2, 2, 3, 4):  # a batch of two parts at step 2
        log.on_train_batch_end(trainer_at(step, logger=logger), task(**values), None, None, 0)
    assert lines(tmp_path / "new" / "w.jsonl") == [
        {"step": 2, "epoch": 0, "solver_failures": 1, "norm": None},
        {"step": 4, "epoch": 0, "solver_failures": 1, "norm": None},
    ]
    assert set(logger.values) == {2, 4}
    assert logger.values[2]["weighting/solver_failures"] == 1


def test_a_resumed_run_has_no_step_twice(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    run(WeightingLog(str(path), 5), 0, 22, value=1.0)
    with path.open("a") as file:
        file.write('{"step": 25, "ep')  # killed while it wrote
    run(WeightingLog(str(path), 5), 12, 30, value=2.0)
    assert [line["step"] for line in lines(path)] == [5, 10, 15, 20, 25, 30]
    assert [line["value"] for line in lines(path)] == [1, 1, 2, 2, 2, 2]


def test_a_run_that_starts_at_a_written_step_does_not_write_it_again(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    run(WeightingLog(str(path), 5), 0, 10)
    log = WeightingLog(str(path), 5)
    log.on_train_start(trainer_at(10), task())
    log.on_train_batch_end(trainer_at(10), task(), None, None, 0)  # first half of an accumulated batch
    assert [line["step"] for line in lines(path)] == [5, 10]


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    log = WeightingLog(str(tmp_path / "w.jsonl"), 1)
    log.on_train_batch_end(trainer_at(1, is_global_zero=False), task(), None, None, 0)
    assert not list(tmp_path.iterdir())


def test_range(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="every_n_steps"):
        WeightingLog(str(tmp_path / "w.jsonl"), 0)
