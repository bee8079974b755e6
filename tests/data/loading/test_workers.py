import gc
import logging
import os
import shutil
import sys
from typing import NamedTuple

import pytest

from hsl.data.loading import workers
from hsl.data.loading.workers import choose_num_workers, collector_paused, rank_and_world
from hsl.errors import ConfigError


class Usage(NamedTuple):
    free: int


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen cores, Linux, plenty of shared memory."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12))


def choose(
    requested: int | str = "auto", num_batches: int = 100, batch_bytes: int = 10**6, forked_only: bool = True
) -> int:
    return choose_num_workers(requested, num_batches, batch_bytes, forked_only=forked_only)


@pytest.mark.parametrize(("cores", "expected"), [(1, 0), (2, 1), (4, 3), (9, 8), (64, 8)])
def test_auto_leaves_a_core_to_the_training(monkeypatch: pytest.MonkeyPatch, cores: int, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert choose() == expected


@pytest.mark.parametrize(("num_batches", "expected"), [(0, 0), (1, 0), (3, 1), (15, 7), (16, 8)])
def test_auto_on_small_data(num_batches: int, expected: int) -> None:
    assert choose(num_batches=num_batches) == expected


def test_auto_shares_the_cores_among_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "rank_and_world", lambda: (1, 4))
    assert choose() == 3


def test_given_number_is_taken() -> None:
    assert choose(12, num_batches=1) == 12
    assert choose(0) == 0


def test_ram_cache_needs_forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert choose() == 0
    assert choose(forked_only=False) == 8
    assert choose(2, forked_only=False) == 2
    with pytest.raises(ConfigError, match=r"needs forked processes.*Set `data\.cache=disk`"):
        choose(2)


def test_small_shared_memory_limits_the_workers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "_SHARED_MEMORY", workers._SHARED_MEMORY.parent)  # a folder everywhere
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(64 * 10**6))
    with caplog.at_level(logging.WARNING):
        assert choose(4, batch_bytes=6 * 10**6) == 2  # (2 * 2 + 1) * 6 <= 32 < (2 * 3 + 1) * 6
    assert "64 MB free, too little for 4 workers with batches of 6 MB: 2 used" in caplog.text
    assert choose(4, batch_bytes=40 * 10**6) == 0
    caplog.clear()
    assert choose(4, batch_bytes=10**6) == 4
    assert not caplog.records


def test_collector_paused() -> None:
    assert gc.isenabled()
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_alone_without_a_process_group() -> None:
    assert rank_and_world() == (0, 1)
